"""Models of attributes: each answer is learned from known labels alone, as scikit-learn and plain PyTorch learn it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.class_weight import compute_sample_weight
from torch.nn.functional import binary_cross_entropy_with_logits

from celebflow import paths
from celebflow.backbone.source import FEATURE_COUNT
from celebflow.classifier import attribute_training, discriminants
from celebflow.classifier.attribute_calibration import fit_attribute_calibration
from celebflow.classifier.attribute_model import AttributeModel, load_attribute_model
from celebflow.classifier.attribute_training import (
    BinaryCrossEntropy,
    make_objective,
    measure_yes_fractions,
    select_attributes,
    train_attributes,
)
from celebflow.classifier.cards import load_attribute_card
from celebflow.classifier.checkpoints import open_checkpoints
from celebflow.classifier.history import EpochResult
from celebflow.classifier.model import load_classifier
from celebflow.classifier.training import compute_logits
from celebflow.data.attributes import BLANK, NO, YES, AttributeTable, load_attributes, save_attributes
from celebflow.errors import CelebflowError
from celebflow.features.store import Features
from celebflow.params import ComputeParams, TrainParams, View
from tests.conftest import draw_features
from tests.training import MemoryCheckpoints, gather_dense, make_train_params

TWO_VIEWS: tuple[View, ...] = ("original", "mirrored")
NAMES = ("Is Ann", "Is Bo or Cy", "Random", "Always")
CPU = ComputeParams(device="cpu")


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Features:
    """Return the features of three people in two views, with labels in splits/attributes.csv, some of them blank."""
    monkeypatch.chdir(tmp_path)
    drawn = draw_features(60, TWO_VIEWS)
    random = np.random.default_rng(5)
    people = np.array([photo.person for photo in drawn.photos])
    columns = [people == "Ann", people != "Ann", random.random(len(people)) < 0.3, np.ones(len(people), bool)]
    labels = np.where(np.stack(columns, axis=1), YES, NO).astype(np.int8)
    labels[random.random(labels.shape) < 0.2] = BLANK
    save_attributes(AttributeTable(NAMES, tuple(photo.path for photo in drawn.photos), labels), paths.ATTRIBUTES)
    return drawn


def _train(features: Features, params: TrainParams) -> tuple[AttributeModel, list[EpochResult]]:
    return train_attributes(features, params, CPU, MemoryCheckpoints(), lambda _: None)


def _logistic(**changes: object) -> TrainParams:
    return make_train_params(pca_components=12, classifier="logistic", **{"logistic_c": 0.01, **changes})


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_ridge_regressions_equal_scikit_learns_up_to_a_logistic_function(
    features: Features, class_weights: str
) -> None:
    params = make_train_params(classifier="ridge", class_weights=class_weights)
    model, (result,) = _train(features, params)
    train, val = (select_attributes(features, load_attributes(paths.ATTRIBUTES), split) for split in ("train", "val"))
    dense, on_val = (
        gather_dense(features, split)[0].reshape(2, -1, FEATURE_COUNT).mean(0) for split in ("train", "val")
    )
    logits, labels = compute_logits(model, val, 8)
    for attribute in range(3):
        known = train.labels[:, attribute] != BLANK
        answers = train.labels[known, attribute]
        weights = np.ones(len(answers)) if class_weights == "none" else compute_sample_weight("balanced", answers)
        own = dense[known]
        variance = ((own - np.average(own, axis=0, weights=weights)) ** 2).sum(axis=1)
        strength = params.ridge_penalty * np.mean(variance)
        expected = Ridge(alpha=strength).fit(own, 2 * answers - 1, weights).predict(on_val)
        slope, offset = np.polyfit(expected, logits[:, attribute], 1)
        assert slope > 0
        np.testing.assert_allclose(logits[:, attribute], slope * expected + offset, rtol=1e-3, atol=2e-3)
    yes_count = int((train.labels[:, 3] == YES).sum())
    np.testing.assert_allclose(logits[:, 3], np.log(yes_count + 1), rtol=1e-5)
    known = labels != BLANK
    assert result.val_accuracy == pytest.approx(((logits >= 0) == (labels == YES))[known].mean())
    on_train, of_train = compute_logits(model, train, 8)
    assert BinaryCrossEntropy().measure(torch.from_numpy(on_train), torch.from_numpy(of_train)) == pytest.approx(
        (result.train_loss, result.train_accuracy), rel=1e-3
    )


def test_ridge_draws_a_sample_of_very_many_photographs(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discriminants, "MAX_RIDGE_PHOTOGRAPHS", 20)
    models = [_train(features, make_train_params(classifier="ridge", seed=seed)) for seed in (1, 1, 2)]
    first, again, other = (model.state_dict()["head.0.weight"] for model, _ in models)
    assert torch.equal(first, again) and not torch.equal(first, other)
    train = select_attributes(features, load_attributes(paths.ATTRIBUTES), "train")
    logits, labels = (torch.from_numpy(array) for array in compute_logits(models[0][0], train, 8))
    assert BinaryCrossEntropy().measure(logits, labels)[0] == pytest.approx(models[0][1][0].train_loss, rel=1e-3)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_logistic_regressions_equal_scikit_learns_on_the_known_labels(features: Features, class_weights: str) -> None:
    params = _logistic(class_weights=class_weights)
    model, (result,) = _train(features, params)
    train, val = (select_attributes(features, load_attributes(paths.ATTRIBUTES), split) for split in ("train", "val"))
    dense, on_val = gather_dense(features, "train")[0], gather_dense(features, "val")[0]
    pca = PCA(12, svd_solver="full").fit(dense)
    logits, labels = compute_logits(model, val, 8)
    for attribute in range(3):
        answers = np.tile(train.labels[:, attribute], 2)
        known = answers != BLANK
        weights = None if class_weights == "none" else "balanced"
        expected = LogisticRegression(C=0.01, class_weight=weights, tol=1e-8, max_iter=1000)
        expected.fit(pca.transform(dense)[known], answers[known])
        scores = expected.decision_function(pca.transform(on_val)).reshape(2, -1).mean(axis=0)
        np.testing.assert_allclose(logits[:, attribute], scores, rtol=1e-3, atol=1e-3 * np.abs(scores).max())
    yes_count = int((train.labels[:, 3] == YES).sum()) * 2
    np.testing.assert_allclose(logits[:, 3], np.log(yes_count + 1), rtol=1e-5)  # Laplace: (n + 1) to 1
    known = labels != BLANK
    assert result.val_accuracy == pytest.approx(((logits >= 0) == (labels == YES))[known].mean())


@pytest.mark.parametrize("classifier", ["mlp", "linear"])
def test_epochs_learn_what_the_features_show(features: Features, classifier: str) -> None:
    model, history = _train(features, make_train_params(classifier=classifier, epochs=6, learning_rate=0.001))
    assert [result.epoch for result in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1].train_loss < history[0].train_loss
    logits, labels = compute_logits(model, select_attributes(features, load_attributes(paths.ATTRIBUTES), "val"), 8)
    known = labels[:, 0] != BLANK
    assert (((logits >= 0) == (labels == YES))[known, 0]).mean() > 0.7
    assert history[-1].val_loss == pytest.approx(
        BinaryCrossEntropy().compute_loss(torch.from_numpy(logits), torch.from_numpy(labels)).item()
    )


@pytest.mark.parametrize("classifier", ["ridge", "linear"])
def test_val_calibrates_and_train_says_what_is_frequent(
    features: Features, monkeypatch: pytest.MonkeyPatch, classifier: str
) -> None:
    weighed = []

    def weigh(labels: np.ndarray, params: TrainParams) -> BinaryCrossEntropy:
        weighed.append(labels)
        return make_objective(labels, params)

    monkeypatch.setattr(attribute_training, "make_objective", weigh)
    params = make_train_params(classifier=classifier, class_weights="balanced", epochs=1)
    card = (model := _train(features, params)[0]).card
    train, val = (select_attributes(features, load_attributes(paths.ATTRIBUTES), split) for split in ("train", "val"))
    expected = fit_attribute_calibration(*compute_logits(model, val, params.batch_size), params.attribute_thresholds)
    np.testing.assert_allclose(card.calibration.slopes, expected.slopes, rtol=1e-3)
    assert card.calibration.balanced_thresholds == expected.balanced_thresholds
    assert card.yes_fractions == tuple(measure_yes_fractions(train.labels))
    assert [labels.tolist() for labels in weighed] == [train.labels.tolist()]


def test_blanks_never_count() -> None:
    random = np.random.default_rng(1)
    logits = torch.from_numpy(random.normal(size=(20, 3)).astype(np.float32))
    labels = torch.from_numpy(random.choice([YES, NO, BLANK], (20, 3)))
    known = labels != BLANK
    for objective in (
        BinaryCrossEntropy(),
        make_objective(labels.numpy(), make_train_params(class_weights="balanced")),
    ):
        changed = torch.where(known, logits, 100.0)
        assert objective.compute_loss(changed, labels) == objective.compute_loss(logits, labels)
        assert objective.count_hits(changed, labels) == objective.count_hits(logits, labels)
    expected = binary_cross_entropy_with_logits(logits[known], (labels[known] == YES).float())
    torch.testing.assert_close(BinaryCrossEntropy().compute_loss(logits, labels), expected)
    assert BinaryCrossEntropy().count_labels(labels) == int(known.sum())


def test_balanced_weights_make_both_answers_count_equally() -> None:
    labels = np.array([[YES, NO], [NO, NO], [NO, BLANK], [NO, YES]])
    weights = make_objective(labels, make_train_params(class_weights="balanced")).weights
    assert weights is not None
    np.testing.assert_allclose(weights, [[4 / 6, 3 / 4], [2, 3 / 2]])
    logits = torch.zeros(4, 2)
    gradient_of = {}
    for answer in (NO, YES):
        scores = logits.clone().requires_grad_()
        loss = BinaryCrossEntropy(weights).compute_loss(scores, torch.from_numpy(labels))
        loss.backward()  # type: ignore[no-untyped-call]
        assert scores.grad is not None
        gradient_of[answer] = scores.grad[torch.from_numpy(labels == answer)].abs().sum()
    torch.testing.assert_close(gradient_of[NO], gradient_of[YES])
    few = torch.from_numpy(labels[:2])  # weights do not add up to the number of labels in every batch
    expected = np.log(2) * (4 / 6 * 1 + 2 + 2 * 3 / 4) / 4
    assert BinaryCrossEntropy(weights).compute_loss(torch.zeros(2, 2), few).item() == pytest.approx(expected)


def test_smoothing_moves_targets_towards_one_half() -> None:
    logits, labels = torch.tensor([[2.0]]), torch.tensor([[YES]])
    loss = BinaryCrossEntropy(label_smoothing=0.2).compute_loss(logits, labels)
    torch.testing.assert_close(loss, binary_cross_entropy_with_logits(logits, torch.tensor([[0.9]])))


def test_fractions_of_yes_are_those_of_known_labels() -> None:
    fractions = measure_yes_fractions(np.array([[YES, BLANK, NO], [NO, BLANK, NO], [BLANK, BLANK, NO]]))
    np.testing.assert_array_equal(fractions, [0.5, 0.5, 0])


def test_a_saved_model_computes_the_same_and_repeats_bit_for_bit(features: Features, tmp_path: Path) -> None:
    first, again = (_train(features, make_train_params(epochs=2))[0] for _ in range(2))
    for name, model in (("first", first), ("again", again)):
        model.save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    loaded = load_attribute_model(tmp_path / "first")
    assert loaded.card == first.card == load_attribute_card(tmp_path / "first")
    val = select_attributes(features, load_attributes(paths.ATTRIBUTES), "val")
    np.testing.assert_array_equal(compute_logits(loaded, val, 8)[0], compute_logits(first, val, 8)[0])
    with pytest.raises(CelebflowError, match="attributes"):
        load_classifier(tmp_path / "first")


def test_checkpoints_belong_to_the_labels(features: Features) -> None:
    params = make_train_params(epochs=3)
    folders = set()
    for changed in (False, True):
        if changed:
            table = load_attributes(paths.ATTRIBUTES)
            save_attributes(AttributeTable(table.names, table.paths, 1 - np.abs(table.labels)), paths.ATTRIBUTES)
        with open_checkpoints(features, params, CPU):
            folders |= {path.stem for path in paths.checkpoints().glob("*.lock")}
    assert len(folders) == 2
