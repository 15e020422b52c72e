"""Send every photograph through the frozen convolutions, once."""

from celebflow import paths
from celebflow.data.photos import load_photos
from celebflow.features import extraction, face_table, store
from celebflow.features.cache import open_cache
from celebflow.features.origin import determine_origin
from celebflow.params import load_params
from stages import run_stage


def main() -> None:
    """Write features/."""
    params, photos = load_params(paths.PARAMS), load_photos(paths.PHOTOS)
    origin = determine_origin(paths.BACKBONE, params.extract, params.compute)
    with open_cache(paths.feature_cache(), origin) as cache:
        count = extraction.extract_missing(photos, paths.DATA, paths.BACKBONE, params.compute, cache)
        store.save_features(photos, cache, paths.FEATURES)
        face_table.save_faces(extraction.collect_faces(photos, cache), paths.FACES)
    found, warning = len(photos) - count, origin.backbone.warning()
    print(f"{count} photographs extracted with {origin.runtime}, {found} found in the cache. {warning}")


if __name__ == "__main__":
    run_stage(main)
