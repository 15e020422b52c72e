"""Find, check, group and split the photographs."""

from celebflow import paths
from celebflow.data import duplicates
from celebflow.data.preparation import prepare_photographs, report, save_left_out
from celebflow.params import load_params
from celebflow.tasks import TASKS, load_step
from stages import run_stage


def main() -> None:
    """Write splits/."""
    params, data, known = load_params(paths.PARAMS), paths.DATA, paths.checked_photographs()
    split, people = load_step(params.task, "split"), TASKS[params.task].folders_are_people
    made, left_out = prepare_photographs(data, params.prepare, split, known, params.compute, folders_are_people=people)
    groups = duplicates.list_duplicate_groups(made.photos)
    leaks = duplicates.count_leaks(groups, made.photos, split, params.prepare, data)
    made.save()
    save_left_out(left_out, paths.LEFT_OUT)
    duplicates.save_duplicates(groups, leaks, paths.DUPLICATES)
    report(made, left_out, duplicates.describe_duplicates(groups, leaks))


if __name__ == "__main__":
    run_stage(main, "What was left out is in splits/left_out.csv, what looks alike in splits/duplicates.csv.")
