"""Find, check, group and split the photographs."""

from celebflow import data, paths
from celebflow.contact_sheets import draw_duplicates
from celebflow.errors import run_to_exit
from celebflow.params import load_params


def main() -> None:
    """Write splits/, reports/duplicates.csv and reports/duplicates.png."""
    params = load_params(paths.PARAMS)
    photos, left_out = data.prepare_photographs(paths.DATA, params.prepare)
    groups = data.list_duplicate_groups(photos, params.prepare)
    data.save_photos(photos, paths.PHOTOS)
    data.save_left_out(left_out, paths.LEFT_OUT)
    data.save_duplicates(groups, paths.DUPLICATES)
    draw_duplicates(groups, paths.DATA).savefig(paths.DUPLICATES_SHEET, dpi=110)
    print(f"{len(photos)} photographs are ready; {len(left_out)} files are left out, listed in {paths.LEFT_OUT}.")
    print(data.describe_duplicates(groups))


if __name__ == "__main__":
    run_to_exit(main)
