"""Measure time and peak memory of train, evaluate and plot for many photographs and people; it writes docs/scale.md.

Photographs are tiny pictures of noise, and their features are generated: each person has features of their own among
others, far fewer than VGG19 has. The committed code runs the recipe `fast`:
  python -m benchmarks.scale 10000x31 100000x31 1000000x31 20000x1000 200000x10000
"""

import argparse
import hashlib
import io
import tempfile
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from benchmarks.compare import REPOSITORY, describe_machine, replace_between_marks, run, time_stage
from celebflow import paths
from celebflow.backbone.source import BackboneSource
from celebflow.data.duplicates import save_duplicates
from celebflow.data.photos import Photo, save_photos
from celebflow.experiments.recipes import apply_changes, find_changes, load_recipe
from celebflow.features.face_table import save_faces
from celebflow.features.origin import FeatureOrigin, choose_runtime, origin_file
from celebflow.features.sparse import choose_position_type
from celebflow.features.store import save_identity
from celebflow.features.transform import Transform
from celebflow.params import load_params

MARKS = "<!-- scale -->", "<!-- end of scale -->"
HEADER = "| photographs | people | stage | seconds | peak memory, GiB |\n|---|---|---|---|---|"
STAGES = ("train", "evaluate", "plot")
_SPLITS = ("train",) * 14 + ("val",) * 3 + ("test",) * 3  # 70, 15 and 15 %
_COLUMNS = 4_000  # that are ever above 0
_OWN_FRACTION = 0.02  # of the columns, those that are a person's own
_HELD_FRACTION = 0.3  # of these, those that are above 0 in a view
_NOISE_FRACTION = 0.015  # of the others
_CHUNK = 2_000  # photographs generated at once
_SIDE_PX = 16


def main() -> None:
    """Measure each size, print the table, and write it to docs/scale.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+", help="PHOTOGRAPHSxPEOPLE")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="only these")
    arguments = parser.parse_args()
    lines = [HEADER]
    for size in arguments.sizes:
        photo_count, person_count = (int(number) for number in size.split("x"))
        with tempfile.TemporaryDirectory(prefix="celebflow-scale-") as folder:
            run("git", "clone", "--quiet", str(REPOSITORY), folder)
            with chdir(folder):
                lines += measure(photo_count, person_count, arguments.stages)
    table = "\n".join([f"On {describe_machine()['processor']}:", "", *lines])
    replace_between_marks(REPOSITORY / "docs" / "scale.md", MARKS, table)


def measure(photo_count: int, person_count: int, stages: Sequence[str]) -> list[str]:
    """Generate a project in the working directory, run stages, and return a row for each."""
    write_recipe("fast")
    generate(photo_count, person_count)
    lines = []
    for stage in stages:
        seconds, peak_bytes = time_stage(stage)
        lines.append(f"| {photo_count:,} | {person_count:,} | {stage} | {seconds:.0f} | {peak_bytes / 2**30:.1f} |")
        print(lines[-1], flush=True)
    return lines


def write_recipe(name: str) -> None:
    """Change params.yaml to a recipe, and to a backbone without trained weights."""
    params = load_params(paths.PARAMS)
    changed = apply_changes(params, find_changes(params, load_recipe(name)) | {"backbone.weights": "untrained"})
    paths.PARAMS.write_text(yaml.safe_dump(changed.model_dump(mode="json")), encoding="utf-8")


def generate(photo_count: int, person_count: int) -> None:
    """Write data/, photos.csv and features/ for photographs of people."""
    random = np.random.default_rng(0)
    numbers = np.arange(photo_count) % person_count
    splits = random.choice(_SPLITS, photo_count)
    splits[:person_count] = "train"  # everybody has a photograph there
    photos = []
    for number, (person, split) in enumerate(zip(numbers.tolist(), splits.tolist(), strict=True)):
        name = f"person_{person:05}"
        sha256 = draw_photograph(paths.DATA / name / f"{number:07}.png", random)
        photos.append(Photo(f"{name}/{number:07}.png", name, split, sha256, sha256))
    save_photos(photos, paths.PHOTOS)
    save_duplicates([], [], paths.DUPLICATES)
    generate_features(photos, numbers, person_count, random)


def draw_photograph(file: Path, random: np.random.Generator) -> str:
    """Write a tiny picture of noise, and return the SHA-256 of the file."""
    content = io.BytesIO()
    pixels = random.integers(0, 256, (_SIDE_PX, _SIDE_PX, 3), np.uint8)
    Image.fromarray(pixels).save(content, "PNG", compress_level=0)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


def generate_features(
    photos: Sequence[Photo], numbers: NDArray[np.int64], person_count: int, random: np.random.Generator
) -> None:
    """Write features/: a person's own features are above 0 far more often than others."""
    extract = load_params(paths.PARAMS).extract
    transform = Transform(extract.image_size_px, extract.face, tuple(extract.views), tuple(extract.layers))
    source = BackboneSource("untrained", False, "0" * 64)
    origin = FeatureOrigin(source, transform, choose_runtime("auto", "cpu"))
    paths.FEATURES.mkdir()
    origin.save(origin_file(paths.FEATURES))
    save_faces({}, paths.FACES)
    save_identity(photos, paths.FEATURES)
    columns = np.sort(random.choice(origin.feature_count, _COLUMNS, replace=False)).astype(
        choose_position_type(origin.feature_count)
    )
    own = random.random((person_count, _COLUMNS), np.float32) < _OWN_FRACTION
    offsets = [np.zeros(1, np.int64)]
    with Path("indices.bin").open("wb") as indices_file, Path("values.bin").open("wb") as values_file:
        for start in range(0, len(photos), _CHUNK):
            people = np.repeat(numbers[start : start + _CHUNK], len(transform.views))
            shape = (len(people), _COLUMNS)
            drawn = random.random(shape, np.float32)
            held = np.where(own[people], drawn < _HELD_FRACTION, drawn < _NOISE_FRACTION)
            row_of, column = np.nonzero(held)
            columns[column].tofile(indices_file)
            random.exponential(size=len(column)).astype(np.float32).tofile(values_file)
            offsets.append(offsets[-1][-1] + np.cumsum(np.bincount(row_of, minlength=len(people))))
    total = np.concatenate(offsets)
    for name, number_type in (("indices", columns.dtype.str), ("values", "<f4")):
        raw, file = Path(f"{name}.bin"), paths.FEATURES / f"{name}.npy"
        array = np.lib.format.open_memmap(file, "w+", number_type, (int(total[-1]),))
        array[:] = np.memmap(raw, number_type, "r")
        raw.unlink()
    np.save(paths.FEATURES / "offsets.npy", total)


if __name__ == "__main__":
    main()
