"""Send every photograph through the frozen convolutions, once."""

from celebflow import paths
from celebflow.data import load_photos
from celebflow.errors import run_to_exit
from celebflow.features import determine_origin, extract_missing, list_crops, open_cache, save_crops, save_features
from celebflow.params import load_params


def main() -> None:
    """Write features/ and reports/faces.csv."""
    params, photos = load_params(paths.PARAMS), load_photos(paths.PHOTOS)
    origin = determine_origin(paths.BACKBONE, params.extract, params.compute)
    with open_cache(paths.feature_cache(), origin) as cache:
        count = extract_missing(photos, paths.DATA, paths.BACKBONE, params.compute, cache)
        save_features(photos, cache, paths.FEATURES)
        save_crops(list_crops(photos, cache), paths.FACES)
    found, warning = len(photos) - count, origin.backbone.warning()
    print(f"{count} photographs extracted with {origin.runtime}, {found} found in the cache. {warning}")


if __name__ == "__main__":
    run_to_exit(main)
