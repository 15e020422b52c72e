"""The classifier's Adam is torch's, and with a weight decay its AdamW."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from celebflow.backbone.vgg19 import FEATURE_COUNT, BackboneSource
from celebflow.classifier.adam import ClassifierAdam
from celebflow.classifier.layers import BlockwiseLinear, SparseLinear
from celebflow.classifier.model import Classifier, make_classifier
from celebflow.features import sparse
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.features.transform import Transform

STEPS = 4


def _make_classifier() -> Classifier:
    torch.manual_seed(0)
    return make_classifier("abc", (32, 16), 0.0, Transform(224), BackboneSource("untrained", False, "0" * 64))


def _draw_batches() -> list[tuple[SparseBatch, Tensor]]:
    random = np.random.default_rng(0)
    batches = []
    for _ in range(STEPS):
        dense = random.random((8, FEATURE_COUNT), np.float32) * (random.random((8, FEATURE_COUNT)) < 0.06)
        rows = [SparseRow.from_dense(row) for row in dense]
        labels = torch.from_numpy(random.integers(0, 3, 8))
        batches.append((SparseBatch.from_rows(rows, FEATURE_COUNT), labels))
    return batches


def _take_plain_steps(classifier: Classifier, weight_decay: float) -> dict[str, Tensor]:
    """Return what torch.optim.Adam or AdamW, as it comes, makes of the same first weights with dense features."""
    model = nn.Sequential(*(_as_torch_has_it(layer) for layer in (classifier.first, *classifier.rest)))
    optimizer = (
        torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=weight_decay)
        if weight_decay
        else torch.optim.Adam(model.parameters(), lr=1e-3)
    )
    for batch, labels in _draw_batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.from_numpy(batch.to_dense())), labels)
        torch.autograd.backward(loss)
        optimizer.step()
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    expected = {"first.weight": linear[0].weight.detach().T, "first.bias": linear[0].bias.detach()}
    for name, layer in zip(("rest.2", "rest.5"), linear[1:], strict=True):
        expected |= {f"{name}.weight": layer.weight.detach(), f"{name}.bias": layer.bias.detach()}
    return expected


def _as_torch_has_it(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, BlockwiseLinear):
        return layer
    weight = layer.weight.T if isinstance(layer, SparseLinear) else layer.weight
    plain = nn.Linear(weight.shape[1], weight.shape[0])
    plain.load_state_dict({"weight": weight.detach(), "bias": layer.bias.detach()})
    return plain


@pytest.mark.parametrize("weight_decay", [0.0, 100.0])  # the latter takes a tenth of every weight at each step
def test_first_steps_are_those_of_plain_adam_or_adamw(weight_decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_BLOCK_VALUES", 200)  # several blocks of each layer
    monkeypatch.setattr(sparse, "_PRODUCT_BLOCK_VALUES", 100_000)
    expected = _take_plain_steps(_make_classifier(), weight_decay)
    classifier = _make_classifier()
    first = {name: parameter.detach().clone() for name, parameter in classifier.named_parameters()}
    optimizer = ClassifierAdam(classifier, 1e-3, weight_decay)
    for batch, labels in _draw_batches():
        torch.autograd.backward(nn.functional.cross_entropy(classifier(batch), labels))
        optimizer.step()
    for name, parameter in classifier.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-4, atol=2e-6)
        assert (parameter - first[name]).abs().max() > 2e-3, "the steps are far longer than what rounding explains"
    assert optimizer.step_count == STEPS


def test_it_holds_two_moments_of_every_parameter_and_forgets_gradients() -> None:
    classifier = _make_classifier()
    optimizer = ClassifierAdam(classifier, 1e-3, 0.0)
    batch, labels = _draw_batches()[0]
    torch.autograd.backward(nn.functional.cross_entropy(classifier(batch), labels))
    optimizer.step()
    names = [name for name, _ in classifier.named_parameters()]
    groups = ("parameter", "mean", "square")
    assert list(optimizer.tensors()) == [f"{group}.{name}" for group in groups for name in names]
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert all(tensor.abs().max() > 0 for tensor in optimizer.tensors().values())


def test_what_is_frozen_is_left_out() -> None:
    classifier = _make_classifier()
    classifier.first.requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in classifier.named_parameters()}
    optimizer = ClassifierAdam(classifier, 1e-3, 100.0)
    assert [name for name in optimizer.tensors() if ".first." in name] == []
    batch, labels = _draw_batches()[0]
    torch.autograd.backward(nn.functional.cross_entropy(classifier(batch), labels))
    optimizer.step()
    same = {name for name, parameter in classifier.named_parameters() if torch.equal(parameter, before[name])}
    assert same == {"first.weight", "first.bias"}
