"""The page says what it is compared with, and why where it cannot be."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from celebflow.classifier.model import Classifier
from celebflow.errors import CelebflowError
from celebflow.evaluation.results import Prediction, Report, save_metrics
from celebflow.experiments.results import NoOutputError
from celebflow.features.origin import FeatureOrigin
from celebflow.features.store import Features
from celebflow.report import page_content
from celebflow.report.page import PageContent
from celebflow.tables import save_rows
from celebflow.tracking.provenance import Provenance
from tests.results import draw_logits, make_card, write_result

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Report, Classifier, Features]:
    """Make a result that stands on a commit, and whose page needs no photograph."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page_content, "find_provenance", lambda: Provenance(COMMIT, "main", False, ""))
    monkeypatch.setattr(page_content, "_gather_examples", lambda *arguments: ())
    monkeypatch.setattr(page_content, "_picture", lambda changes: [])
    report, card = write_result(tmp_path / "reports", make_card(["Ann", "Bo", "Cy"]), *draw_logits(3))
    (tmp_path / "reports" / "duplicates.png").write_bytes(b"")
    origin = FeatureOrigin(card.backbone, card.transform, "torch")
    features = Features(np.zeros(1, np.int64), np.zeros(0, np.uint16), np.zeros(0, np.float32), [], origin)
    return report, Classifier(card), features


def _gather(
    result: tuple[Report, Classifier, Features],
    monkeypatch: pytest.MonkeyPatch,
    before: Sequence[Prediction] | Exception | None,
) -> PageContent:
    """Gather the page's content with such predictions in the commit, or where reading them ends so."""

    def copy_outputs(files: Sequence[Path], revision: str, folder: Path) -> list[Path] | None:
        assert revision == COMMIT
        if isinstance(before, Exception):
            raise before
        if before is None:
            return None
        copies = [folder / file.name for file in files]
        save_metrics(result[0].metrics, result[1].card.backbone, copies[0])
        save_rows(Prediction, before, copies[1])
        return copies

    monkeypatch.setattr(page_content, "copy_outputs", copy_outputs)
    return page_content._gather_content(*result, {"train.seed": 0})


def test_nothing_is_said_without_an_earlier_result(
    result: tuple[Report, Classifier, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = result[0].splits["val"].predictions
    for before in (None, NoOutputError("none"), same):
        content = _gather(result, monkeypatch, before)
        assert (content.previous, content.not_compared) == (None, "")
    monkeypatch.setattr(page_content, "find_provenance", lambda: Provenance("", "", False, ""))
    content = _gather(result, monkeypatch, CelebflowError("never asked"))
    assert (content.previous, content.not_compared) == (None, "")


def test_an_earlier_result_is_compared_with(
    result: tuple[Report, Classifier, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = result[0].splits["val"].predictions
    before = [*(replace(p, predicted="Ann") for p in now[3:]), replace(now[0], path="Ann/gone.png")]
    content = _gather(result, monkeypatch, before)
    assert content.previous is not None and content.not_compared == ""
    compared = content.previous.comparison
    assert (content.previous.name, compared.count) == ("commit 0123456", len(now) - 3)
    assert (compared.missing_from_a, compared.missing_from_b) == (3, 1)


def test_an_earlier_result_that_cannot_be_read_is_told_with_the_reason(
    result: tuple[Report, Classifier, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [replace(p, path=f"other {p.path}") for p in result[0].splits["val"].predictions]
    for before, reason in (
        (CelebflowError(f"The cache lacks a file of {COMMIT}."), "The cache lacks a file of 0123456."),
        (others, "The two results have no photograph of this split in common."),
    ):
        content = _gather(result, monkeypatch, before)
        assert content.previous is None
        assert content.not_compared == f"The result of commit 0123456 is not compared with: {reason}"
