"""The classifier learns, the backbone does not, and the same seed gives the same bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from celebflow.backbone import FEATURE_COUNT, Backbone, BackboneSource, fingerprint_state
from celebflow.classifier import Classifier, load_card, load_classifier, make_classifier, save_classifier
from celebflow.errors import CelebflowError
from celebflow.images import Transform
from celebflow.params import Params, TrainParams
from celebflow.training import EpochResult, compute_logits, fit, seed_everything, train_one_epoch

SOURCE = BackboneSource("untrained", False, "0" * 64)
CPU = torch.device("cpu")


class Clusters:
    """Three persons' features: noise around a direction of each one's own."""

    def __init__(self, count: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.labels = np.arange(count) % 3
        self.features = random.random((count, FEATURE_COUNT), np.float32)
        for person in range(3):
            self.features[self.labels == person, person * 1000 : person * 1000 + 1000] += 1

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return a batch."""
        return torch.from_numpy(self.features[positions]), torch.from_numpy(self.labels[positions])


def _train_params(params: Params, **changes: object) -> TrainParams:
    return params.train.model_copy(update={"hidden_units": (32, 16), "epochs": 3, "batch_size": 8, **changes})


def _teach(params: TrainParams) -> tuple[Classifier, list[EpochResult]]:
    seed_everything(params.seed)
    classifier = make_classifier(["Ann", "Bo", "Cy"], params.hidden_units, params.dropout, Transform(224), SOURCE)
    history = fit(classifier, Clusters(60, 0), Clusters(30, 1), params, CPU, lambda _: None, lambda _: None)
    return classifier, history


def test_base_classifier_has_the_parameters_of_the_model_card(params: Params) -> None:
    with torch.device("meta"):
        people = [str(number) for number in range(31)]
        classifier = make_classifier(people, params.train.hidden_units, params.train.dropout, Transform(224), SOURCE)
    assert sum(parameter.numel() for parameter in classifier.parameters()) == 119_672_863
    kinds = [type(layer) for layer in classifier.layers]
    hidden = [nn.Linear, nn.ReLU, nn.Dropout]
    assert kinds == [nn.Flatten, *hidden, *hidden, nn.Linear]
    assert [layer.p for layer in classifier.layers if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


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
    settings = _train_params(params)
    before = fingerprint_state(backbone.features.state_dict())
    held: list[list[nn.Parameter]] = []

    class Recorder(torch.optim.Adam):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            held.append([parameter for group in self.param_groups for parameter in group["params"]])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", Recorder)
        classifier, _ = _teach(settings)
    assert {id(parameter) for parameter in held[0]} == {id(parameter) for parameter in classifier.parameters()}
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    # Even a backward pass that runs through the backbone finds nothing there to change.
    logits = classifier(backbone(torch.rand(2, 3, 32, 32)))
    torch.autograd.backward(nn.functional.cross_entropy(logits, torch.tensor([0, 1])))
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert fingerprint_state(backbone.features.state_dict()) == before


def test_first_steps_are_those_of_plain_adam(params: Params) -> None:
    settings = _train_params(params, dropout=0.0)
    examples, order = Clusters(24, 0), np.arange(24)
    states = []
    for fused in (True, False):
        seed_everything(0)
        classifier = make_classifier("abc", settings.hidden_units, settings.dropout, Transform(224), SOURCE)
        optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-4, fused=fused)
        train_one_epoch(classifier, optimizer, examples, order, 8, CPU, lambda _: None)
        states.append(classifier.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-5, atol=1e-6)


def test_dropout_is_at_work_in_every_epochs_training_and_in_no_validation(params: Params) -> None:
    modes: list[tuple[bool, bool]] = []
    settings = _train_params(params)
    classifier = make_classifier("abc", settings.hidden_units, settings.dropout, Transform(224), SOURCE)
    classifier.register_forward_hook(lambda module, _, logits: modes.append((module.training, logits.requires_grad)))
    fit(classifier, Clusters(16, 0), Clusters(8, 1), settings, CPU, lambda _: None, lambda _: None)
    assert modes == [(True, True), (True, True), (False, False)] * settings.epochs


def test_best_epoch_is_kept_when_asked_for(params: Params) -> None:
    settings = _train_params(params, learning_rate=0.003, epochs=6, keep_epoch="best")
    classifier, history = _teach(settings)
    best = max(result.val_accuracy for result in history)
    assert best > history[-1].val_accuracy, "this rate is so high that a later epoch is worse"
    logits, labels = compute_logits(classifier, Clusters(30, 1), 8, CPU)
    assert (logits.argmax(axis=1) == labels).mean() == pytest.approx(best)
    last, _ = _teach(settings.model_copy(update={"keep_epoch": "last"}))
    logits, labels = compute_logits(last, Clusters(30, 1), 8, CPU)
    assert (logits.argmax(axis=1) == labels).mean() == pytest.approx(history[-1].val_accuracy)


def test_saved_classifier_answers_alike_and_carries_its_card(params: Params, tmp_path: Path) -> None:
    classifier, _ = _teach(_train_params(params))
    save_classifier(classifier, tmp_path / "c.safetensors")
    loaded = load_classifier(tmp_path / "c.safetensors")
    assert loaded.card == classifier.card == load_card(tmp_path / "c.safetensors")
    assert not loaded.training
    ours, theirs = (compute_logits(model, Clusters(9, 2), 8, CPU)[0] for model in (classifier, loaded))
    np.testing.assert_array_equal(ours, theirs)


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.safetensors").write_bytes(b"nothing of the kind")
    for path in (tmp_path / "c.safetensors", tmp_path / "missing.safetensors"):
        with pytest.raises(CelebflowError, match="is no classifier"):
            load_classifier(path)
