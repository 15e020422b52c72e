"""Find, check, group and split the photographs."""

from celebflow import paths
from celebflow.data import duplicates
from celebflow.data.preparation import prepare_photographs, report, save_left_out
from celebflow.params import load_params
from celebflow.tasks import TASKS, load_step
from stages import run_stage


def main() -> None:
    """Write splits/."""
    params, folder, checked = load_params(paths.PARAMS), paths.DATA, paths.checked_photographs()
    split, by_people = load_step(params.task, "split"), TASKS[params.task].folders_are_people
    prepared, left_out = prepare_photographs(folder, params.prepare, split, checked, folders_are_people=by_people)
    groups = duplicates.list_duplicate_groups(prepared.photos)
    leaks = duplicates.count_leaks(groups, prepared.photos, split, params.prepare, folder)
    prepared.save()
    save_left_out(left_out, paths.LEFT_OUT)
    duplicates.save_duplicates(groups, leaks, paths.DUPLICATES)
    report(prepared, left_out, duplicates.describe_duplicates(groups, leaks))


if __name__ == "__main__":
    run_stage(main, "What was left out is in splits/left_out.csv, what looks alike in splits/duplicates.csv.")
