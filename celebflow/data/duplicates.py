"""Find near-duplicates: photographs that show the same picture though their files differ."""

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from celebflow.data.photos import Photo, list_people
from celebflow.data.splits import Splitter
from celebflow.data.tables import save_table
from celebflow.params import PrepareParams

HASH_BITS = 256
_HASH_SIDE = 16
# Hashes are compared in square blocks, so that memory does not grow with the square of their number.
_BLOCK_SIDE = 4096
_STRIP_ROWS = 32  # of a block are compared at once, so that the processor's cache holds what they need
_MANY_BLOCKS = 60  # which take a few seconds to compare
_MANY_PAIRS = 4_000_000  # are reduced to the groups that they link, so that memory does not grow with their number
# The median of a photograph's coefficients is in the thousands, that of faint noise 50, and that of plain areas 0.
_MIN_STRUCTURE = 300.0
HashArray = NDArray[np.uint64]
_Indices = NDArray[np.int64]


def hash_photograph(photograph: Image.Image) -> HashArray:
    """Return the perceptual hashes of an RGB photograph and of its mirror image, (2, 4) words of 64 bits.

    Each is the hash that the library imagehash calls pHash: one bit for each of the 16×16 lowest frequencies of the
    64×64 gray image (discrete cosine transform), set where it lies above their median. Compressing the photograph
    again, resizing it or cropping it slightly flips few of the 256 bits.

    Of a picture with almost no structure, such as a plain area, noise would decide about the bits: they are all 0.
    """
    from scipy.fftpack import dct

    views = []
    for view in (photograph, ImageOps.mirror(photograph)):
        grays = np.asarray(view.convert("L").resize((4 * _HASH_SIDE, 4 * _HASH_SIDE), Image.Resampling.LANCZOS))
        low = dct(dct(grays, axis=0), axis=1)[:_HASH_SIDE, :_HASH_SIDE].ravel()
        structured = np.median(np.abs(low)) >= _MIN_STRUCTURE
        views.append((low > np.median(low)) & structured)
    return np.packbits(views, axis=1).view(np.uint64)


def group_near_duplicates(hashes: HashArray, sha256s: Sequence[str], max_distance_bits: int) -> list[str]:
    """Return the group of each of N photographs: the smallest SHA-256 among it and its near-duplicates.

    `hashes` (N, 2, 4) come from hash_photograph. Two photographs are near-duplicates when the hash of one differs in
    at most `max_distance_bits` bits from that of the other or of its mirror image, when their bytes are the same, or
    when a chain of such pairs links them.
    """
    _, places, contents = np.unique(np.array(sha256s), return_index=True, return_inverse=True)
    firsts = places[contents]  # equal files are near-duplicates too: each is linked to the first of the same bytes
    pairs: list[tuple[_Indices, _Indices]] = []
    pair_count = 0
    for found in _find_pairs_in_blocks(hashes, max_distance_bits):
        pairs.append(found)
        pair_count += len(found[0])
        if pair_count > _MANY_PAIRS:
            firsts = _link(firsts, pairs)
            pairs, pair_count = [], 0
    components = _link(firsts, pairs)
    members = zip(components.tolist(), sha256s, strict=True)
    first_of = dict(sorted(members, reverse=True))  # the last of equal keys remains
    return [first_of[component] for component in components.tolist()]


def _link(firsts: _Indices, pairs: Sequence[tuple[_Indices, _Indices]]) -> _Indices:
    """Return the first photograph of each one's group; `firsts` is that without these pairs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(firsts)
    first, second = _concatenate([(np.arange(count), firsts), *pairs])
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    components = connected_components(links, directed=False)[1]
    linked: _Indices = np.unique(components, return_index=True)[1][components]
    return linked


def find_near_pairs(hashes: HashArray, max_distance_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (P,) firsts and (P,) seconds of all pairs of photographs that are at most `max_distance_bits` apart.

    `hashes` is (N, 2, 4); either photograph of a pair may be mirrored, and first < second.
    """
    first, second = _concatenate(list(_find_pairs_in_blocks(hashes, max_distance_bits)))
    order = np.lexsort((second, first))
    return first[order], second[order]


