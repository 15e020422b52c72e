"""What trained models of people and of attributes share: a preprocessor, and a head of linear layers."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from celebflow.classifier.cards import NetworkCard
from celebflow.classifier.discriminants import LinearFit
from celebflow.classifier.layers import BlockwiseLinear, DenseLinear, SparseLinear
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.features.sparse import SparseBatch
from celebflow.params import PreprocessingParams

Net = TypeVar("Net", bound="Network")


class Network(nn.Module):
    """Features → logits: a preprocessor, then a head of linear layers with ReLU and Dropout between them.

    Without the argument `preprocessor`, it has one that is not fitted.
    """

    def __init__(self, card: NetworkCard, preprocessor: Preprocessor | None = None) -> None:
        super().__init__()
        self.output_count = len(card.class_names)
        self.preprocessor = preprocessor or Preprocessor(card.preprocessing, card.transform.feature_count)
        widths = [self.preprocessor.output_count, *card.hidden_units, self.output_count]
        layers: list[nn.Module] = []
        linear: type[BlockwiseLinear] = SparseLinear if self.preprocessor.projection is None else DenseLinear
        for inputs, outputs in pairwise(widths):
            layers += [linear(inputs, outputs), nn.ReLU(), nn.Dropout(card.dropout)]
            linear = DenseLinear
        self.head = nn.Sequential(*layers[:-2])

    def forward(self, features: SparseBatch) -> Tensor:
        """Turn (N, 25088 · layers) features into (N, outputs) logits."""
        logits: Tensor = self.head(self.preprocessor(features))
        return logits

    def split_at_first_product(self) -> tuple[SparseLinear, nn.Sequential]:
        """Return the only layer that takes sparse features, and all layers after it."""
        if self.preprocessor.projection is not None:
            return self.preprocessor.projection, self.head
        first = self.head[0]
        assert isinstance(first, SparseLinear)  # noqa: S101 - __init__ made it one
        return first, self.head[1:]

    def embed(self, features: SparseBatch) -> Tensor:
        """Turn (N, 25088 · layers) features into the input of the last layer: (N, width).

        If the only layer takes the sparse features, return its logits instead.
        """
        first, rest = self.split_at_first_product()
        embedded: Tensor = rest[:-1](first(self.preprocessor.normalize(features)))
        return embedded

    def average(self, views: Iterable[SparseBatch]) -> Tensor:
        """Return the mean of the (N, outputs) logits of several views of N photographs."""
        return torch.stack([self(features) for features in views]).mean(0)


@torch.no_grad()
def make_linear(
    make: Callable[[PreprocessingParams], Net],
    preprocessor: Preprocessor,
    fitted: LinearFit,
) -> Net:
    """Return a network of one layer, with the preprocessor's projection unless the layer's weight includes it.

    `make` makes one for preprocessing settings.
    """
    settings = preprocessor.settings
    if not fitted.is_projected:
        settings = settings.model_copy(update={"pca_components": None})
    network = make(settings)
    network.preprocessor.load_state_dict(preprocessor.state_dict(), strict=fitted.is_projected)
    (layer,) = network.head
    assert isinstance(layer, BlockwiseLinear)  # noqa: S101 - the only layer
    weight = fitted.weight.T if fitted.is_projected else fitted.weight  # as DenseLinear and SparseLinear have it
    layer.weight.copy_(torch.from_numpy(weight))
    layer.bias.copy_(torch.from_numpy(fitted.bias))
    return network
