"""Measure the peak memory of train for several numbers of photographs.

Features are generated, as sparse as VGG19's (94 % zeros). The committed code trains the base recipe's classifier for
two epochs:
  python -m benchmarks.memory 2000 200000
"""

import argparse
import re
import tempfile
from contextlib import chdir

import numpy as np

from benchmarks.compare import REPOSITORY, run, time_stage
from celebflow import paths
from celebflow.backbone.source import BackboneSource
from celebflow.data.photos import Photo, save_photos
from celebflow.features.face_table import save_faces
from celebflow.features.origin import FeatureOrigin, origin_file
from celebflow.features.transform import Transform

_PEOPLE = 31
_NONZERO_COUNT = 1_500
_SPLITS = ("train",) * 14 + ("val",) * 3 + ("test",) * 3  # 70, 15 and 15 %


def main() -> None:
    """Generate features, train on them, and print the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=int, nargs="*", default=[2_000, 200_000], help="of photographs")
    for count in parser.parse_args().counts:
        with tempfile.TemporaryDirectory(prefix="celebflow-memory-") as folder:
            run("git", "clone", "--quiet", str(REPOSITORY), folder)
            with chdir(folder):
                set_two_epochs()
                generate_features(count)
                mapped_bytes = sum(file.stat().st_size for file in paths.FEATURES.iterdir())
                seconds, peak_bytes = time_stage("train")
            print(
                f"{count} photographs: the peak memory of train was {peak_bytes / 2**30:.2f} GiB, of which up to "
                f"{mapped_bytes / 2**30:.2f} GiB are the sparse rows in features/, mapped ({seconds:.0f} s)",
                flush=True,
            )


def set_two_epochs() -> None:
    """Let the base recipe train for two epochs only."""
    text = paths.PARAMS.read_text(encoding="utf-8")
    paths.PARAMS.write_text(re.sub("  epochs: .*", "  epochs: 2", text), encoding="utf-8")


def generate_features(count: int) -> None:
    """Write photos.csv and features/ for `count` photographs."""
    random = np.random.default_rng(0)
    photos = []
    for number, split in enumerate(random.choice(_SPLITS, count)):
        person = str(number % _PEOPLE)
        photos.append(Photo(f"{person}/{number}.png", person, split, str(number), str(number)))
    save_photos(photos, paths.PHOTOS)
    paths.FEATURES.mkdir()
    origin = FeatureOrigin(BackboneSource("untrained", False, "0" * 64), Transform(224), "torch")
    origin.save(origin_file(paths.FEATURES))
    save_faces({}, paths.FACES)
    shape = (count * _NONZERO_COUNT,)
    indices = np.lib.format.open_memmap(paths.FEATURES / "indices.npy", "w+", "<u2", shape)
    values = np.lib.format.open_memmap(paths.FEATURES / "values.npy", "w+", "<f4", shape)
    for start in range(0, len(indices), _NONZERO_COUNT):
        row = slice(start, start + _NONZERO_COUNT)
        indices[row] = np.sort(random.choice(origin.feature_count, _NONZERO_COUNT, replace=False, shuffle=False))
        values[row] = random.exponential(size=_NONZERO_COUNT)
    np.save(paths.FEATURES / "offsets.npy", np.arange(count + 1) * _NONZERO_COUNT)


if __name__ == "__main__":
    main()
