"""The classifier's Adam is torch's, and with a weight decay torch's AdamW."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from celebflow.backbone.source import FEATURE_COUNT, BackboneSource
from celebflow.classifier.adam import NetworkAdam
from celebflow.classifier.layers import BlockwiseLinear, SparseLinear
from celebflow.classifier.model import Classifier
from celebflow.features import sparse
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.features.transform import Transform
from tests.models import make_classifier

STEPS = 4


def _make_classifier() -> Classifier:
    torch.manual_seed(0)
    return make_classifier("abc", (16, 1500), 0.0, Transform(224), BackboneSource("untrained", False, "0" * 64))


def _draw_batches() -> list[tuple[SparseBatch, Tensor]]:
    random = np.random.default_rng(0)
    batches = []
    for _ in range(STEPS):
        dense = random.random((8, FEATURE_COUNT), np.float32) * (random.random((8, FEATURE_COUNT)) < 0.06)
        rows = [SparseRow.from_dense(row) for row in dense]
        labels = torch.from_numpy(random.integers(0, 3, 8))
        batches.append((SparseBatch.from_rows(rows, FEATURE_COUNT), labels))
    return batches


def _compute_gradients(classifier: Classifier, batch: SparseBatch, labels: Tensor) -> None:
    torch.autograd.backward(nn.functional.cross_entropy(classifier(batch), labels))


def _train_with_torch(classifier: Classifier, weight_decay: float) -> dict[str, Tensor]:
    """Return the weights after torch.optim's own Adam or AdamW, from the same first weights, on dense features."""
    model = nn.Sequential(*(_convert(layer) for layer in classifier.head))
    if weight_decay:
        optimizer: torch.optim.Adam = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=weight_decay)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for batch, labels in _draw_batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.from_numpy(batch.to_dense())), labels)
        torch.autograd.backward(loss)
        optimizer.step()
    weights = {f"head.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    weights["head.0.weight"] = weights["head.0.weight"].T  # as SparseLinear stores it
    return weights


def _convert(layer: nn.Module) -> nn.Module:
    """Return torch's layer with the same weights."""
    if not isinstance(layer, BlockwiseLinear):
        return layer
    weight = layer.weight.T if isinstance(layer, SparseLinear) else layer.weight
    plain = nn.Linear(weight.shape[1], weight.shape[0])
    plain.load_state_dict({"weight": weight.detach(), "bias": layer.bias.detach()})
    return plain


@pytest.mark.parametrize("weight_decay", [0.0, 100.0])  # the latter takes a tenth of every weight at each step
def test_steps_equal_those_of_torchs_adam_or_adamw(weight_decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_BLOCK_VALUES", 20_000)  # several blocks of each hidden layer
    monkeypatch.setattr(sparse, "_PRODUCT_BLOCK_VALUES", 100_000)
    expected = _train_with_torch(_make_classifier(), weight_decay)
    classifier = _make_classifier()
    first = {name: parameter.detach().clone() for name, parameter in classifier.named_parameters()}
    optimizer = NetworkAdam(classifier, 1e-3, weight_decay)
    for batch, labels in _draw_batches():
        _compute_gradients(classifier, batch, labels)
        optimizer.step()
    assert expected.keys() == first.keys()
    for name, parameter in classifier.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-4, atol=2e-6)
        assert (parameter - first[name]).abs().max() > 1e-3, "the steps are far longer than rounding explains"
    assert optimizer.step_count == STEPS


def test_adam_holds_two_moments_of_every_parameter_and_forgets_gradients() -> None:
    classifier = _make_classifier()
    optimizer = NetworkAdam(classifier, 1e-3, 0.0)
    _compute_gradients(classifier, *_draw_batches()[0])
    optimizer.step()
    names = [name for name, _ in classifier.named_parameters()]
    groups = ("parameter", "mean", "square")
    assert list(optimizer.tensors()) == [f"{group}.{name}" for group in groups for name in names]
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert all(tensor.abs().max() > 0 for tensor in optimizer.tensors().values())


def test_frozen_parameters_stay_unchanged() -> None:
    classifier = _make_classifier()
    classifier.head[0].requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in classifier.named_parameters()}
    optimizer = NetworkAdam(classifier, 1e-3, 100.0)
    assert not any(".head.0." in name for name in optimizer.tensors())
    _compute_gradients(classifier, *_draw_batches()[0])
    optimizer.step()
    same = {name for name, parameter in classifier.named_parameters() if torch.equal(parameter, before[name])}
    assert same == {"head.0.weight", "head.0.bias"}


def test_a_step_without_a_backward_pass_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no backward pass"):
        NetworkAdam(_make_classifier(), 1e-3, 0.0).step()
