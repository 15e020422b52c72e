"""Find, check, group and split the photographs."""

from celebflow import paths
from celebflow.data import duplicates, preparation
from celebflow.params import load_params
from celebflow.tasks import TASKS, load_step
from stages import run_stage


def main() -> None:
    """Write splits/."""
    params, folder = load_params(paths.PARAMS), paths.DATA
    split = load_step(params.task, "split")
    by_folder = TASKS[params.task].folders_are_people
    prepared, left_out = preparation.prepare_photographs(folder, params.prepare, split, folders_are_people=by_folder)
    groups = duplicates.list_duplicate_groups(prepared.photos)
    leaks = duplicates.count_leaks(groups, prepared.photos, split, params.prepare, folder)
    prepared.save()
    preparation.save_left_out(left_out, paths.LEFT_OUT)
    duplicates.save_duplicates(groups, leaks, paths.DUPLICATES)
    preparation.report(prepared, left_out, duplicates.describe_duplicates(groups, leaks))


if __name__ == "__main__":
    run_stage(main, "What was left out is in splits/left_out.csv, what looks alike in splits/duplicates.csv.")
