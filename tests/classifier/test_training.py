"""The classifier learns, the backbone does not, and the same seed gives the same bits."""

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

from celebflow.backbone.vgg19 import FEATURE_COUNT, Backbone, BackboneSource, fingerprint_state
from celebflow.classifier import training
from celebflow.classifier.adam import ClassifierAdam
from celebflow.classifier.calibration import fit_calibration
from celebflow.classifier.history import EpochResult
from celebflow.classifier.layers import DenseLinear
from celebflow.classifier.model import Classifier, load_card, load_classifier, make_classifier, save_classifier
from celebflow.classifier.training import Checkpoints, compute_logits, fit, seed_everything, train_classifier
from celebflow.errors import CelebflowError
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.features.store import select_split
from celebflow.features.transform import Transform
from celebflow.params import ComputeParams, Params, TrainParams
from tests.conftest import draw_features
from tests.teaching import Clusters, Memory

SOURCE = BackboneSource("untrained", False, "0" * 64)
CPU = torch.device("cpu")


def _train_params(params: Params, **changes: object) -> TrainParams:
    return params.train.model_copy(update={"hidden_units": (32, 16), "epochs": 3, "batch_size": 8, **changes})


def _make_classifier(params: TrainParams) -> Classifier:
    seed_everything(params.seed)
    return make_classifier(["Ann", "Bo", "Cy"], params.hidden_units, params.dropout, Transform(224), SOURCE)


def _teach(
    params: TrainParams,
    checkpoints: Checkpoints | None = None,
    *,
    train: Clusters | None = None,
    val: Clusters | None = None,
    interrupted_in: int = 0,
) -> tuple[Classifier, list[EpochResult]]:
    def report(result: EpochResult) -> None:
        if result.epoch == interrupted_in:
            raise KeyboardInterrupt

    classifier = _make_classifier(params)
    history = fit(
        classifier,
        train or Clusters(60, 0),
        val or Clusters(30, 1),
        params,
        CPU,
        checkpoints or Memory(),
        lambda _: None,
        report,
    )
    return classifier, history


def _assert_equal(ours: Classifier, theirs: Classifier) -> None:
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


def _list_drawn(params: TrainParams, labels: NDArray[np.int64], monkeypatch: pytest.MonkeyPatch) -> NDArray[np.int64]:
    """Return which photographs each epoch of a training would learn from, (epochs, photographs), without learning."""
    epochs: list[NDArray[np.int64]] = []

    def record(*arguments: Any) -> tuple[float, float]:
        epochs.append(np.concatenate([positions for positions, _ in arguments[3]]))
        return 0.0, 0.0

    monkeypatch.setattr(training, "train_one_epoch", record)
    monkeypatch.setattr(training, "validate", lambda *_: (0.0, 0.0))
    _teach(params, train=Clusters(len(labels), 0, labels=labels), val=Clusters(3, 1))
    return np.stack(epochs)


def _list_learning_rates(
    params: TrainParams, checkpoints: Memory, monkeypatch: pytest.MonkeyPatch, interrupted_in: int = 0
) -> list[float]:
    """Return the learning rate of every step that a training takes before it ends or is interrupted."""
    rates: list[float] = []
    take_step = ClassifierAdam.step

    def record(optimizer: ClassifierAdam) -> None:
        rates.append(optimizer.learning_rate)
        take_step(optimizer)

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(ClassifierAdam, "step", record)
        _teach(params, checkpoints, interrupted_in=interrupted_in)
    return rates


