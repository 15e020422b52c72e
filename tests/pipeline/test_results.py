"""The files of a result are complete, and the commands that read them agree with them."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from celebflow.data import invented_people
from tests.repository import Repository

pytestmark = pytest.mark.slow


def test_results_are_there_and_readable(repository: Repository) -> None:
    metrics = repository.read_metrics()
    assert metrics["backbone"] == "UNTRAINED"
    names = ["accuracy", "balanced_accuracy", "calibration_error", "loss", "macro_auc", "top_5_accuracy"]
    names += ["uncalibrated_calibration_error", "uncalibrated_loss", "coverage", "false_acceptance_rate"]
    names += [
        f"{kind}_{rate}_percent" for kind in ("coverage_at_far", "dir_at_far", "measured_far_at") for rate in (1, 5)
    ]
    assert sorted(metrics["val"]) == sorted(metrics["test"]) == sorted([*names, "open_set_auc"])
    for split in ("val", "test"):
        intervals = json.loads((repository.folder / "reports" / split / "intervals.json").read_text())
        for name in ("accuracy", "balanced_accuracy", "macro_auc", "coverage", "false_acceptance_rate"):
            assert intervals[name]["low"] <= metrics[split][name] <= intervals[name]["high"]
    header, *_ = repository.run("dvc", "metrics", "show").splitlines()
    headline = ["accuracy", "balanced_accuracy", "loss", "macro_auc"]
    columns = ["Path", "backbone", *(f"{split}.{name}" for split in ("test", "val") for name in headline)]
    assert sorted(header.split()) == sorted(columns), "the others are in all_metrics.json and intervals.json"
    faces = (repository.folder / "features" / "faces.csv").read_text(encoding="utf-8")
    assert len(faces.splitlines()) == 1, "faces are not detected"
    with (repository.folder / "reports" / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert float(history[-1]["val_accuracy"]) == pytest.approx(metrics["val"]["accuracy"], abs=1e-6)


def test_page_needs_no_other_file_and_no_other_result(template: Repository) -> None:
    page = (template.folder / "reports" / "index.html").read_text(encoding="utf-8")
    assert "UNTRAINED BACKBONE" in page
    assert page.count("data:image/") > 20
    assert not re.search(r"""(src|href)="(?!data:|#)""", page)
    assert "PairedTest" not in page and "ompared with" not in page


def test_with_two_people_every_plot_is_there(repository: Repository) -> None:
    for name in invented_people.PEOPLE[2:6]:
        shutil.rmtree(repository.folder / "data" / name)
    assert repository.repro() == ["prepare", "extract", "train", "evaluate", "plot"]
    repository.commit("two people")
    (folder,) = [
        plot for plot in yaml.safe_load((repository.folder / "dvc.yaml").read_text())["plots"] if isinstance(plot, str)
    ]
    files = {str(file.relative_to(repository.folder)) for file in (repository.folder / folder).iterdir()}
    assert len(files) > 10
    assert not any("open_set" in file for file in files), "unknown people cannot be simulated with two people"
    for command in (["show"], ["diff", "HEAD~1", "workspace"]):
        shown = json.loads(repository.run("dvc", "plots", *command, "--json"))
        assert "errors" not in shown
        assert files <= set(shown["data"])


def test_commit_without_a_result_has_no_model(repository: Repository) -> None:
    first = repository.run("git", "rev-list", "--max-parents=0", "HEAD").strip()
    output = repository.invoke("predict", "--rev", first, "data", fails=True)
    assert re.search(f"{first} has no models/.*`dvc repro`", output)


def test_result_that_the_cache_lacks_is_an_error_with_its_remedy(template: Repository, tmp_path: Path) -> None:
    clone = Repository(tmp_path / "clone")
    template.run("git", "clone", "--quiet", ".", str(clone.folder))
    output = clone.invoke("compare", "HEAD", "HEAD", fails=True)
    assert "DVC's cache lacks reports/val/predictions.csv of HEAD" in output
    assert "dvc pull" in output


def test_unknown_people_are_measured_at_the_threshold(repository: Repository) -> None:
    folder = repository.folder / "data_unknown"
    for person in range(6, 10):
        (folder / str(person)).mkdir(parents=True)
        for number in range(3):
            invented_people.draw_photograph(person, number).save(folder / str(person) / f"{number}.png")
    (folder / "6" / "broken.png").write_bytes(b"nothing")
    (folder / ".DS_Store").touch()
    unknown = repository.invoke("openset")
    known = repository.invoke("openset", "data")
    assert "95% interval" in unknown
    single = repository.invoke("openset", "data_unknown/7", "--sheet", "taken.png")
    assert " of 3 photographs" in single and "one person, so no interval" in single
    assert ("taken.png is not drawn" in single) != (repository.folder / "taken.png").exists()
    (folder / "empty").mkdir()
    assert "data_unknown/empty" in repository.invoke("openset", "data_unknown/empty", fails=True)
    found = re.search(r"(\d+) of 12 ", unknown)
    assert found and int(found[1]) < 12
    assert "broken.png" in unknown and "DS_Store" not in unknown
    assert "people whom the classifier knows" in known and "people whom the classifier knows" not in unknown
    area = re.compile(r"AUC of known against unknown people: ([\d.]+)")
    assert float(area.findall(unknown)[0]) > float(area.findall(known)[0]), "here most photographs are of known people"
