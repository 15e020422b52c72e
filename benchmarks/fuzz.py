"""Damage photographs of every format, and decode them for as long as one likes: only PhotographError may come of it.

python -m benchmarks.fuzz DATA [--minutes 10]
"""

import argparse
import io
import random
import time
from pathlib import Path

import pillow_heif
from PIL import Image

from celebflow.data.decoding import decode_photograph
from celebflow.data.files import find_files
from celebflow.data.formats import PILLOW_FORMATS, PhotographError

_MAX_SECONDS = 5.0
_SIDE_PX = 256
_PHOTOGRAPHS = 20


def _encode(photograph: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    photograph.save(content, kind, **options)
    return content.getvalue()


def _list_files(data: Path) -> list[tuple[str, bytes]]:
    """Return photographs of each format."""
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    paths, _ = find_files(data)
    for path in random.sample(paths, min(_PHOTOGRAPHS, len(paths))):
        photograph = decode_photograph((data / path).read_bytes())
        photograph.thumbnail((_SIDE_PX, _SIDE_PX))
        files += [(kind, _encode(photograph, kind, exif=exif)) for kind in PILLOW_FORMATS.values()]
        files.append(("JPEG, progressive", _encode(photograph, "JPEG", progressive=True)))
        files.append(("MPO", _encode(photograph, "MPO", save_all=True, append_images=[photograph])))
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
            files.append((f"TIFF, {compression}", _encode(photograph, "TIFF", compression=compression)))
    return files


def _damage(content: bytes) -> bytes:
    """Change, remove, repeat or insert some bytes, more often near the beginning, where headers are."""
    damaged = bytearray(content)
    for _ in range(random.randint(1, 10)):
        end = len(damaged) if random.random() < 0.5 else min(400, len(damaged))
        position = random.randrange(end)
        length = random.choice((0, 1, 1, 2, 4, 16, 400))
        change = random.choice((random.randbytes(length), b"\xff" * length, bytes(length), damaged[position:][:length]))
        damaged[position : position + random.choice((0, length))] = change
    return bytes(damaged)


def main() -> None:
    """Decode damaged files, and print how many were accepted and refused, and the slowest, by format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder of photographs")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    pillow_heif.register_heif_opener()
    files = _list_files(arguments.data)
    counts: dict[str, list[float]] = {kind: [0, 0, 0] for kind, _ in files}
    deadline = time.monotonic() + 60 * arguments.minutes
    while time.monotonic() < deadline:
        kind, content = random.choice(files)
        damaged = _damage(content)
        started = time.perf_counter()
        try:
            decode_photograph(damaged, max_seconds=_MAX_SECONDS)
            counts[kind][0] += 1
        except PhotographError:
            counts[kind][1] += 1
        except BaseException:
            Path("fuzzed.bin").write_bytes(damaged)
            print(f"{kind}: the file is in fuzzed.bin")
            raise
        counts[kind][2] = max(counts[kind][2], time.perf_counter() - started)
    for kind, (accepted, refused, slowest) in counts.items():
        print(f"{kind:28} {accepted:8.0f} accepted {refused:8.0f} refused, slowest {slowest * 1000:6.0f} ms")


if __name__ == "__main__":
    main()
