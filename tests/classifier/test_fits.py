"""A fit is recalled bit for bit by what determines it, and one that cannot be used is fitted again."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from celebflow.classifier import fits as fits_module
from celebflow.classifier.cards import UNCHANGED
from celebflow.classifier.checkpoints import open_checkpoints
from celebflow.classifier.classifier_training import train_classifier
from celebflow.classifier.fits import NOT_KEPT, Fits, Tensors, measure_fits, remove_fits
from celebflow.classifier.model import save_classifier
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.vectors import Vectors
from celebflow.features.store import Features
from celebflow.params import ComputeParams, TrainParams
from tests.conftest import draw_features
from tests.training import ALL_STEPS, make_train_params


class Counter:
    """A fit that counts how often it runs."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Tensors:
        """Return other tensors each time."""
        self.count += 1
        return {"weights": torch.full((3, 2), self.count / 3), "counts": torch.arange(self.count)}


def _is_equal(first: Tensors, second: Tensors) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_equal_determinants_recall_the_same_tensors_and_others_fit_anew(tmp_path: Path) -> None:
    fit = Counter()
    first = Fits(tmp_path, "features").recall("A fit", (1, "a"), fit)
    assert _is_equal(Fits(tmp_path, "features").recall("A fit", (1, "a"), fit), first) and fit.count == 1
    Fits(tmp_path, "features").recall("A fit", (2, "a"), fit)
    Fits(tmp_path, "features").recall("Another fit", (1, "a"), fit)
    Fits(tmp_path, "other features").recall("A fit", (1, "a"), fit)
    assert fit.count == 4
    assert measure_fits(tmp_path)[0] == 4


def test_nothing_is_kept_without_a_folder() -> None:
    fit = Counter()
    for _ in range(2):
        NOT_KEPT.recall("A fit", 1, fit)
    assert fit.count == 2


def test_a_damaged_fit_is_reported_and_fitted_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit, fits = Counter(), Fits(tmp_path, "features")
    fits.recall("A fit", 1, fit)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[:-4], b"", b"no tensors"):
        file.write_bytes(damaged)
        before = fit.count
        fits.recall("A fit", 1, fit)
        assert fit.count == before + 1
        message = capsys.readouterr().err
        assert "A fit" in message and str(file) in message
        assert file.read_bytes() != damaged


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fits").write_text("a file, where a folder should be")
    fit = Counter()
    assert Fits(tmp_path / "fits", "features").recall("A fit", 1, fit) and fit.count == 1
    assert str(tmp_path / "fits") in capsys.readouterr().err


def test_the_fits_that_were_not_used_for_longest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, fits = Counter(), Fits(tmp_path, "features")
    for number in range(3):
        fits.recall("A fit", number, fit)
    for age, file in enumerate(sorted(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime)):
        os.utime(file, (1000 + age, 1000 + age))
    fits.recall("A fit", 0, fit)  # now it is the last one used
    monkeypatch.setattr(fits_module, "_MAX_BYTES", 2 * max(file.stat().st_size for file in tmp_path.iterdir()))
    fits.recall("A fit", 3, fit)
    assert fit.count == 4
    fits.recall("A fit", 0, fit)
    fits.recall("A fit", 3, fit)
    assert fit.count == 4 and measure_fits(tmp_path)[0] == 2
    remove_fits(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_products_of_other_photographs_or_views_are_not_recalled(tmp_path: Path) -> None:
    features, fits = draw_features(12, ("original", "mirrored")), Fits(tmp_path, "features")
    preprocessor = Preprocessor(UNCHANGED, features.origin.feature_count)
    found = []
    for rows in (np.arange(4), np.arange(4, 8)):
        for views in (None, np.zeros(4, np.int64), np.ones(4, np.int64)):
            vectors = Vectors(preprocessor, features, rows, views)
            found.append(vectors.recall_products(fits))
            np.testing.assert_array_equal(found[-1], vectors.compute_products())
    assert len({products.tobytes() for products in found}) == 6


def _train(features: Features, params: TrainParams, file: Path) -> bytes:
    """Train as the stage does, in the working directory."""
    compute = ComputeParams()
    with open_checkpoints(features, params, compute) as checkpoints:
        save_classifier(train_classifier(features, params, compute, checkpoints, lambda _: None)[0], file)
    return file.read_bytes()


@pytest.mark.parametrize("classifier", ["lda", "mlp"])
def test_a_training_from_kept_fits_gives_the_same_bits(
    classifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = draw_features(60, ("original", "mirrored"))
    params = make_train_params(*ALL_STEPS, pca_components=6, classifier=classifier)
    other = params.model_copy(update={"lda_shrinkage": 0.5, "epochs": 1})
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "with")
    first = _train(features, params, tmp_path / "first")
    with monkeypatch.context() as patch:
        patch.setattr(Vectors, "read_columns", lambda *_: pytest.fail("it is fitted again"))
        assert _train(features, params, tmp_path / "again") == first
        kept = _train(features, other, tmp_path / "kept")
    assert kept != first
    monkeypatch.chdir(tmp_path / "without")
    assert _train(features, other, tmp_path / "fresh") == kept
    with_other_seed = other.model_copy(update={"seed": 7})
    assert _train(features, with_other_seed, tmp_path / "seed") != kept
