"""Training changes the classifier and not the backbone, and the same seed gives the same bits."""

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from celebflow.backbone.source import FEATURE_COUNT, BackboneSource
from celebflow.backbone.vgg19 import Backbone, fingerprint_state
from celebflow.classifier import training
from celebflow.classifier.adam import NetworkAdam
from celebflow.classifier.calibration import fit_probabilities
from celebflow.classifier.checkpoints import Checkpoints, DivergedError
from celebflow.classifier.classifier_training import CrossEntropy, make_objective, train_classifier
from celebflow.classifier.history import EpochResult
from celebflow.classifier.model import Classifier, save_classifier
from celebflow.classifier.training import compute_logits, fit, seed_everything
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.features.store import select_split
from celebflow.features.transform import Transform
from celebflow.params import CLASSIFIERS, ComputeParams, TrainParams, list_affected_classifiers
from tests.conftest import draw_features
from tests.models import make_classifier
from tests.training import PEOPLE, Clusters, MemoryCheckpoints, make_train_params, train

SOURCE = BackboneSource("untrained", False, "0" * 64)


def _make_params(**changes: object) -> TrainParams:
    return make_train_params(pca_components=None, **{"hidden_units": (32, 16), **changes})


def _make_classifier(params: TrainParams) -> Classifier:
    seed_everything(params.seed)
    return make_classifier(PEOPLE, params.hidden_units, params.dropout, Transform(224), SOURCE)


def _fit(
    params: TrainParams,
    checkpoints: Checkpoints | None = None,
    *,
    train: Clusters | None = None,
    val: Clusters | None = None,
    interrupted_in: int = 0,
) -> tuple[Classifier, list[EpochResult]]:
    """Fit a new classifier; raise KeyboardInterrupt at the end of the epoch `interrupted_in`."""

    def report(result: EpochResult) -> None:
        if result.epoch == interrupted_in:
            raise KeyboardInterrupt

    classifier = _make_classifier(params)
    train, val = train or Clusters(60, 0), val or Clusters(30, 1)
    history = fit(
        classifier,
        train,
        val,
        make_objective(train.labels, params),
        params,
        checkpoints or MemoryCheckpoints(),
        report,
    )
    return classifier, history


def _assert_equal(ours: Classifier, theirs: Classifier) -> None:
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


def _list_drawn(params: TrainParams, labels: NDArray[np.int64], monkeypatch: pytest.MonkeyPatch) -> NDArray[np.int64]:
    """Return which photographs each epoch of a training would train on, (epochs, photographs), without training."""
    epochs: list[NDArray[np.int64]] = []

    def record(*arguments: Any) -> tuple[float, float]:
        epochs.append(np.concatenate([positions for positions, _ in arguments[3]]))
        return 0.0, 0.0

    monkeypatch.setattr(training, "train_one_epoch", record)
    monkeypatch.setattr(training, "validate", lambda *_: (0.0, 0.0))
    _fit(params, train=Clusters(len(labels), 0, labels=labels), val=Clusters(3, 1))
    return np.stack(epochs)


def _list_learning_rates(
    params: TrainParams, checkpoints: MemoryCheckpoints, monkeypatch: pytest.MonkeyPatch, interrupted_in: int = 0
) -> list[float]:
    """Return the learning rate of every step of a training until it ends or is interrupted."""
    rates: list[float] = []
    take_step = NetworkAdam.step

    def record(optimizer: NetworkAdam) -> None:
        rates.append(optimizer.learning_rate)
        take_step(optimizer)

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(NetworkAdam, "step", record)
        _fit(params, checkpoints, interrupted_in=interrupted_in)
    return rates


def test_training_learns_to_tell_people_apart() -> None:
    _, history = _fit(_make_params(learning_rate=1e-3, epochs=8, dropout=0.1))
    assert [result.epoch for result in history] == list(range(1, 9))
    assert history[-1].val_accuracy > 0.9
    assert history[-1].train_loss < history[0].train_loss


