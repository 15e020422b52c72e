"""Find, check, group and split the photographs."""

from celebflow import paths
from celebflow.data import duplicates, layout, photos, preparation
from celebflow.params import load_params
from stages import run_stage


def main() -> None:
    """Write splits/."""
    params = load_params(paths.PARAMS)
    prepared, left_out = preparation.prepare_photographs(paths.DATA, params.prepare)
    groups = duplicates.list_duplicate_groups(prepared)
    leaks = duplicates.count_leaks(groups, prepared, params.prepare)
    photos.save_photos(prepared, paths.PHOTOS)
    preparation.save_left_out(left_out, paths.LEFT_OUT)
    duplicates.save_duplicates(groups, leaks, paths.DUPLICATES)
    print(f"{len(prepared)} photographs are ready. {len(left_out)} files are left out, see {paths.LEFT_OUT}.")
    print(duplicates.describe_duplicates(groups, leaks))
    for note in layout.list_notes(photo.path for photo in prepared):
        print(note)


if __name__ == "__main__":
    run_stage(main)
