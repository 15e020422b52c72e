"""In the k-fold protocol, nothing of a fold has a part in the model that compares its pairs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from celebflow.classifier.cards import VerifierCard
from celebflow.data.pairs import Pair, save_folds, save_pairs
from celebflow.errors import CelebflowError
from celebflow.evaluation.folds import score_folds
from celebflow.evaluation.pair_results import FOLDS, load_verification_report
from celebflow.evaluation.verifier_evaluation import evaluate_verifier
from celebflow.features.store import Features
from celebflow.params import ComputeParams
from tests.classifier.test_verifier import PARAMS, PEOPLE, train
from tests.conftest import draw_features

FOLD_OF = {person: 1 + number % 3 for number, person in enumerate(PEOPLE)}


@pytest.fixture(scope="module")
def features() -> Features:
    """Return photographs of ten people in three folds."""
    drawn = draw_features(80, ("original",), PEOPLE)
    split_of = {1: "train", 2: "val", 3: "test"}
    return replace(drawn, photos=[replace(photo, split=split_of[FOLD_OF[photo.person]]) for photo in drawn.photos])


@pytest.fixture(scope="module")
def pairs(features: Features) -> list[Pair]:
    """Return pairs of both kinds in each fold."""
    found = []
    for fold in (1, 2, 3):
        photos = sorted(
            (each for each in features.photos if FOLD_OF[each.person] == fold), key=lambda each: each.person
        )
        for number, first in enumerate(photos):
            for second in photos[number + 1 :: 3]:
                found.append(Pair(first.path, second.path, int(first.person == second.person), first.split, fold))
    return found


@pytest.fixture(scope="module")
def card(features: Features, pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> VerifierCard:
    """Return the card of a trained verifier."""
    return train(features, pairs, tmp_path_factory.mktemp("project")).card


def test_scores_of_a_fold_do_not_depend_on_its_labels(
    features: Features, pairs: list[Pair], card: VerifierCard
) -> None:
    before = score_folds(card, features, pairs, FOLD_OF)
    assert [fold.pairs[0].fold for fold in before] == [1, 2, 3]
    # Wrong labels in fold 3 change what is said about folds 1 and 2, and nothing about fold 3.
    photos = list(features.photos)
    for row, photo in enumerate(photos):
        if FOLD_OF[photo.person] == 3:
            photos[row] = replace(photo, person=PEOPLE[2 + 3 * (row % 3)])
    wrong = [replace(pair, same=1 - pair.same) if pair.fold == 3 else pair for pair in pairs]
    after = score_folds(card, replace(features, photos=photos), wrong, FOLD_OF)
    np.testing.assert_array_equal(after[2].log_odds, before[2].log_odds)
    assert not np.array_equal(after[0].log_odds, before[0].log_odds)


def test_folds_of_too_few_photographs_are_an_error_with_the_remedy(
    features: Features, pairs: list[Pair], card: VerifierCard
) -> None:
    rows = [next(row for row, photo in enumerate(features.photos) if photo.person == person) for person in PEOPLE]
    single = replace(features, photos=[features.photos[row] for row in rows])
    across = [
        Pair(first.path, second.path, 0, first.split, FOLD_OF[first.person])
        for first, second in zip(single.photos, single.photos[3:], strict=False)
    ]
    with pytest.raises(CelebflowError, match="photographs of [0-9]+ people: nobody has two photographs.*Add people or"):
        score_folds(card, single, across, FOLD_OF)


def test_folds_are_reported_with_their_mean_and_standard_error(
    features: Features, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    verifier = train(features, pairs, tmp_path)
    verifier.save(Path("models/classifier.safetensors"))
    save_pairs(pairs, Path("splits/pairs.csv"))
    save_folds(FOLD_OF, Path("splits/folds.csv"))
    metrics = evaluate_verifier(Path("models/classifier.safetensors"), features, ComputeParams(), Path("reports"))
    assert list(metrics) == ["val", "test", FOLDS]
    folds = score_folds(verifier.card, features, pairs, FOLD_OF)
    accuracies = [((fold.log_odds >= 0) == fold.same).mean() for fold in folds]
    assert metrics[FOLDS]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert metrics[FOLDS]["standard_error"] == pytest.approx(np.std(accuracies, ddof=1) / np.sqrt(3))
    assert (tmp_path / "reports" / "test" / "folds" / "predictions.csv").exists()
    assert PARAMS.classifier == verifier.card.score == "plda"
    for split in ("val", "test"):
        count = len((tmp_path / "reports" / split / "predictions.csv").read_text().splitlines()) - 1
        assert count == sum(pair.split == split for pair in pairs)
    with pytest.raises(Exception, match=r"all_metrics\.json is missing"):
        load_verification_report(Path("reports/history.csv"), Path("reports/all_metrics.json"), Path("reports"))
