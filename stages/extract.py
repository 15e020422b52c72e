"""Compute the features of every photograph that the cache lacks."""

from celebflow import paths
from celebflow.data.photos import load_photos
from celebflow.features import cache, extraction, face_table, store
from celebflow.features.origin import determine_origin
from celebflow.params import load_params
from stages import run_stage


def main() -> None:
    """Write features/."""
    params = load_params(paths.PARAMS)
    photos = load_photos(paths.PHOTOS)
    origin = determine_origin(paths.BACKBONE, params.extract, params.compute)
    with cache.open_cache(paths.feature_cache(), origin) as cached:
        count = extraction.extract_missing(photos, paths.DATA, paths.BACKBONE, params.compute, cached)
        store.save_features(photos, cached, paths.FEATURES)
        faces = extraction.collect_faces(photos, cached)
        face_table.save_faces(faces, paths.FACES)
    extraction.report(count, photos, origin, faces)


if __name__ == "__main__":
    run_stage(main, "Features are kept in .celebflow: only new photographs, or a change of extract.*, take time again.")
