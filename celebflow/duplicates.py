"""Near-duplicates among photographs: which show the same picture, though their files differ."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

HASH_BITS = 256
_BITS_A_SIDE = 16
# Hashes are compared in blocks of rows, so that memory does not grow with the square of their number.
_BLOCK_PAIRS = 2**22

HashArray = NDArray[np.uint64]


def hash_photograph(photograph: Image.Image) -> HashArray:
    """Return the perceptual hashes of an RGB photograph and of its mirror image, (2, 4) words of 64 bits.

    Each is imagehash's pHash: which of the 16×16 lowest frequencies of the 64×64 grey picture (discrete cosine
    transform) lie above their median. Recompression, another size or a slight crop flip few of the 256 bits.
    """
    from imagehash import phash  # with scipy, half a second to import

    views = photograph, ImageOps.mirror(photograph)
    bits = np.stack([phash(view, _BITS_A_SIDE).hash.ravel() for view in views])
    return np.packbits(bits, axis=1).view(np.uint64)


def group_near_duplicates(hashes: HashArray, sha256s: Sequence[str], max_distance_bits: int) -> list[str]:
    """Return the group of each of N photographs: the least SHA-256 of those that are near-duplicates of one another.

    `hashes` (N, 2, 4) are those of hash_photograph. Photographs belong together when one's hash differs in at most
    `max_distance_bits` bits from the other's or from that of the other's mirror image, or when their bytes are the
    same, and also when a chain of such pairs links them.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(sha256s)
    first, second = find_near_pairs(hashes, max_distance_bits)
    _, places, contents = np.unique(np.array(sha256s), return_index=True, return_inverse=True)
    first = np.concatenate([first, np.arange(count)])  # and each with the first file of the same bytes
    second = np.concatenate([second, places[contents]])
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    _, components = connected_components(links, directed=False)
    names: dict[int, str] = {}
    for component, sha256 in zip(components, sha256s, strict=True):
        names[component] = min(sha256, names.get(component, sha256))
    return [names[component] for component in components]


def find_near_pairs(hashes: HashArray, max_distance_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (P,) first and (P,) second of all pairs at most so many bits apart, mirrored or not, first < second.

    Every pair is looked at, 2 N² / 2 comparisons: a second for 10,000 photographs.
    """
    count = len(hashes)
    firsts, seconds = [], []
    rows = max(1, _BLOCK_PAIRS // max(1, count))
    for start in range(0, count, rows):
        block = hashes[start : start + rows, 0]
        nearest = np.full((len(block), count - start), HASH_BITS, np.uint16)
        for view in range(hashes.shape[1]):
            distance = np.zeros(nearest.shape, np.uint16)
            for word in range(hashes.shape[2]):
                distance += np.bitwise_count(block[:, None, word] ^ hashes[None, start:, view, word])
            np.minimum(nearest, distance, out=nearest)
        first, second = np.nonzero(nearest <= max_distance_bits)
        later = second > first
        firsts.append(first[later] + start)
        seconds.append(second[later] + start)
    return np.concatenate([*firsts, np.array([], np.int64)]), np.concatenate([*seconds, np.array([], np.int64)])
