"""The name of a run begins with what differs, and tells runs on other photographs apart."""

import json
import shutil
from pathlib import Path

import pytest

from celebflow.backbone.source import BackboneSource
from celebflow.tracking import data_changes
from celebflow.tracking.data_changes import describe_data_change, read_data_md5
from celebflow.tracking.naming import describe_machine, describe_origin, name_run
from celebflow.tracking.provenance import Provenance
from tests.repository import Repository

WORKSPACE = Provenance("0123", "main", dirty=True, experiment="")
TRAINED, UNTRAINED = BackboneSource("imagenet", True, ""), BackboneSource("untrained", False, "")


def test_the_task_and_then_the_shortest_change_are_first_and_no_path_is_named() -> None:
    changed = {"backbone.weights": "/home/ann/weights/vgg19.pth", "train.lda_shrinkage": 0.3, "train.seed": 7}
    experiment = Provenance("0123", "main", dirty=True, experiment="best")
    assert name_run(experiment, TRAINED, changed, "") == "seed 7, weights vgg19.pth, lda_shrinkage 0.3 (best)"
    changed = {"train.seed": 7, "task": "verification"}
    assert name_run(WORKSPACE, TRAINED, changed, "") == "task verification, seed 7"
    assert name_run(WORKSPACE, TRAINED, {}, "data changed (+1 person)") == "data changed (+1 person)"
    assert name_run(experiment, TRAINED, {}, "") == "best"
    assert name_run(WORKSPACE, UNTRAINED, {}, "") == "committed params (UNTRAINED BACKBONE)"


def test_a_record_of_the_photographs_that_is_not_utf_8_records_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.dvc").write_bytes(b"caf\xe9: [\n")
    assert read_data_md5() == ""


@pytest.mark.slow
def test_changes_of_the_photographs_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    repository = Repository(tmp_path)
    data = tmp_path / "data"
    for person in ("Ann", "Bo"):
        (data / person).mkdir(parents=True)
        for number in range(3):
            (data / person / f"{number}.jpg").write_text(f"{person} {number}")
    (tmp_path / ".gitignore").write_text("/data\n")
    repository.run("git", "init", "--quiet")
    repository.run("dvc", "init", "--quiet")
    repository.run("dvc", "add", "--quiet", "data")
    repository.commit("start")
    monkeypatch.chdir(tmp_path)
    assert describe_data_change("HEAD") == ""
    shutil.rmtree(data / "Bo")
    (data / "Cy").mkdir()
    for number in range(2):
        (data / "Cy" / f"{number}.jpg").write_text(f"Cy {number}")
    (data / "Ann" / "0.jpg").write_text("another")
    repository.run("dvc", "add", "--quiet", "data")
    expected = "data changed (+2 photographs, -3 photographs, 1 replaced, +1 person, -1 person)"
    assert describe_data_change("HEAD") == expected
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    assert describe_data_change("HEAD") == "data changed (-1 photograph)"
    (tmp_path / "data.dvc").write_text("<<<<<<< HEAD\n")
    assert describe_data_change("HEAD") == ""


def test_tables_beside_the_photographs_are_named_and_are_no_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lists = {
        "1" * 32: {"Ann/0.jpg": "a", "pairs.csv": "b", "loose.jpg": "c"},
        "2" * 32: {"Ann/0.jpg": "a", "attributes.csv": "d", "people.csv": "e", "other.jpg": "f"},
        "3" * 32: {"Ann/0.jpg": "a", "attributes.csv": "g", "people.csv": "e", "other.jpg": "f", "Bo/0.jpg": "h"},
    }
    for md5, files in lists.items():
        entries = [{"relpath": path, "md5": content} for path, content in files.items()]
        listing = tmp_path / "files" / "md5" / md5[:2] / md5[2:]
        listing.parent.mkdir(parents=True)
        listing.write_text(json.dumps(entries, allow_nan=False))
    monkeypatch.setattr(data_changes, "_find_cache", lambda: tmp_path)

    def describe(old: str, new: str, *, folders_are_people: bool = True) -> str:
        monkeypatch.setattr(data_changes, "run_git", lambda *_: f"outs:\n- md5: {old * 32!r}\n  nfiles: 3\n")
        (tmp_path / "data.dvc").write_text(f"outs:\n- md5: {new * 32!r}\n  nfiles: 3\n")
        return describe_data_change("HEAD", folders_are_people=folders_are_people)

    expected = "data changed (+1 photograph, -1 photograph, -pairs.csv, +people.csv, +attributes.csv)"
    assert describe("1", "2") == expected
    assert describe("2", "3") == "data changed (+1 photograph, +1 person, other attributes.csv)"
    assert describe("2", "3", folders_are_people=False) == "data changed (+1 photograph, other attributes.csv)"


def test_machine_names_libraries() -> None:
    assert {"torch", "ncnn", "dvc", "mlflow", "python", "machine"} <= set(describe_machine())


def test_no_tag_has_the_name_of_a_file_of_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tags = describe_origin(Provenance("", "", dirty=False, experiment=""), BackboneSource("untrained", False, ""))
    # MLflow's file store writes each tag to a file of its name, in a folder that git need not ignore.
    assert not [name for name in tags if name.endswith((".dvc", "dvc.yaml"))]
    assert tags["celebflow.dvc_version"]