def test_base_classifier_has_the_parameters_of_the_model_card(params: Params) -> None:
    with torch.device("meta"):
        people = [str(number) for number in range(31)]
        classifier = make_classifier(people, params.train.hidden_units, params.train.dropout, Transform(224), SOURCE)
    assert sum(parameter.numel() for parameter in classifier.parameters()) == 119_672_863
    assert classifier.first.weight.shape == (25088, 4096)
    assert [type(layer) for layer in classifier.rest] == [nn.ReLU, nn.Dropout, DenseLinear] * 2
    assert [layer.p for layer in classifier.rest if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_it_learns(params: Params) -> None:
    _, history = _teach(_train_params(params, learning_rate=1e-3, epochs=8, dropout=0.1))
    assert [result.epoch for result in history] == list(range(1, 9))
    assert history[-1].val_accuracy > 0.9
    assert history[-1].train_loss < history[0].train_loss


def test_same_seed_same_classifier(params: Params, tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        save_classifier(_teach(_train_params(params, seed=seed))[0], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_backbone_weights_unchanged_after_fit(params: Params, backbone: Backbone) -> None:
    before = fingerprint_state(backbone.features.state_dict())
    held: list[ClassifierAdam] = []

    class Recorder(ClassifierAdam):
        def __init__(self, classifier: Classifier, learning_rate: float, weight_decay: float) -> None:
            super().__init__(classifier, learning_rate, weight_decay)
            held.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "ClassifierAdam", Recorder)
        classifier, _ = _teach(_train_params(params))
    assert {id(tensor) for tensor in held[0].parameters.values()} == {id(p) for p in classifier.parameters()}
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    # Even a backward pass that comes to the backbone's features finds nothing there to change.
    features = backbone(torch.rand(2, 3, 32, 32))
    assert not features.requires_grad
    rows = [SparseRow.from_dense(row) for row in features.numpy()]
    logits = classifier(SparseBatch.from_rows(rows, FEATURE_COUNT))
    torch.autograd.backward(nn.functional.cross_entropy(logits, torch.tensor([0, 1])))
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert fingerprint_state(backbone.features.state_dict()) == before


def test_dropout_is_at_work_in_every_epochs_training_and_in_no_validation(params: Params) -> None:
    modes: list[tuple[bool, bool]] = []
    settings = _train_params(params)
    classifier = make_classifier("abc", settings.hidden_units, settings.dropout, Transform(224), SOURCE)
    classifier.register_forward_hook(lambda module, _, logits: modes.append((module.training, logits.requires_grad)))
    fit(classifier, Clusters(16, 0), Clusters(8, 1), settings, CPU, Memory(), lambda _: None, lambda _: None)
    assert modes == [(True, True), (True, True), (False, False)] * settings.epochs


@pytest.mark.parametrize(("keep_epoch", "kept"), [("best", 1), ("last", 3)])
def test_best_epoch_is_kept_when_asked_for(
    params: Params, keep_epoch: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.5, 0.9, 0.9, 0.7])  # the second is the first of the best
    monkeypatch.setattr(training, "validate", lambda *_: (0.1, next(accuracies)))
    settings = _train_params(params, epochs=4, keep_epoch=keep_epoch)
    classifier = make_classifier("abc", settings.hidden_units, settings.dropout, Transform(224), SOURCE)
    states: list[dict[str, Tensor]] = []

    def remember(_: EpochResult) -> None:
        states.append({name: tensor.clone() for name, tensor in classifier.state_dict().items()})

    fit(classifier, Clusters(16, 0), Clusters(8, 1), settings, CPU, Memory(), lambda _: None, remember)
    final = classifier.state_dict()
    same = [all(torch.equal(final[name], tensor) for name, tensor in state.items()) for state in states]
    assert same == [epoch == kept for epoch in range(4)]


def test_saved_classifier_answers_alike_and_carries_its_card(params: Params, tmp_path: Path) -> None:
    classifier, _ = _teach(_train_params(params))
    save_classifier(classifier, tmp_path / "c.safetensors")
    loaded = load_classifier(tmp_path / "c.safetensors")
    assert loaded.card == classifier.card == load_card(tmp_path / "c.safetensors")
    assert not loaded.training
    ours, theirs = (compute_logits(model, Clusters(9, 2), 8)[0] for model in (classifier, loaded))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)  # in a file, tensors lie otherwise, and sums round otherwise
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.safetensors").write_bytes(b"nothing of the kind")
    for path in (tmp_path / "c.safetensors", tmp_path / "missing.safetensors"):
        with pytest.raises(CelebflowError, match="is no classifier"):
            load_classifier(path)