def test_same_seed_gives_same_classifier(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        save_classifier(_fit(_make_params(seed=seed))[0], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_backbone_weights_unchanged_after_fit(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint_state(backbone.features.state_dict())
    optimizers: list[NetworkAdam] = []

    def record(*arguments: Any) -> NetworkAdam:
        optimizers.append(NetworkAdam(*arguments))
        return optimizers[-1]

    monkeypatch.setattr(training, "NetworkAdam", record)
    classifier, _ = _fit(_make_params())
    optimized = optimizers[0].parameters.values()
    assert {id(tensor) for tensor in optimized} == {id(parameter) for parameter in classifier.parameters()}
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    # Even a backward pass from the backbone's own features finds nothing to change there.
    features = backbone(torch.rand(2, 3, 32, 32))
    assert not features.requires_grad
    rows = [SparseRow.from_dense(row) for row in features.numpy()]
    logits = classifier(SparseBatch.from_rows(rows, FEATURE_COUNT))
    torch.autograd.backward(nn.functional.cross_entropy(logits, torch.tensor([0, 1])))
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert fingerprint_state(backbone.features.state_dict()) == before


def test_dropout_is_active_in_training_and_not_in_validation() -> None:
    modes: list[tuple[bool, bool]] = []
    params = _make_params()
    classifier = _make_classifier(params)
    classifier.register_forward_hook(lambda module, _, logits: modes.append((module.training, logits.requires_grad)))
    fit(classifier, Clusters(16, 0), Clusters(8, 1), CrossEntropy(), params, MemoryCheckpoints(), lambda _: None)
    assert modes == [(True, True), (True, True), (False, False)] * params.epochs


@pytest.mark.parametrize(("keep_epoch", "kept"), [("best", 1), ("last", 3)])
def test_keep_epoch_selects_the_weights(keep_epoch: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.5, 0.9, 0.9, 0.7])  # the second is the first of the best
    monkeypatch.setattr(training, "validate", lambda *_: (0.1, next(accuracies)))
    params = _make_params(epochs=4, keep_epoch=keep_epoch)
    classifier = _make_classifier(params)
    states: list[dict[str, Tensor]] = []

    def remember(_: EpochResult) -> None:
        states.append({name: tensor.clone() for name, tensor in classifier.state_dict().items()})

    fit(classifier, Clusters(16, 0), Clusters(8, 1), CrossEntropy(), params, MemoryCheckpoints(), remember)
    final = classifier.state_dict()
    same = [all(torch.equal(final[name], tensor) for name, tensor in state.items()) for state in states]
    assert same == [epoch == kept for epoch in range(4)]


def test_test_photographs_influence_neither_classifier_nor_calibration() -> None:
    params = _make_params(keep_epoch="best")
    features = draw_features()
    classifier, history = train(features, params)
    random = np.random.default_rng(1)
    values = features.values.copy()
    photos = []
    for row, photo in enumerate(features.photos):
        if photo.split == "test":
            values[features.offsets[row] : features.offsets[row + 1]] = random.random(100)
            photo = replace(photo, person=features.photos[0].person)
        photos.append(photo)
    again, history_again = train(replace(features, values=values, photos=photos), params)
    assert again.card == classifier.card
    assert history_again == history
    _assert_equal(again, classifier)


def test_calibration_is_fitted_on_val_and_the_threshold_to_people_left_out_of_train() -> None:
    params = _make_params()
    features = draw_features()
    classifier, _ = train(features, params)
    logits, labels = compute_logits(classifier, select_split(features, PEOPLE, "val"), 8)
    calibration, gallery = classifier.card.calibration, classifier.gallery
    fitted = fit_probabilities(logits, labels)
    assert (calibration.temperature, calibration.max_confidence) == (fitted.temperature, fitted.max_confidence)
    assert gallery is not None
    assert calibration.threshold == gallery.left_out.choose_threshold(params.false_acceptance_rate)
    assert calibration.false_acceptance_rate == params.false_acceptance_rate


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_loss_is_smoothed_and_weighted_as_params_say(class_weights: str, label_smoothing: float) -> None:
    labels = np.repeat([0, 1, 2], [24, 12, 4])
    train, val = Clusters(40, 0, labels=labels), Clusters(9, 1)
    options = {"class_weights": class_weights, "label_smoothing": label_smoothing}
    params = _make_params(epochs=1, batch_size=40, dropout=0.0, **options)
    logits, _ = compute_logits(_make_classifier(params), train, 40)  # the only step begins with these
    logarithms = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    targets = np.eye(3)[labels] * (1 - label_smoothing) + label_smoothing / 3
    # All people have the same weight, and the mean photograph has weight 1.
    weights = np.array([40 / 3 / 24, 40 / 3 / 12, 40 / 3 / 4]) if class_weights == "balanced" else np.ones(3)
    expected = -(targets * weights * logarithms).sum() / weights[labels].sum()
    classifier, (result,) = _fit(params, train=train, val=val)
    assert result.train_loss == pytest.approx(expected, rel=1e-5)
    val_logits, val_labels = (torch.from_numpy(array) for array in compute_logits(classifier, val, 9))
    plain = nn.functional.cross_entropy(val_logits, val_labels).item()
    assert result.val_loss == pytest.approx(plain, rel=1e-6), "validation takes the plain loss"


@pytest.mark.parametrize(
    "option",
    [
        {"label_smoothing": 0.2},
        {"class_weights": "balanced"},
        {"weight_decay": 1.0},
        {"learning_rate_schedule": "cosine"},
    ],
)
def test_each_option_changes_the_classifier(option: dict[str, object]) -> None:
    train = Clusters(24, 0, labels=np.repeat([0, 1, 2], [14, 7, 3]))
    plain, _ = _fit(_make_params(epochs=1), train=train)
    changed, _ = _fit(_make_params(epochs=1, **option), train=train)
    assert not torch.equal(plain.state_dict()["head.0.weight"], changed.state_dict()["head.0.weight"])


def test_without_sampling_every_epoch_trains_on_each_photograph_once(monkeypatch: pytest.MonkeyPatch) -> None:
    params = _make_params(seed=5, sampling="none")
    drawn = _list_drawn(params, np.repeat([0, 1, 2], [40, 15, 5]), monkeypatch)
    # Earlier versions, which could not sample, drew this order: the same seed must keep giving the same classifier.
    expected = [np.random.default_rng([5, epoch]).permutation(60) for epoch in (1, 2, 3)]
    np.testing.assert_array_equal(drawn, expected)


def test_balanced_sampling_draws_each_person_equally_often_and_all_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    params = _make_params(epochs=100, sampling="balanced")
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 15, 5]))
    drawn = _list_drawn(params, labels, monkeypatch)
    assert drawn.shape == (100, 60), "the length of an epoch does not change"
    fractions = np.bincount(labels[drawn].ravel()) / drawn.size
    np.testing.assert_allclose(fractions, 1 / 3, atol=0.03)  # five standard deviations
    counts = np.bincount(drawn.ravel(), minlength=60)
    for person in range(3):
        own = counts[labels == person]
        assert own.min() > 0.5 * own.mean(), "no photograph is left out"
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn, _list_drawn(params, labels, monkeypatch))


