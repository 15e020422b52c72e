"""The most memory that train holds, by the number of photographs.

Features are generated, as sparse as VGG19's (94 % zeros); the classifier is the base recipe's, taught for two epochs,
by the code as committed:
  python -m benchmarks.memory 2000 200000
"""

import argparse
import re
import tempfile
from contextlib import chdir

import numpy as np

from benchmarks.compare import REPOSITORY, run, time_stage
from celebflow import paths
from celebflow.backbone.vgg19 import BackboneSource
from celebflow.data.photos import Photo, save_photos
from celebflow.features.origin import FeatureOrigin, origin_file
from celebflow.features.transform import Transform

_PEOPLE = 31
_NOT_ZERO = 1_500
_SPLITS = ("train",) * 14 + ("val",) * 3 + ("test",) * 3  # 70, 15 and 15 %


def main() -> None:
    """Generate, train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=int, nargs="*", default=[2_000, 200_000], help="of photographs")
    for count in parser.parse_args().counts:
        with tempfile.TemporaryDirectory(prefix="celebflow-memory-") as folder:
            run("git", "clone", "--quiet", str(REPOSITORY), folder)
            with chdir(folder):
                set_two_epochs()
                generate(count)
                mapped_bytes = sum(file.stat().st_size for file in paths.FEATURES.iterdir())
                seconds, peak_bytes = time_stage("train")
            print(
                f"{count} photographs: train held at most {peak_bytes / 2**30:.2f} GiB, of which up to "
                f"{mapped_bytes / 2**30:.2f} is the sparse rows in features/, mapped ({seconds:.0f} s)",
                flush=True,
            )


def set_two_epochs() -> None:
    """Change the base recipe."""
    text = paths.PARAMS.read_text(encoding="utf-8")
    paths.PARAMS.write_text(re.sub("  epochs: .*", "  epochs: 2", text), encoding="utf-8")


def generate(count: int) -> None:
    """Write photos.csv and features/ of as many photographs."""
    random = np.random.default_rng(0)
    photos = [
        Photo(f"{number % _PEOPLE}/{number}.png", str(number % _PEOPLE), split, str(number), str(number))
        for number, split in enumerate(random.choice(_SPLITS, count))
    ]
    save_photos(photos, paths.PHOTOS)
    paths.FEATURES.mkdir()
    origin = FeatureOrigin(BackboneSource("untrained", False, "0" * 64), Transform(224), "torch")
    origin.save(origin_file(paths.FEATURES))
    files = [
        np.lib.format.open_memmap(paths.FEATURES / f"{name}.npy", "w+", number_type, (count * _NOT_ZERO,))
        for name, number_type in (("indices", "<u2"), ("values", "<f4"))
    ]
    for number in range(count):
        row = slice(number * _NOT_ZERO, (number + 1) * _NOT_ZERO)
        files[0][row] = np.sort(random.choice(origin.feature_count, _NOT_ZERO, replace=False, shuffle=False))
        files[1][row] = random.exponential(size=_NOT_ZERO)
    np.save(paths.FEATURES / "offsets.npy", np.arange(count + 1) * _NOT_ZERO)


if __name__ == "__main__":
    main()
