"""Photographs → normalized vectors of features, and their inner products; they are never whole in memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from celebflow.classifier.fits import Fits
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.features.store import Features

_BLOCK_VALUES = 2**25  # of a dense block: 128 MB
_BATCH_SIZE = 256
_MAX_PROJECTED = 2**14  # vectors at once, so that a block has thousands of columns
_SUM_SIZE = 128  # photographs that a thread adds up at once; with more, their features leave the processor's caches


@dataclass(frozen=True)
class Vectors:
    """N normalized vectors of features: of a view of a photograph each, or the means of all views.

    `rows` (N,) are the photographs' rows in `features`, and `views` (N,) the numbers of their views; without it, a
    vector is the mean of all views' vectors.
    """

    preprocessor: Preprocessor
    features: Features
    rows: NDArray[np.int64]
    views: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, positions: NDArray[np.int64]) -> "Vectors":
        """Return the vectors at these positions."""
        return replace(self, rows=self.rows[positions], views=None if self.views is None else self.views[positions])

    def read_columns(self, description: str, *, silent: bool = False) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield some columns after the other, and their dense (N, columns) values; show progress unless silent."""
        edges = self._edges
        for number in tqdm(range(len(edges) - 1), description, unit="block", disable=silent or None):
            columns = slice(int(edges[number]), int(edges[number + 1]))
            dense = np.zeros((len(self), columns.stop - columns.start), np.float32)
            for cuts, squares in self._parts:
                batch = self.features.gather_between(cuts[:, number], cuts[:, number + 1])
                normalized = self.preprocessor.normalize(batch, squares)
                dense[normalized.rows, normalized.columns - columns.start] += normalized.values
            dense /= np.float32(len(self._parts))
            yield columns, dense

    def compute_products(self) -> NDArray[np.float32]:
        """Return the (N, N) inner products of the vectors."""
        products = np.zeros((len(self), len(self)), np.float32)
        for _, dense in self.read_columns("comparing photographs"):
            products += dense @ dense.T
        return products

    def recall_products(self, fits: Fits) -> NDArray[np.float32]:
        """Return what compute_products returns, from `fits` if it is kept there."""
        views = None if self.views is None else self.views.tolist()
        determinants = self.preprocessor.settings, self.rows.tolist(), views
        return fits.recall(
            "The inner products of train", determinants, lambda: {"products": torch.from_numpy(self.compute_products())}
        )["products"].numpy()

    def add_up(self, weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the sums of the vectors times their (N, A) weights, (features, A).

        Each thread adds up a share, so that the last bits depend on the number of threads.
        """
        count = torch.get_num_threads()
        views = range(self.features.view_count) if self.views is None else [self.views]
        parts = [(view, start) for view in views for start in range(0, len(self), _SUM_SIZE)]
        bar = tqdm(desc="adding up photographs", total=len(parts), unit="batch", disable=None)

        def add_share(share: list[tuple[NDArray[np.int64] | int, int]]) -> NDArray[np.float64]:
            sums = np.zeros((self.features.origin.feature_count, weights.shape[1]))
            for view, start in share:
                block = slice(start, start + _SUM_SIZE)
                batch = self.features.gather(self.rows[block], view if isinstance(view, int) else view[block])
                sums += self.preprocessor.normalize(batch).add_up(weights[block].astype(np.float32))
                bar.update()
            return sums

        with bar, ThreadPoolExecutor(count) as workers:
            shares = list(workers.map(add_share, [parts[start::count] for start in range(count)]))
        total: NDArray[np.float64] = sum(shares[1:], start=shares[0]) / len(views)
        return total

    def multiply(self, weight: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the (N, outputs) products of the vectors with a (features, outputs) matrix."""
        products = np.zeros((len(self), weight.shape[1]), np.float32)
        starts = range(0, len(self), _MAX_PROJECTED)
        is_one = len(starts) == 1  # then the columns show progress
        for start in tqdm(starts, "projecting", unit="batch", disable=is_one or None):
            batch = np.arange(start, min(start + _MAX_PROJECTED, len(self)))
            for columns, dense in self.select(batch).read_columns("projecting", silent=not is_one):
                products[batch] += dense @ weight[columns].astype(np.float32, copy=False)
        return products

    def project(self) -> NDArray[np.float32]:
        """Return the (N, C) coordinates of the vectors, by the preprocessor's projection."""
        assert self.preprocessor.projection is not None  # noqa: S101 - what the caller promises
        weight, bias = (tensor.numpy() for tensor in self.preprocessor.projection.parameters())
        coordinates: NDArray[np.float32] = self.multiply(weight) + bias
        return coordinates

    @cached_property
    def _edges(self) -> NDArray[np.int64]:
        """Return where each block of columns starts, and where the last ends."""
        width = max(1, _BLOCK_VALUES // max(1, len(self)))
        column_count = self.features.origin.feature_count
        return np.append(np.arange(0, column_count, width), column_count)

    @cached_property
    def _parts(self) -> list[tuple[NDArray[np.int64], NDArray[np.float64] | None]]:
        """Return for each view that a vector is the mean of where its features are, and what normalizes them.

        Those of the N vectors in each block of columns are stored between (N, blocks + 1) positions. Beside these are
        the (N,) sums of squares, where vectors are brought to length 1.
        """
        if self.views is not None:
            return [self._divide(self.views)]
        return [self._divide(np.full(len(self), view)) for view in range(self.features.view_count)]

    def _divide(self, views: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        places = self.rows * self.features.view_count + views
        starts = self._edges[:-1].astype(self.features.indices.dtype)
        cuts = np.empty((len(self), len(starts) + 1), np.int64)
        for row, place in enumerate(places):
            first, last = self.features.offsets[place], self.features.offsets[place + 1]
            cuts[row, :-1] = first + np.searchsorted(self.features.indices[first:last], starts)
            cuts[row, -1] = last
        if not self.preprocessor.settings.l2_normalize:
            return cuts, None
        squares = np.empty(len(self))
        for start in range(0, len(self), _BATCH_SIZE):
            block = slice(start, start + _BATCH_SIZE)
            squares[block] = self.preprocessor.sum_squares(self.features.gather(self.rows[block], views[block]))
        return cuts, squares


def draw_sample(count: int, max_count: int, seed: int) -> NDArray[np.int64]:
    """Return ascending positions of `count` vectors: all, or a sample of `max_count` that is drawn by `seed`."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:max_count])


def list_views(preprocessor: Preprocessor, features: Features, rows: NDArray[np.int64]) -> Vectors:
    """Return a vector for each view of the photographs in `rows`: all first views, then all second views, and so on."""
    views = np.repeat(np.arange(features.view_count), len(rows))
    return Vectors(preprocessor, features, np.tile(rows, features.view_count), views)