def test_the_learning_rate_is_constant_or_falls_along_a_half_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    params = _make_params(epochs=4)  # each of 60 photographs in batches of 8: 8 steps
    assert _list_learning_rates(params, MemoryCheckpoints(), monkeypatch) == [params.learning_rate] * 32
    cosine = params.model_copy(update={"learning_rate_schedule": "cosine"})
    rates = _list_learning_rates(cosine, MemoryCheckpoints(), monkeypatch)
    expected = [params.learning_rate * (1 + math.cos(math.pi * step / 32)) / 2 for step in range(32)]
    assert rates == pytest.approx(expected)
    assert rates[0] == params.learning_rate
    assert sorted(set(rates), reverse=True) == rates
    assert 0 < rates[-1] < 0.01 * rates[0]


def test_a_resumed_training_continues_with_the_same_learning_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    params = _make_params(epochs=4, learning_rate_schedule="cosine", weight_decay=0.01)
    uninterrupted = _list_learning_rates(params, MemoryCheckpoints(), monkeypatch)
    checkpoints = MemoryCheckpoints()
    before = _list_learning_rates(params, checkpoints, monkeypatch, interrupted_in=3)
    after = _list_learning_rates(params, checkpoints, monkeypatch)
    assert (len(before), len(after)) == (24, 16), "the third epoch was not kept"
    assert before[:16] + after == uninterrupted


