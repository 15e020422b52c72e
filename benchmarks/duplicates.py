"""Measure how many copies of photographs prepare misses, by how the copies are made, and how long its search takes.

python -m benchmarks.duplicates DATA: every photograph in DATA is copied in each way, and a copy is missed when its hash
differs from the original's in more bits than prepare.duplicate_distance_bits.

python -m benchmarks.duplicates DATA --search 1000000: hashes of so many photographs are derived from those in DATA, and
grouped. Groups of the first 100,000 must be those that products of matrices find, which compare all pairs in full.
"""

import argparse
import io
import resource
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from celebflow import paths
from celebflow.data.decoding import decode_photograph
from celebflow.data.duplicates import HASH_BITS, HashArray, find_near_pairs, group_near_duplicates, hash_photograph
from celebflow.data.files import find_files
from celebflow.params import load_params


def recompress(photograph: Image.Image, quality: int) -> Image.Image:
    """Return a photograph after compression as a JPEG file of this quality."""
    file = io.BytesIO()
    photograph.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def resize(photograph: Image.Image, factor: float) -> Image.Image:
    """Return a photograph with its sides multiplied by `factor`."""
    return photograph.resize((round(photograph.width * factor), round(photograph.height * factor)))


def crop(photograph: Image.Image, fraction: float) -> Image.Image:
    """Return a photograph without this fraction of its width and of its height, half of it on each side."""
    left = round(photograph.width * fraction / 2)
    top = round(photograph.height * fraction / 2)
    return photograph.crop((left, top, photograph.width - left, photograph.height - top))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed, JPEG quality 60": lambda photograph: recompress(photograph, 60),
    "recompressed, JPEG quality 30": lambda photograph: recompress(photograph, 30),
    "half the size": lambda photograph: resize(photograph, 0.5),
    "twice the size": lambda photograph: resize(photograph, 2),
    "mirrored and recompressed": lambda photograph: recompress(ImageOps.mirror(photograph), 75),
    "in gray": lambda photograph: photograph.convert("L").convert("RGB"),
    "cropped by 2 %": lambda photograph: crop(photograph, 0.02),
    "cropped by 4 %": lambda photograph: crop(photograph, 0.04),
    "cropped by 6 %": lambda photograph: crop(photograph, 0.06),
    "mirrored and cropped by 4 %": lambda photograph: crop(ImageOps.mirror(photograph), 0.04),
}


def derive_hashes(hashes: HashArray, count: int, seed: int = 0) -> HashArray:
    """Return (count, 2, 4) hashes that resemble those of photographs, derived from real ones, (N, 2, 4).

    Each takes a quarter of its bits from each of four photographs, those of the upper or lower rows in even or odd
    columns, and those of its mirror image from the mirror images of the same: bits are set as often as in photographs,
    and depend on one another nearly as much. One in ten is a copy of one before, half of these mirrored, with up to a
    fifth of its bits flipped in both views; one in a thousand is a plain picture.
    """
    random = np.random.default_rng(seed)
    masks = np.zeros((4, 32), np.uint8)  # even and odd columns of the upper and of the lower rows
    for part, mask in enumerate(masks):
        mask[16 * (part // 2) :][:16] = 0x55 if part % 2 else 0xAA
    sources = np.ascontiguousarray(hashes).view(np.uint8).reshape(len(hashes), 2, 32)
    made = np.zeros((count, 2, 32), np.uint8)
    for mask in masks:
        made |= sources[random.integers(0, len(sources), count)] & mask
    for copy in range(9, count, 10):
        flipped = np.packbits(random.random(HASH_BITS) < random.random() / 5)
        made[copy] = made[random.integers(copy), :: random.choice([-1, 1])] ^ flipped
    made[::1000] = 0
    return made.view(np.uint64)


def multiply_pairs(hashes: HashArray, max_distance_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what find_near_pairs returns, from products of matrices: bits as +1 and -1, of all pairs, both views."""
    side = 1024
    firsts, seconds = [np.array([], np.int64)], [np.array([], np.int64)]
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=2).reshape(len(hashes), 2, HASH_BITS)
    for row in tqdm(range(0, len(hashes), side), "multiplying", unit="row", disable=None):
        signs = 2 * bits[row : row + side, 0].astype(np.float32) - 1
        for column in range(row, len(hashes), side):
            others = 2 * bits[column : column + side].astype(np.float32) - 1
            products = np.maximum(signs @ others[:, 0].T, signs @ others[:, 1].T)
            first, second = np.nonzero(products >= HASH_BITS - 2 * max_distance_bits)
            kept = (first + row < second + column) & hashes[first + row, 0].any(axis=1)
            firsts.append(first[kept] + row)
            seconds.append(second[kept] + column)
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    order = np.lexsort((second, first))
    return first[order], second[order]


def measure_search(hashes: HashArray, count: int, max_distance_bits: int) -> None:
    """Group the hashes of growing numbers of photographs, and print the time and memory of that as a table."""
    made = derive_hashes(hashes, count)
    names = [f"{number:064x}" for number in range(count)]
    compared = min(count, 100_000)
    started = [time.perf_counter()]
    expected = multiply_pairs(made[:compared], max_distance_bits)
    started.append(time.perf_counter())
    found = find_near_pairs(made[:compared], max_distance_bits)
    started.append(time.perf_counter())
    multiplied, counted = (end - start for start, end in pairwise(started))
    if not all(np.array_equal(*sides) for sides in zip(found, expected, strict=True)):
        raise SystemExit(f"Of {compared} photographs, other pairs were found than products of matrices find.")
    print(
        f"The same {len(found[0])} pairs of {compared} photographs: {multiplied:.1f} s by products of matrices, "
        f"{counted:.1f} s by find_near_pairs.\n"
    )
    print("| photographs | groups of two or more | seconds | most memory (GB) |\n|---|---|---|---|")
    for size in sorted({count, *(each for each in (2_500, 10_000, 100_000, 300_000) if each < count)}):
        start = time.perf_counter()
        groups = group_near_duplicates(made[:size], names[:size], max_distance_bits)
        seconds = time.perf_counter() - start
        group_count = int((np.unique(groups, return_counts=True)[1] > 1).sum())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"| {size:,} | {group_count:,} | {seconds:.2f} | {memory:.2f} |", flush=True)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder with one subfolder per person")
    parser.add_argument("--search", type=int, metavar="N", help="measure the search among so many photographs instead")
    arguments = parser.parse_args()
    data = arguments.data
    max_distance_bits = load_params(paths.PARAMS).prepare.duplicate_distance_bits or 0
    files, _ = find_files(data)
    if arguments.search:
        real = [hash_photograph(decode_photograph((data / file).read_bytes())) for file in tqdm(files, disable=None)]
        measure_search(np.stack(real), arguments.search, max_distance_bits)
        return
    missed = dict.fromkeys(COPIES, 0)
    for file in tqdm(files, "copying", unit="photograph", disable=None):
        original = decode_photograph((data / file).read_bytes())
        hashes = hash_photograph(original)
        for how, copy in COPIES.items():
            first, _ = find_near_pairs(np.stack([hashes, hash_photograph(copy(original))]), max_distance_bits)
            missed[how] += len(first) == 0
    print(f"{len(files)} photographs in {data.name}, {max_distance_bits} of 256 bits\n")
    print("| copy | missed |\n|---|---|")
    for how, count in missed.items():
        print(f"| {how} | {count / len(files):.1%} ({count}) |")


if __name__ == "__main__":
    main()