def _find_pairs_in_blocks(hashes: HashArray, max_distance_bits: int) -> Iterator[tuple[_Indices, _Indices]]:
    """Yield what find_near_pairs returns, in parts and in no order, so that memory does not grow with their number.

    Every pair is compared: an index of hashes would have to look at many of them, too, at a distance as large as that
    of a cropped copy. But one bound for both views rules out nearly all pairs, and only the others are counted in full.
    """
    finder = _PairFinder(hashes, max_distance_bits)
    starts = range(0, len(hashes), _BLOCK_SIDE)
    blocks = ((row, column) for row in starts for column in starts if column >= row)
    count = len(starts) * (len(starts) + 1) // 2
    workers = os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)  # NumPy lets other threads run while it computes
    try:
        compared = deque(pool.submit(finder.find, *block) for block in islice(blocks, 2 * workers))
        for _ in tqdm(range(count), "comparing", unit="block", disable=True if count < _MANY_BLOCKS else None):
            yield compared.popleft().result()
            compared.extend(pool.submit(finder.find, *block) for block in islice(blocks, 1))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for no more than the blocks that are being compared


class _PairFinder:
    """Finds the near-duplicates in square blocks of all pairs.

    Mirroring a photograph negates its coefficients in odd columns and no others. So the hash of a mirror image has the
    same bits in even columns and the other bits in odd ones, but for some bits, the deviation, since the median moves
    slightly. Therefore, one comparison bounds both distances from below: over the same bits, neither is less than

        distance in even columns + min(distance in odd columns, their number - distance in odd columns) - deviation

    All of the even columns and half of the odd ones, three words, suffice to rule out nearly all pairs. Where the
    deviation is large, pairs are not ruled out, and it only takes longer.
    """

    def __init__(self, hashes: HashArray, max_distance_bits: int) -> None:
        self._hashes = hashes
        self._max_distance_bits = max_distance_bits
        self._structured = (hashes[:, 0] != 0).any(axis=1)  # pictures without structure are near nothing
        self._words = _select_words(hashes[:, 0])
        mirrored = _select_words(hashes[:, 1])
        odd = np.array([[2**64 - 1], [0], [0]], np.uint64)
        # The bound holds as well with the bits in which a mirror image differs from the photograph itself.
        deviations = np.minimum(
            *(np.bitwise_count(mirrored ^ self._words ^ flips).sum(axis=0, dtype=np.int64) for flips in (odd, odd * 0))
        )
        self._limits = np.minimum(max_distance_bits + deviations, 255).astype(np.uint8)

    def find(self, row: int, column: int) -> tuple[_Indices, _Indices]:
        """Return the pairs whose first is in the block from `row` on, and whose second in that from `column` on."""
        end = min(row + _BLOCK_SIDE, len(self._hashes))
        memory = np.empty((3, _STRIP_ROWS * _BLOCK_SIDE), np.uint64)  # used again for each strip, which is faster
        possible: list[tuple[_Indices, _Indices]] = []
        near: list[tuple[_Indices, _Indices]] = []
        for start in range(row, end, _STRIP_ROWS):
            possible.append(self._rule_out(start, min(start + _STRIP_ROWS, end), max(column, start), column, memory))
            if sum(len(first) for first, _ in possible) > _STRIP_ROWS * _BLOCK_SIDE // 4:
                near.append(self._count_in_full(*_concatenate(possible)))
                possible.clear()
        near.append(self._count_in_full(*_concatenate(possible)))
        return _concatenate(near)

    def _count_in_full(self, first: _Indices, second: _Indices) -> tuple[_Indices, _Indices]:
        """Return those pairs that are near-duplicates."""
        kept = first < second
        first, second = first[kept], second[kept]
        distances = np.bitwise_count(self._hashes[first, :1] ^ self._hashes[second]).sum(axis=2, dtype=np.int64)
        near = distances.min(axis=1) <= self._max_distance_bits
        return first[near], second[near]

    def _rule_out(
        self, row: int, row_end: int, column: int, block: int, memory: HashArray
    ) -> tuple[_Indices, _Indices]:
        """Return the pairs of a strip that the bound does not rule out."""
        columns = slice(column, min(block + _BLOCK_SIDE, len(self._hashes)))
        shape = (row_end - row, columns.stop - column)
        size = shape[0] * shape[1]
        differences = memory[0, :size].reshape(shape)
        bounds, counts = (each.view(np.uint8)[:size].reshape(shape) for each in memory[1:])
        for place, words in enumerate(self._words):  # those of odd columns first
            np.bitwise_xor(words[row:row_end, None], words[columns], out=differences)
            if place:
                np.bitwise_count(differences, out=counts)
                np.add(bounds, counts, out=bounds)
            else:
                np.bitwise_count(differences, out=bounds)
                np.subtract(64, bounds, out=counts)
                np.minimum(bounds, counts, out=bounds)
        possible = np.less_equal(bounds, self._limits[columns], out=counts.view(bool))
        possible[~self._structured[row:row_end]] = False
        first, second = np.divmod(np.flatnonzero(possible), shape[1])
        return first + row, second + column