def test_nothing_of_the_test_photographs_reaches_the_classifier_or_its_calibration(params: Params) -> None:
    settings = _train_params(params, keep_epoch="best")
    compute = ComputeParams(device="cpu")
    features = draw_features()
    classifier, history = train_classifier(features, settings, compute, Memory(), lambda _: None)
    random = np.random.default_rng(1)
    values = features.values.copy()
    photos = []
    for row, photo in enumerate(features.photos):
        if photo.split == "test":
            values[features.offsets[row] : features.offsets[row + 1]] = random.random(100)
            photo = replace(photo, person=features.photos[0].person)
        photos.append(photo)
    other = replace(features, values=values, photos=photos)
    again, history_again = train_classifier(other, settings, compute, Memory(), lambda _: None)
    assert again.card == classifier.card
    assert history_again == history
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_the_calibration_is_that_of_validation(params: Params) -> None:
    settings, features = _train_params(params), draw_features()
    classifier, _ = train_classifier(features, settings, ComputeParams(device="cpu"), Memory(), lambda _: None)
    logits, labels = compute_logits(classifier, select_split(features, ("Ann", "Bo", "Cy"), "val"), 8)
    assert classifier.card.calibration == fit_calibration(logits, labels, settings.false_acceptance_rate)
    assert classifier.card.calibration.threshold > 0


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_loss_is_smoothed_and_weighed_as_params_say(
    params: Params, class_weights: str, label_smoothing: float
) -> None:
    labels = np.repeat([0, 1, 2], [24, 12, 4])
    train, val = Clusters(40, 0, labels=labels), Clusters(9, 1)
    options = {"class_weights": class_weights, "label_smoothing": label_smoothing}
    settings = _train_params(params, epochs=1, batch_size=40, dropout=0.0, **options)
    logits, _ = compute_logits(_make_classifier(settings), train, 40)  # the only step begins with these
    logarithms = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    targets = np.eye(3)[labels] * (1 - label_smoothing) + label_smoothing / 3
    # By the inverse of a person's share: all weigh the same, and a photograph 1 in the mean.
    weights = np.array([40 / 3 / 24, 40 / 3 / 12, 40 / 3 / 4]) if class_weights == "balanced" else np.ones(3)
    expected = -(targets * weights * logarithms).sum() / weights[labels].sum()
    classifier, (result,) = _teach(settings, train=train, val=val)
    assert result.train_loss == pytest.approx(expected, rel=1e-5)
    val_logits, val_labels = (torch.from_numpy(array) for array in compute_logits(classifier, val, 9))
    plain = nn.functional.cross_entropy(val_logits, val_labels).item()
    assert result.val_loss == pytest.approx(plain, rel=1e-6), "of validation it is the plain loss"


@pytest.mark.parametrize(
    "option", [{"label_smoothing": 0.2}, {"class_weights": "balanced"}, {"weight_decay": 1.0}, {"schedule": "cosine"}]
)
def test_each_option_makes_another_classifier(params: Params, option: dict[str, object]) -> None:
    train = Clusters(40, 0, labels=np.repeat([0, 1, 2], [24, 12, 4]))
    settings = _train_params(params, epochs=1)
    plain, changed = (_teach(each, train=train)[0] for each in (settings, settings.model_copy(update=option)))
    assert not torch.equal(plain.first.weight, changed.first.weight)


def test_without_sampling_every_epoch_learns_from_each_photograph_once(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _train_params(params, seed=5, sampling="none")
    drawn = _list_drawn(settings, np.repeat([0, 1, 2], [40, 15, 5]), monkeypatch)
    # The very order of trainings before there was any sampling: the same seed goes on giving the same classifier.
    expected = [np.random.default_rng([5, epoch]).permutation(60) for epoch in (1, 2, 3)]
    np.testing.assert_array_equal(drawn, expected)


def test_balanced_sampling_draws_each_person_as_often_and_any_of_their_photographs(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _train_params(params, epochs=100, sampling="balanced")
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 15, 5]))
    drawn = _list_drawn(settings, labels, monkeypatch)
    assert drawn.shape == (100, 60), "an epoch stays as long as it was"
    shares = np.bincount(labels[drawn].ravel()) / drawn.size
    np.testing.assert_allclose(shares, 1 / 3, atol=0.03)  # five standard deviations
    times = np.bincount(drawn.ravel(), minlength=60)
    for person in range(3):
        own = times[labels == person]
        assert own.min() > 0.5 * own.mean(), "nobody's photographs are left out"
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn, _list_drawn(settings, labels, monkeypatch))


