"""Send every photograph through the frozen convolutions, once."""

from celebflow import paths
from celebflow.backbone import load_backbone
from celebflow.data import load_photos
from celebflow.errors import run_to_exit
from celebflow.features import extract_missing, open_cache, save_features
from celebflow.images import Transform
from celebflow.params import load_params


def main() -> None:
    """Write features/."""
    params = load_params(paths.PARAMS)
    photos, transform = load_photos(paths.PHOTOS), Transform(params.extract.image_size_px)
    backbone = load_backbone(paths.BACKBONE, params.compute.device)
    with open_cache(paths.feature_cache(), transform, backbone.source.fingerprint) as cache:
        count = extract_missing(photos, paths.DATA, backbone, transform, cache)
        save_features(photos, cache, backbone.source, transform, paths.FEATURES)
    print(f"{count} photographs extracted, {len(photos) - count} found in the cache. {backbone.source.warning()}")


if __name__ == "__main__":
    run_to_exit(main)