@pytest.mark.parametrize("keep_epoch", ["last", "best"])
def test_patience_ends_a_training_alike_with_and_without_an_interruption(
    keep_epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = [0.5, 0.4, 0.6, 0.6, 0.5, 0.9, 0.9, 0.9]  # an equal accuracy is not better
    train = Clusters(16, 0)

    def fit_until_stopped(
        checkpoints: MemoryCheckpoints, done: int = 0, interrupted_in: int = 0, **changes: object
    ) -> tuple[Classifier, int]:
        remaining = iter(accuracies[done:])
        monkeypatch.setattr(training, "validate", lambda *_: (0.1, next(remaining)))
        params = _make_params(**{"epochs": 8, "patience_epochs": 2, "keep_epoch": keep_epoch, **changes})
        classifier, history = _fit(params, checkpoints, interrupted_in=interrupted_in, train=train)
        assert [result.epoch for result in history] == list(range(1, len(history) + 1))
        return classifier, len(history)

    classifier, epoch_count = fit_until_stopped(MemoryCheckpoints())
    assert epoch_count == 5
    checkpoints = MemoryCheckpoints()
    with pytest.raises(KeyboardInterrupt):
        fit_until_stopped(checkpoints, interrupted_in=5)
    resumed, resumed_epoch_count = fit_until_stopped(checkpoints, done=4)
    assert resumed_epoch_count == epoch_count
    _assert_equal(resumed, classifier)
    _assert_equal(classifier, fit_until_stopped(MemoryCheckpoints(), epochs=5, patience_epochs=None)[0])
    for patience_epochs in (None, 3):
        assert fit_until_stopped(MemoryCheckpoints(), patience_epochs=patience_epochs)[1] == 8


def test_two_identical_views_give_the_same_classifier_as_one() -> None:
    params = _make_params()
    train, val = Clusters(60, 0), Clusters(30, 1)
    doubled = []
    for examples, seed in ((train, 0), (val, 1)):
        doubled.append(Clusters(len(examples), seed, view_count=2))
        doubled[-1].views[:] = examples.views
    classifier, history = _fit(params, train=train, val=val)
    again, history_again = _fit(params, train=doubled[0], val=doubled[1])
    _assert_equal(classifier, again)
    assert history == history_again


def test_each_epoch_trains_on_one_random_view_of_each_photograph() -> None:
    train = Clusters(60, 0, view_count=3)
    _fit(_make_params(epochs=4), train=train)
    positions, views = (np.concatenate(parts).reshape(4, 60) for parts in zip(*train.gathered, strict=True))
    assert [sorted(epoch) for epoch in positions.tolist()] == [list(range(60))] * 4
    assert (np.bincount(views.ravel()) > 240 / 3 * 0.7).all()
    assert not np.array_equal(views[0], views[1])
    by_photograph = np.take_along_axis(views, positions.argsort(axis=1), axis=1)
    assert (by_photograph.min(axis=0) < by_photograph.max(axis=0)).mean() > 0.8, "views change between epochs"


def test_training_uses_all_views() -> None:
    # In the second view, other features tell people apart.
    def draw(seed: int) -> Clusters:
        examples = Clusters(60, seed, view_count=2)
        examples.views[1] = np.roll(examples.views[0], 5000, axis=1)
        return examples

    def keep_view(examples: Clusters, view: int) -> Clusters:
        alone = Clusters(60, 0)
        alone.views[0] = examples.views[view]
        return alone

    def recognizes(classifier: Classifier, examples: Clusters, view: int) -> bool:
        logits, labels = compute_logits(classifier, keep_view(examples, view), 60)
        return float((logits.argmax(1) == labels).mean()) > 0.9

    train, val = draw(0), draw(1)
    params = _make_params(learning_rate=1e-3, epochs=8, dropout=0.1)
    classifier, _ = _fit(params, train=train, val=val)
    assert recognizes(classifier, val, 0) and recognizes(classifier, val, 1)
    classifier, _ = _fit(params, train=keep_view(train, 0), val=val)
    assert recognizes(classifier, val, 0) and not recognizes(classifier, val, 1)


def test_logits_are_means_over_the_views_of_a_photograph() -> None:
    classifier = _make_classifier(_make_params())
    examples = Clusters(20, 0, view_count=3)
    of_views = []
    for view in range(3):
        alone = Clusters(20, 0)
        alone.views[0] = examples.views[view]
        of_views.append(compute_logits(classifier, alone, 8)[0])
    logits, labels = compute_logits(classifier, examples, 8)
    np.testing.assert_allclose(logits, np.mean(of_views, axis=0), rtol=1e-5, atol=1e-6)
    assert np.abs(logits - of_views[0]).max() > 1e-3
    np.testing.assert_array_equal(labels, examples.labels)


def _assert_nothing_was_kept(checkpoints: MemoryCheckpoints) -> None:
    assert not checkpoints.last and not checkpoints.best and not checkpoints.history


@pytest.mark.parametrize(
    ("changes", "causes"),
    [
        ({"learning_rate": 1e30}, ["train.learning_rate (1e+30)"]),
        ({"classifier": "linear", "learning_rate": 1e300}, ["train.learning_rate (1e+300)"]),
        ({"weight_decay": 1e30}, ["train.learning_rate (0.0001)", "train.weight_decay (1e+30)"]),
    ],
)
def test_params_that_are_too_large_stop_training_in_the_first_epoch(
    changes: dict[str, object], causes: list[str]
) -> None:
    checkpoints = MemoryCheckpoints()
    params = make_train_params(pca_components=None, **{"keep_epoch": "best", **changes})
    with pytest.raises(DivergedError, match=r"epoch 1, step \d of 4") as caught:
        train_classifier(draw_features(), params, ComputeParams(), checkpoints, lambda _: pytest.fail("it is logged"))
    for part in (*causes, "l2_normalize", "`dvc repro`"):
        assert part in str(caught.value)
    _assert_nothing_was_kept(checkpoints)


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.float32(3e38), "(inf|nan)")])
def test_training_stops_in_the_very_step_whose_loss_is_not_finite(value: float, shown: str) -> None:
    params = _make_params(seed=3)
    train = Clusters(60, 0, view_count=2)
    # In the second epoch: the view that it draws for this photograph, and the first one does not.
    order = np.random.default_rng([3, 2]).permutation(60)
    views = np.random.default_rng([3, 2, 1]).integers(2, size=60)
    first_views = np.random.default_rng([3, 1, 1]).integers(2, size=60)
    first_view_of = dict(zip(np.random.default_rng([3, 1]).permutation(60).tolist(), first_views, strict=True))
    place = next(place for place in range(20, 60) if views[place] != first_view_of[order[place]])
    train.views[views[place], order[place]] = value
    logged: list[EpochResult] = []
    with pytest.raises(DivergedError, match=f"loss is {shown} in epoch 2, step {place // 8 + 1} of 8"):
        fit(_make_classifier(params), train, Clusters(9, 1), CrossEntropy(), params, MemoryCheckpoints(), logged.append)
    assert [result.epoch for result in logged] == [1]