def _concatenate(pairs: Sequence[tuple[_Indices, _Indices]]) -> tuple[_Indices, _Indices]:
    firsts, seconds = zip((np.array([], np.int64), np.array([], np.int64)), *pairs, strict=True)
    return np.concatenate(firsts), np.concatenate(seconds)


def _select_words(hashes: HashArray) -> HashArray:
    """Return three words of (N, 4) hashes as (3, N): bits of odd columns in the upper rows, and all of even ones.

    The bits of a hash stand in rows of 16, the first of each byte, its highest, in an even column.
    """
    highest, lowest = np.uint64(0xAAAA_AAAA_AAAA_AAAA), np.uint64(0x5555_5555_5555_5555)
    first, second, third, fourth = hashes.T
    return np.stack(
        [
            (first & lowest) << np.uint64(1) | second & lowest,
            first & highest | (second & highest) >> np.uint64(1),
            third & highest | (fourth & highest) >> np.uint64(1),
        ]
    )


def find_near_duplicates(hashes: HashArray, others: HashArray, max_distance_bits: int) -> NDArray[np.int64]:
    """Return the indices of those of `others` (N, 2, 4) that are at most `max_distance_bits` from `hashes` (2, 4)."""
    if not hashes[0].any():
        return np.array([], np.int64)
    distances = np.bitwise_count(hashes[0] ^ others).sum(axis=2, dtype=np.int64)
    return np.flatnonzero(distances.min(axis=1) <= max_distance_bits)


@dataclass(frozen=True)
class DuplicateGroup:
    """Photographs that are near-duplicates of one another, in the order of their paths."""

    photos: tuple[Photo, ...]

    @property
    def people(self) -> list[str]:
        """Return the people whom they show, as far as known; with more than one, a label is likely wrong."""
        return [person for person in list_people(self.photos) if person]


def list_duplicate_groups(photos: Sequence[Photo]) -> list[DuplicateGroup]:
    """Return every group of two or more photographs: first those that span people, then the largest."""
    members: dict[str, list[Photo]] = {}
    for photo in photos:
        members.setdefault(photo.group, []).append(photo)
    by_path = (sorted(group, key=lambda photo: photo.path) for group in members.values() if len(group) > 1)
    groups = [DuplicateGroup(tuple(group)) for group in by_path]
    return sorted(groups, key=lambda group: (len(group.people) < 2, -len(group.photos), group.photos[0].path))


def count_leaks(
    groups: Sequence[DuplicateGroup], photos: Sequence[Photo], split: Splitter, params: PrepareParams, folder: Path
) -> list[int]:
    """Count, for each group, the photographs of val and test that a split without groups would leak.

    A photograph leaks when a near-duplicate of it is in train. `split` is the task's, with its last two arguments.
    """
    alone = [replace(photo, group=photo.sha256 + photo.path) for photo in photos]
    ordinary = {photo.path: photo.split for photo in split(alone, list_people(photos), params, folder).photos}
    leaks = []
    for group in groups:
        splits = Counter(ordinary[photo.path] for photo in group.photos)
        leaks.append(splits["val"] + splits["test"] if splits["train"] else 0)
    return leaks


def describe_duplicates(groups: Sequence[DuplicateGroup], leaks: Sequence[int]) -> str:
    """Describe in a few sentences how many near-duplicates there are, and how many would have leaked."""
    if not groups:
        return "There are no near-duplicates."
    text = (
        f"{sum(len(group.photos) for group in groups)} photographs are near-duplicates, in {len(groups)} groups. Each "
        f"group stays in one split; a split without groups would have leaked {sum(leaks)} photographs of val and test."
    )
    mixed_count = sum(len(group.people) > 1 for group in groups)
    return text + (f" {mixed_count} groups span people: a label is likely wrong." if mixed_count else "")


def save_duplicates(groups: Sequence[DuplicateGroup], leaks: Sequence[int], path: Path) -> None:
    """Write duplicates.csv, one row per photograph of a group; without groups, only the header."""
    rows = (
        (number, photo.path, photo.person, photo.split, leaked, "yes" if len(group.people) > 1 else "")
        for number, (group, leaked) in enumerate(zip(groups, leaks, strict=True), 1)
        for photo in group.photos
    )
    save_table(path, ["group", "path", "person", "split", "leaked_by_ordinary_split", "likely_wrong_label"], rows)
