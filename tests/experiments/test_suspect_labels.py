"""`celebflow suspects` lists the workspace's suspects as text, JSON, table and page, or says why it cannot."""

import json

import pytest

from celebflow.evaluation.suspects import Suspect, load_suspects
from celebflow.experiments.confirmed import ConfirmedLabel, save_confirmed
from celebflow.experiments.label_checks import describe_next_step
from celebflow.experiments.suspect_labels import LabelCheck, format_check
from tests.repository import Repository


@pytest.mark.slow
def test_suspects_are_listed_in_every_form(repository: Repository) -> None:
    before = repository.run("dvc", "status", "--json")
    found = json.loads(repository.invoke("suspects", "--folds", "3", "--json", only_output=True))
    photos = (repository.folder / "splits" / "photos.csv").read_text().splitlines()[1:]
    assert found["count"] == len(photos) == sum(found["count_of"].values())
    suspects = load_suspects(repository.folder / "reports" / "suspects.csv")
    assert [each["path"] for each in found["suspects"]] == [each.path for each in suspects]
    assert suspects, "untrained filters cannot tell all people apart"
    text = repository.invoke("suspects", "--folds", "3", "--limit", "1", "--output", "page.html", only_output=True)
    assert f"{len(suspects)} of {len(photos)} labels are suspect" in text
    assert suspects[0].path in text
    assert suspects[1].path not in text, "--limit"
    page = (repository.folder / "page.html").read_text(encoding="utf-8")
    assert all(each.path in page for each in suspects)
    assert repository.run("dvc", "status", "--json") == before
    assert repository.run("git", "status", "--porcelain") == "?? page.html\n"
    # A confirmed label is no suspect any more, but the photograph would be one in another folder.
    right, elsewhere = suspects[0], suspects[1]
    labels = [ConfirmedLabel(right.sha256, right.person), ConfirmedLabel(elsewhere.sha256, "somebody else")]
    save_confirmed(labels, repository.folder / "confirmed.csv")
    text = repository.invoke("suspects", "--folds", "3", "--limit", "-1", only_output=True)
    assert f"{len(suspects) - 1} of {len(photos)} labels are suspect" in text
    assert "Left out: 1, whose labels were confirmed" in text
    assert load_suspects(repository.folder / "reports" / "suspects.csv") == suspects[1:]
    assert repository.run("dvc", "status", "--json") == before, "no stage depends on what was confirmed"


@pytest.mark.slow
def test_what_the_command_needs_is_told(repository: Repository) -> None:
    repository.edit("classifier: mlp", "classifier: lda")
    repository.edit("pca_components: null", "pca_components: 10")
    repository.edit("task: recognition", "task: verification")
    expected = "the tasks recognition and attributes, and params.yaml has verification"
    assert expected in repository.invoke("suspects", fails=True)
    repository.edit("task: verification", "task: recognition")
    (repository.folder / "features").rename(repository.folder / "elsewhere")
    assert "features is missing. Run `dvc repro`" in repository.invoke("suspects", fails=True)
    assert not (repository.folder / "reports" / "suspects.csv").exists()


def test_the_text_lists_the_surest_and_the_people_with_several() -> None:
    names = ["Ann", "Bo", "Ann", "Ann", "Bo", "007"]
    suspects = [
        Suspect(f"{name}/{number}.jpg", "val", "0" * 64, name, "1e5", 0.1, 0.9) for number, name in enumerate(names)
    ]
    check = LabelCheck(suspects, 50, 0.88, {"Ann": 20, "Bo": 10, "007": 20})
    text = format_check(check, 2)
    assert text.startswith("6 of 50 labels are suspect (12.0%). Accuracy of the predictions")
    assert "Ann/0.jpg  1e5           90.0%" in text and "Ann/2.jpg" not in text
    assert "and 4 more; --limit -1 lists all" in text
    assert [line.split() for line in text.splitlines()[-2:]] == [["Ann", "3", "20"], ["Bo", "2", "10"]]
    assert "007/5.jpg" in format_check(check, -1)
    without = format_check(LabelCheck([], 50, 1.0, {}), 20)
    assert without.count("\n") == 0 and "Not judged" not in without
    assert "Not judged: 7" in format_check(LabelCheck([], 50, 1.0, {}, 7), 20)


@pytest.mark.parametrize(("accuracy", "line_count"), [(0.88, 2), (0.9, 1)])
def test_the_next_step_says_what_suspects_of_a_poor_classifier_are_worth(accuracy: float, line_count: int) -> None:
    step = describe_next_step(LabelCheck([], 50, accuracy, {}))
    assert step.count("\n") == line_count - 1 and step.endswith("Decide about each on a page: celebflow review")