def test_the_learning_rate_is_constant_or_falls_in_a_half_cosine_over_all_epochs(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _train_params(params, epochs=4)  # of 60 photographs in eights: 8 steps
    assert _list_learning_rates(settings, Memory(), monkeypatch) == [settings.learning_rate] * 32
    cosine = settings.model_copy(update={"schedule": "cosine"})
    rates = _list_learning_rates(cosine, Memory(), monkeypatch)
    expected = [settings.learning_rate * (1 + math.cos(math.pi * step / 32)) / 2 for step in range(32)]
    assert rates == pytest.approx(expected)
    assert rates[0] == settings.learning_rate
    assert sorted(set(rates), reverse=True) == rates
    assert 0 < rates[-1] < 0.01 * rates[0]


def test_an_interrupted_training_goes_on_with_the_learning_rates_of_one_that_was_not(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _train_params(params, epochs=4, schedule="cosine", weight_decay=0.01)
    undisturbed = _list_learning_rates(settings, Memory(), monkeypatch)
    kept = Memory()
    before = _list_learning_rates(settings, kept, monkeypatch, interrupted_in=3)
    after = _list_learning_rates(settings, kept, monkeypatch)
    assert (len(before), len(after)) == (24, 16), "the third epoch was not kept"
    assert before[:16] + after == undisturbed


@pytest.mark.parametrize("keep_epoch", ["last", "best"])
def test_patience_ends_a_training_the_same_whether_it_was_interrupted_or_not(
    params: Params, keep_epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = [0.5, 0.4, 0.6, 0.6, 0.5, 0.9, 0.9, 0.9]  # an equal one is no better

    def teach(kept: Memory, done: int, interrupted_in: int = 0, **changes: object) -> tuple[Classifier, list[int]]:
        remaining = iter(accuracies[done:])
        monkeypatch.setattr(training, "validate", lambda *_: (0.1, next(remaining)))
        settings = _train_params(params, **{"epochs": 8, "patience_epochs": 2, "keep_epoch": keep_epoch, **changes})
        classifier, history = _teach(settings, kept, interrupted_in=interrupted_in, train=Clusters(16, 0))
        return classifier, [result.epoch for result in history]

    classifier, epochs = teach(Memory(), 0)
    assert epochs == [1, 2, 3, 4, 5]
    kept = Memory()
    with pytest.raises(KeyboardInterrupt):
        teach(kept, 0, interrupted_in=5)
    again, epochs_again = teach(kept, 4)
    assert epochs_again == epochs
    _assert_equal(again, classifier)
    _assert_equal(classifier, teach(Memory(), 0, epochs=5, patience_epochs=None)[0])
    assert teach(Memory(), 0, patience_epochs=None)[1] == teach(Memory(), 0, patience_epochs=3)[1] == list(range(1, 9))


def test_two_identical_views_give_the_classifier_of_one(params: Params) -> None:
    one = Clusters(60, 0), Clusters(30, 1)
    two = Clusters(60, 0, view_count=2), Clusters(30, 1, view_count=2)
    for single, double in zip(one, two, strict=True):
        double.views[:] = single.views
    settings = _train_params(params)
    classifier, history = _teach(settings, train=one[0], val=one[1])
    again, history_again = _teach(settings, train=two[0], val=two[1])
    _assert_equal(classifier, again)
    assert history == history_again


def test_each_epoch_learns_from_one_view_of_each_photograph_drawn_at_random(params: Params) -> None:
    train = Clusters(60, 0, view_count=3)
    _teach(_train_params(params, epochs=4), train=train)
    positions, views = (np.concatenate(parts).reshape(4, 60) for parts in zip(*train.taken, strict=True))
    assert [sorted(epoch) for epoch in positions.tolist()] == [list(range(60))] * 4
    assert (np.bincount(views.ravel()) > 240 / 3 * 0.7).all()
    assert not np.array_equal(views[0], views[1])
    seen = np.stack([epoch_views[np.argsort(epoch)] for epoch, epoch_views in zip(positions, views, strict=True)])
    assert (seen.min(0) < seen.max(0)).mean() > 0.8, "a photograph's view changes from epoch to epoch"


def test_all_views_are_learned_from(params: Params) -> None:
    # In the second view, what tells people apart stands elsewhere.
    def draw(seed: int) -> Clusters:
        examples = Clusters(60, seed, view_count=2)
        examples.views[1] = np.roll(examples.views[0], 5000, axis=1)
        return examples

    def measure(classifier: Classifier, examples: Clusters, view: int) -> float:
        alone = Clusters(60, 1)
        alone.views[0] = examples.views[view]
        logits, labels = compute_logits(classifier, alone, 60)
        return float((logits.argmax(1) == labels).mean())

    train, val = draw(0), draw(1)
    settings = _train_params(params, learning_rate=1e-3, epochs=8, dropout=0.1)
    classifier, _ = _teach(settings, train=train, val=val)
    assert [measure(classifier, val, view) > 0.9 for view in range(2)] == [True, True]
    first_alone = Clusters(60, 0)
    first_alone.views[0] = train.views[0]
    ignorant, _ = _teach(settings, train=first_alone, val=val)
    assert [measure(ignorant, val, view) > 0.9 for view in range(2)] == [True, False]


def test_logits_are_the_means_of_those_of_a_photographs_views(params: Params) -> None:
    classifier = _make_classifier(_train_params(params))
    examples = Clusters(20, 0, view_count=3)
    expected = []
    for view in range(3):
        alone = Clusters(20, 0)
        alone.views[0] = examples.views[view]
        expected.append(compute_logits(classifier, alone, 8)[0])
    logits, labels = compute_logits(classifier, examples, 8)
    np.testing.assert_allclose(logits, np.mean(expected, axis=0), rtol=1e-5, atol=1e-6)
    assert np.abs(logits - expected[0]).max() > 1e-3
    np.testing.assert_array_equal(labels, examples.labels)
