"""Find near-duplicates: photographs that show the same picture though their files differ."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
_BLOCK_SIDE = 1024
_MANY_BLOCKS = 20  # which take a few seconds to compare
# The median of a photograph's coefficients is in the thousands, that of faint noise 50, and that of plain areas 0.
_MIN_STRUCTURE = 300.0
HashArray = NDArray[np.uint64]


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
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(sha256s)
    first, second = find_near_pairs(hashes, max_distance_bits)
    _, places, contents = np.unique(np.array(sha256s), return_index=True, return_inverse=True)
    # Equal files are near-duplicates too: pair each with the first of the same bytes.
    first = np.concatenate([first, np.arange(count)])
    second = np.concatenate([second, places[contents]])
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    _, components = connected_components(links, directed=False)
    first_of = dict(sorted(zip(components, sha256s, strict=True), reverse=True))  # the last of equal keys remains
    return [first_of[component] for component in components]


def find_near_pairs(hashes: HashArray, max_distance_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (P,) firsts and (P,) seconds of all pairs of photographs that are at most `max_distance_bits` apart.

    `hashes` is (N, 2, 4); either photograph of a pair may be mirrored, and first < second. Every pair is compared: an
    index of hashes would have to look at nearly all of them, too, at a distance as large as that of a cropped copy.
    Bits as numbers of +1 and -1 have an inner product of HASH_BITS - 2 × distance, which float32 holds exactly, and a
    product of matrices has those of many pairs at once.
    """
    structured = (hashes[:, 0] != 0).any(axis=1)  # pictures without structure are near nothing
    starts = range(0, len(hashes), _BLOCK_SIDE)
    firsts, seconds = [np.array([], np.int64)], [np.array([], np.int64)]
    for row in tqdm(starts, "comparing", unit="block", disable=True if len(starts) < _MANY_BLOCKS else None):
        signs = _to_signs(hashes[row : row + _BLOCK_SIDE, 0])
        for column in starts[row // _BLOCK_SIDE :]:
            block = hashes[column : column + _BLOCK_SIDE]
            products = [signs @ _to_signs(block[:, view]).T for view in (0, 1)]
            near = np.logical_or(*(each >= HASH_BITS - 2 * max_distance_bits for each in products))
            first, second = np.divmod(np.flatnonzero(near), len(block))
            kept = (first + row < second + column) & structured[first + row]
            firsts.append(first[kept] + row)
            seconds.append(second[kept] + column)
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    order = np.lexsort((second, first))
    return first[order], second[order]


def _to_signs(hashes: HashArray) -> NDArray[np.float32]:
    """Return the bits of (N, 4) hashes as (N, HASH_BITS) numbers, +1 for a bit that is set and -1 for another."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=1)
    return np.where(bits, np.float32(1), np.float32(-1))


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
