"""The classifier learns, the backbone does not, and the same seed gives the same bits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from celebflow import training
from celebflow.backbone import FEATURE_COUNT, Backbone, BackboneSource, fingerprint_state
from celebflow.calibration import fit_calibration
from celebflow.classifier import Classifier, load_card, load_classifier, make_classifier, save_classifier
from celebflow.errors import CelebflowError
from celebflow.features import select_split
from celebflow.images import Transform
from celebflow.layers import DenseLinear
from celebflow.optimizer import ClassifierAdam
from celebflow.params import ComputeParams, Params, TrainParams
from celebflow.sparse import SparseBatch, SparseRow
from celebflow.training import Checkpoints, EpochResult, compute_logits, fit, seed_everything, teach_classifier
from tests.conftest import draw_features

SOURCE = BackboneSource("untrained", False, "0" * 64)
CPU = torch.device("cpu")


class Clusters:
    """Three persons' features: noise around a direction of each one's own."""

    def __init__(self, count: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.labels = np.arange(count) % 3
        self.features = random.random((count, FEATURE_COUNT), np.float32)
        self.features[random.random((count, FEATURE_COUNT)) < 0.5] = 0
        for person in range(3):
            self.features[self.labels == person, person * 1000 : person * 1000 + 1000] += 1

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, positions: NDArray[np.int64]) -> tuple[SparseBatch, Tensor]:
        """Return a batch."""
        rows = [SparseRow.from_dense(row) for row in self.features[positions]]
        return SparseBatch.from_rows(rows, FEATURE_COUNT), torch.from_numpy(self.labels[positions])


class Memory:
    """Checkpoints that last as long as the test."""

    def __init__(self) -> None:
        self.last: tuple[dict[str, Tensor], list[EpochResult]] = {}, []
        self.best: dict[str, Tensor] = {}

    def restore(self, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
        """Restore."""
        saved, history = self.last
        for name, tensor in saved.items():
            tensors[name].detach().copy_(tensor)
        return list(history)

    def save(self, tensors: Mapping[str, Tensor], history: Sequence[EpochResult]) -> None:
        """Save."""
        self.last = {name: tensor.detach().clone() for name, tensor in tensors.items()}, list(history)

    def restore_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore."""
        for name, tensor in self.best.items():
            tensors[name].detach().copy_(tensor)

    def save_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Save."""
        self.best = {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _train_params(params: Params, **changes: object) -> TrainParams:
    return params.train.model_copy(update={"hidden_units": (32, 16), "epochs": 3, "batch_size": 8, **changes})


def _teach(params: TrainParams, checkpoints: Checkpoints | None = None) -> tuple[Classifier, list[EpochResult]]:
    seed_everything(params.seed)
    classifier = make_classifier(["Ann", "Bo", "Cy"], params.hidden_units, params.dropout, Transform(224), SOURCE)
    history = fit(
        classifier,
        Clusters(60, 0),
        Clusters(30, 1),
        params,
        CPU,
        checkpoints or Memory(),
        lambda _: None,
        lambda _: None,
    )
    return classifier, history


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
        def __init__(self, classifier: Classifier, learning_rate: float) -> None:
            super().__init__(classifier, learning_rate)
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
    classifier, history = teach_classifier(features, settings, compute, Memory(), lambda _: None)
    random = np.random.default_rng(1)
    values = features.values.copy()
    photos = []
    for row, photo in enumerate(features.photos):
        if photo.split == "test":
            values[features.offsets[row] : features.offsets[row + 1]] = random.random(100)
            photo = replace(photo, person=features.photos[0].person)
        photos.append(photo)
    other = replace(features, values=values, photos=photos)
    again, history_again = teach_classifier(other, settings, compute, Memory(), lambda _: None)
    assert again.card == classifier.card
    assert history_again == history
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_the_calibration_is_that_of_validation(params: Params) -> None:
    settings, features = _train_params(params), draw_features()
    classifier, _ = teach_classifier(features, settings, ComputeParams(device="cpu"), Memory(), lambda _: None)
    logits, labels = compute_logits(classifier, select_split(features, ("Ann", "Bo", "Cy"), "val"), 8)
    assert classifier.card.calibration == fit_calibration(logits, labels, settings.false_acceptance_rate)
    assert classifier.card.calibration.threshold > 0
