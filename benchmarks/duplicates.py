"""Measure how many copies of photographs prepare misses, by how the copies are made.

python -m benchmarks.duplicates DATA: every photograph in DATA is copied in each way, and a copy is missed when its hash
differs from the original's in more bits than prepare.duplicate_distance_bits.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from celebflow import paths
from celebflow.data.decoding import decode_photograph
from celebflow.data.duplicates import find_near_pairs, hash_photograph
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


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder with one subfolder per person")
    data = parser.parse_args().data
    max_distance_bits = load_params(paths.PARAMS).prepare.duplicate_distance_bits or 0
    files, _ = find_files(data)
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
