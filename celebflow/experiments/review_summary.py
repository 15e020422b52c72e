"""What came of a review, and what to run next."""

from collections import Counter

from celebflow import paths
from celebflow.experiments.review import Review


def list_commands(review: Review) -> list[str]:
    """Return what to run after the changes that nobody was told of yet; nothing where nothing has changed."""
    actions = set(review.journal.untold.values())
    if not actions:
        return []
    files = [paths.DATA_RECORD.as_posix()] if actions & {"move", "delete"} else []
    if "keep" in actions:
        files.append(paths.CONFIRMED.as_posix())
    commit = f'git add {" ".join(files)} && git commit -m "Review of suspect labels"'
    return [f"dvc add {paths.DATA}", commit, "dvc repro"] if actions & {"move", "delete"} else [commit]


def format_summary(review: Review) -> str:
    """Return what came of a review as text, with the commands to run."""
    journal = review.journal
    made = [each.action for number, each in journal.changes.items() if number in journal.untold]
    counts = Counter(made)
    text = f"Kept {counts['keep']}, moved {counts['move']}, deleted {counts['delete']}."
    if undone_count := len(journal.untold) - len(made):
        text += f" Undone: {undone_count} of an earlier review."
    if waiting_count := sum(item.waits for item in review.items):
        text += f" Decided, but not applied: {waiting_count}; the next `celebflow review` has them."
    open_count = sum(item.listed and (item.change is None or item.change.action == "skip") for item in review.items)
    text += f" Still open: {open_count}."
    if counts["delete"]:
        text += f" What was deleted is in {paths.deleted().relative_to(paths.project())} until you remove it."
    if commands := list_commands(review):
        text += "\nNow run:\n" + "\n".join(f"  {command}" for command in commands)
    return text