def test_a_validation_loss_that_is_not_finite_stops_training_before_the_epoch_is_kept() -> None:
    val = Clusters(30, 1)
    val.views[0, 5] = np.nan
    checkpoints = MemoryCheckpoints()
    with pytest.raises(DivergedError, match=r"validation loss is nan after epoch 1.*train\.learning_rate"):
        _fit(_make_params(keep_epoch="best"), checkpoints, val=val)
    _assert_nothing_was_kept(checkpoints)


@pytest.mark.parametrize("keep_epoch", ["last", "best"])
def test_weights_that_are_not_finite_are_not_kept_even_where_the_loss_is(
    keep_epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_one_epoch = training.train_one_epoch

    def damage(classifier: Classifier, *arguments: Any) -> tuple[float, float]:
        on_train = train_one_epoch(classifier, *arguments)
        classifier.state_dict()["head.0.bias"][0] = -math.inf  # ReLU makes 0 of what comes out
        return on_train

    monkeypatch.setattr(training, "train_one_epoch", damage)
    checkpoints = MemoryCheckpoints()
    with pytest.raises(DivergedError, match=r"weights are not finite \(head\.0\.bias\)"):
        train(draw_features(), make_train_params(keep_epoch=keep_epoch), checkpoints)
    assert not checkpoints.best


_OTHER_VALUES: dict[str, object] = {
    "hidden_units": (8,),
    "dropout": 0.2,
    "learning_rate": 0.01,
    "learning_rate_schedule": "cosine",
    "weight_decay": 0.1,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "sampling": "balanced",
    "batch_size": 5,
    "epochs": 2,
    "patience_epochs": 1,
    "keep_epoch": "best",
    "lda_shrinkage": 0.3,
    "plda_between_scale": 0.2,
    "logistic_c": 0.1,
    "ridge_penalty": 3.0,
    "false_acceptance_rate": 0.2,
    "attribute_thresholds": "balanced_accuracy",
}


@pytest.mark.parametrize("classifier", CLASSIFIERS["recognition"])
def test_params_that_a_classifier_is_said_to_ignore_make_no_difference(classifier: str) -> None:
    assert {*_OTHER_VALUES, "seed", "preprocessing", "classifier"} == set(TrainParams.model_fields)
    features = draw_features(people=("Ann", "Bo", "Cy", "Di"))
    recipe: dict[str, Any] = {"classifier": classifier, "pca_components": 5}
    model, _ = train(features, make_train_params(**recipe))
    affected = {name: list_affected_classifiers(f"train.{name}", "recognition") for name in _OTHER_VALUES}
    ignored = [name for name, classifiers in affected.items() if classifier not in classifiers]
    assert "ridge_penalty" in ignored
    for name in ignored:
        changed, _ = train(features, make_train_params(**recipe | {name: _OTHER_VALUES[name]}))
        assert changed.card.calibration == model.card.calibration, name
        for key, value in model.state_dict().items():
            assert torch.equal(value, changed.state_dict()[key]), (name, key)
