"""`celebflow drift` finds that photographs were darkened, raises no alarm for others, and says when it cannot tell."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance

from celebflow.data import invented_people
from celebflow.data.photos import load_photos
from celebflow.evaluation.metrics import measure_fraction
from celebflow.experiments.drift import ComparedPhotograph, DriftReport, format_csv, format_drift
from tests.repository import Repository


def _draw(folder: Path, people: int = 6, numbers: range = range(10, 16)) -> Path:
    """Draw photographs of people of train that train does not have."""
    for person, name in enumerate(invented_people.PEOPLE[:people]):
        (folder / name).mkdir(parents=True)
        for number in numbers:
            invented_people.draw_photograph(person, number).save(folder / name / f"{number}.png")
    return folder


def _darken(source: Path, target: Path) -> Path:
    for file in sorted(source.rglob("*.png")):
        darkened = target / file.relative_to(source)
        darkened.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as photograph:
            ImageEnhance.Brightness(photograph).enhance(0.3).save(darkened)
    return target


@pytest.mark.slow
def test_changed_photographs_differ_and_others_of_the_same_people_do_not(repository: Repository) -> None:
    before = repository.run("dvc", "status", "--json")
    folder = _draw(repository.folder.with_name("new"))
    same = json.loads(repository.invoke("drift", str(folder), "--json", only_output=True))
    assert (same["differs"], same["within_people"], len(same["photographs"])) == (False, True, 36)
    assert same["p_value"] >= 0.05
    darkened = _darken(folder, folder.with_name("darkened"))
    found = json.loads(repository.invoke("drift", str(darkened), "--json", only_output=True))
    assert found["differs"] and found["within_people"] and found["auc"] > 0.9
    # Without the folders of people, photographs are compared with all.
    flat = folder.with_name("flat")
    flat.mkdir()
    for file in darkened.rglob("*.png"):
        shutil.copy(file, flat / f"{file.parent.name} {file.name}")
    text = repository.invoke("drift", str(flat), "--limit", "2", "--sheet", "drift.png")
    assert "look different" in text and "Who is shown counts, too" in text
    assert "and 34 more; --limit -1 lists all" in text
    with Image.open(repository.folder / "drift.png") as sheet:
        assert sheet.width > 1000
    rows = list(csv.DictReader(io.StringIO(repository.invoke("drift", str(flat), "--csv", only_output=True))))
    scores = [float(row["score"]) for row in rows]
    assert len(rows) == 36 and scores == sorted(scores, reverse=True)
    assert rows[0]["path"] in text and (flat / rows[0]["path"]).exists()
    assert repository.run("dvc", "status", "--json") == before
    assert repository.run("git", "status", "--porcelain") == "?? drift.png\n"


@pytest.mark.slow
def test_what_the_command_needs_is_told(repository: Repository) -> None:
    folder = repository.folder.with_name("new")
    folder.mkdir()
    assert "holds 0 new photographs" in repository.invoke("drift", str(folder), fails=True)
    (folder / "broken.png").write_bytes(b"nothing")
    (folder / "bro\nken.png").write_bytes(b"nothing")
    invented_people.draw_photograph(0, 11).save(folder / "one.png")
    output = repository.invoke("drift", str(folder), fails=True)
    assert "1 new photographs" in output and "fewer than 10" in output and r"bro\u000aken.png" in output
    assert "Left out: 36 of train itself" in repository.invoke("drift", "data"), "24 are of val and test"
    own = folder / "own"
    for photo in load_photos(repository.folder / "splits" / "photos.csv"):
        if photo.split == "train":
            (own / photo.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository.folder / "data" / photo.path, own / photo.path)
    output = repository.invoke("drift", str(own), fails=True)
    assert "holds 0 new photographs, beside 36 photographs of train itself" in output
    numbers = range(10, 22)
    output = repository.invoke("drift", str(_draw(folder / "one", 1, numbers)), fails=True)
    assert f"Train has 6 photographs of the people in {folder / 'one'}" in output
    _draw(folder / "more", 2)
    output = repository.invoke("drift", str(folder))
    assert f"skipped: {folder / 'broken.png'}" in output
    assert rf"skipped: {folder / 'bro'}\u000aken.png: " in output
    repository.edit("image_size_px: 64", "image_size_px: 96")
    repository.repro("extract")
    assert "evaluate has not ended" in repository.invoke("drift", str(folder), fails=True)
    repository.run("git", "checkout", "--quiet", "dvc.lock")  # of the model, but not of the features
    assert "trained on other features" in repository.invoke("drift", str(folder), fails=True)
    (repository.folder / "features").rename(repository.folder / "elsewhere")
    assert "features is missing. Run `dvc repro`" in repository.invoke("drift", str(folder), fails=True)


REPORT = DriftReport(
    differs=True,
    auc=0.9,
    beyond=measure_fraction(1, 2),
    p_value=0.001,
    within_people=False,
    train_count=50,
    unknown=measure_fraction(1, 2),
    unknown_in_test=measure_fraction(3, 20),
    faceless=measure_fraction(1, 2),
    faceless_in_train=measure_fraction(0, 60),
    known_count=4,
    duplicate_count=0,
    unreadable=[],
    photographs=[
        ComparedPhotograph("=b.jpg", 0.5, True, "1e5", 0.9, True),
        ComparedPhotograph("a.jpg", -0.25, False, "007", 0.8, False),
    ],
)


def test_the_text_says_what_differs_and_what_was_left_out() -> None:
    text = format_drift(REPORT, 1)
    assert text.startswith("The new photographs look different")
    assert "2 new photographs were compared with 50 of train: AUC 0.900, where 0.5 is chance (p = 0.001)." in text
    assert "Left out: 4 of train itself." in text and "near-duplicates" not in text
    assert "interval 9.5% to 90.5%) look newer than 95% of train" in text
    assert "1 of 2 (50.0%" in text and "of test, 3 of 20 (15.0%" in text and "of train, 0 of 60 (0.0%" in text
    assert "unknown (1e5?)" in text and "a.jpg" not in text and "and 1 more" in text
    assert format_drift(REPORT, -1).splitlines()[-1].split() == [
        "a.jpg",
        "-0.250",
        "007",
        "80.0%",
        "no",
        "face",
        "found",
    ]
    assert "differs most" not in format_drift(REPORT, 0)


def test_names_of_files_break_neither_lines_nor_columns() -> None:
    names = ["c\nd.jpg", "e\tf\r.jpg", "g\udce9.jpg", "h\x1b[31m\u202e.jpg", "plain and as long as the others.jpg"]
    photographs = [ComparedPhotograph(name, 0.5, False, "Ann", 0.9, False) for name in names]
    text = format_drift(replace(REPORT, photographs=photographs), -1)
    header, *rows = text.splitlines()[-1 - len(names) :]
    shown = [r"c\u000ad.jpg", r"e\u0009f\u000d.jpg", r"g\udce9.jpg", r"h\u001b[31m\u202e.jpg", names[-1]]
    assert [row[: header.index("score")].rstrip() for row in rows] == shown
    assert {row.index("+0.500") for row in rows} == {header.index("score")}
    assert {row.index("no face") for row in rows} == {rows[0].index("no face")}


def test_a_task_without_people_has_scores_alone() -> None:
    photographs = [ComparedPhotograph("a.jpg", 0.1, None, None, None, None)]
    report = replace(
        REPORT,
        differs=False,
        within_people=True,
        unknown=None,
        unknown_in_test=None,
        faceless=None,
        faceless_in_train=None,
        known_count=0,
        duplicate_count=1,
        photographs=photographs,
    )
    text = format_drift(report, 5)
    assert text.startswith("No difference") and "each with those of its person alone" in text
    assert "Who is shown" not in text and "unknown" not in text and "face" not in text and "predicted" not in text
    assert "1 near-duplicates of others" in text
    assert format_csv(report).splitlines() == ["path,score,face,predicted,confidence,unknown", "a.jpg,0.1,,,,"]


def test_csv_has_a_row_for_each_photograph_and_no_formula() -> None:
    rows = format_csv(REPORT).splitlines()
    assert rows[1:] == ["'=b.jpg,0.5,true,1e5,0.9,true", "a.jpg,-0.25,false,007,0.8,false"]
