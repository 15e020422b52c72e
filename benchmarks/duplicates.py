"""How many copies of photographs prepare would miss, by how they were made.

python -m benchmarks.duplicates DATA: every photograph in DATA is copied in each way, and a copy is missed when its hash
and its original's differ in more bits than prepare.duplicate_distance_bits.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from celebflow.data.decoding import decode_photograph
from celebflow.data.duplicates import find_near_pairs, hash_photograph
from celebflow.data.files import find_files
from celebflow.params import load_params


def recompress(photograph: Image.Image, quality: int) -> Image.Image:
    """Return a photograph as a JPEG file of this quality shows it."""
    file = io.BytesIO()
    photograph.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def resize(photograph: Image.Image, factor: float) -> Image.Image:
    """Return a photograph with its sides so many times as long."""
    return photograph.resize((round(photograph.width * factor), round(photograph.height * factor)))


def crop(photograph: Image.Image, share: float) -> Image.Image:
    """Return a photograph without such a share of its width and of its height, half at each side."""
    left, top = round(photograph.width * share / 2), round(photograph.height * share / 2)
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
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder of photographs a person")
    data = parser.parse_args().data
    limit = load_params(Path("params.yaml")).prepare.duplicate_distance_bits or 0
    files, _ = find_files(data)
    missed = dict.fromkeys(COPIES, 0)
    for file in tqdm(files, "copying", unit="photograph", disable=None):
        original = decode_photograph((data / file).read_bytes())
        hashes = hash_photograph(original)
        for how, copy in COPIES.items():
            first, _ = find_near_pairs(np.stack([hashes, hash_photograph(copy(original))]), limit)
            missed[how] += len(first) == 0
    print(f"{len(files)} photographs in {data.name}, {limit} of 256 bits\n\n| copy | missed |\n|---|---|")
    for how, count in missed.items():
        print(f"| {how} | {count / len(files):.1%} ({count}) |")


if __name__ == "__main__":
    main()
