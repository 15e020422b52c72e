"""Features and a network → heat maps: which parts of a photograph support a person, or the yes of an attribute."""

from collections.abc import Iterator, Sequence
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray

from celebflow.classifier.network import Network
from celebflow.features.sparse import SparseBatch
from celebflow.features.store import Features

_CHANNELS, _SIDE = 512, 7  # of one layer, flattened channel-first
_LAST = slice(-_CHANNELS * _SIDE * _SIDE, None)
_BATCH_SIZE = 128


class Explainer:
    """Grad-CAM of a network (Selvaraju et al., 2017), with what all photographs share computed once.

    The maps are of the last backbone layer that gives features, after normalization; where there is a context, they are
    of the context.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        first, rest = network.split_at_first_product()
        self._first = first
        self._rest = deepcopy(rest).eval().requires_grad_(False)  # only the gradient of its input is needed
        # The first layer is features @ weight + bias. So a channel's mean gradient over its places is the gradient
        # at the layer's output times the channel's mean weights, which do not depend on the photograph.
        weight = first.weight.detach()[_LAST]
        self._channel_weight = weight.reshape(_CHANNELS, _SIDE * _SIDE, -1).mean(1)  # (512, width)

    def compute_heat_maps(self, features: SparseBatch, classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return how much each part of N photographs supports its class, (N, 7, 7) from 0 to 1.

        The channels are weighted by the mean gradient of the class's logit, added up, and clipped at zero. Each map is
        scaled by its own maximum; where nothing supports the class, it is all zeros. `classes` are (N,) indices of
        the class names.
        """
        normalized = self._network.preprocessor.normalize(features)
        hidden = self._first(normalized).detach().requires_grad_()
        logits = self._rest(hidden)
        picked = logits.gather(1, torch.from_numpy(classes)[:, None].to(logits.device))
        (gradient,) = torch.autograd.grad(picked.sum(), hidden)
        channels = (gradient @ self._channel_weight.T).cpu().numpy()  # (N, 512)
        activations = normalized.to_dense()[:, _LAST].reshape(-1, _CHANNELS, _SIDE * _SIDE)
        maps = np.maximum((channels[:, None] @ activations).reshape(-1, _SIDE, _SIDE), 0)
        maxima = maps.max(axis=(1, 2), keepdims=True)
        scaled: NDArray[np.float32] = np.divide(maps, maxima, out=np.zeros_like(maps), where=maxima > 0)
        return scaled

    def explain(
        self, photographs: Sequence[str], classes: NDArray[np.int64], features: Features
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the heat map (7, 7) of each of N photographs, by their paths, for its class; `classes` are (N,)."""
        rows = features.locate(photographs)
        for start in range(0, len(rows), _BATCH_SIZE):
            batch = slice(start, start + _BATCH_SIZE)
            yield from self.compute_heat_maps(features.gather(rows[batch]), classes[batch])
