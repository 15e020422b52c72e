"""Find, check and split the photographs."""

from celebflow import paths
from celebflow.data import prepare_photographs, save_left_out, save_photos
from celebflow.errors import run_to_exit
from celebflow.params import load_params


def main() -> None:
    """Write splits/photos.csv and splits/left_out.csv."""
    params = load_params(paths.PARAMS)
    photos, left_out = prepare_photographs(paths.DATA, params.prepare)
    save_photos(photos, paths.PHOTOS)
    save_left_out(left_out, paths.LEFT_OUT)
    print(f"{len(photos)} photographs are ready; {len(left_out)} files are left out, listed in {paths.LEFT_OUT}.")


if __name__ == "__main__":
    run_to_exit(main)
