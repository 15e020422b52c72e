"""What came of a review, and what to run next."""

from collections import Counter

from celebflow import paths
from celebflow.experiments.attribute_review import AttributeReview
from celebflow.experiments.confirmed import CONFIRMED_ATTRIBUTES
from celebflow.experiments.review import Review


def list_commands(review: Review | AttributeReview) -> list[str]:
    """Return what to run after the changes that nobody was told of yet; nothing where nothing has changed."""
    actions: set[str] = set(review.journal.untold.values())
    if not actions:
        return []
    changes_data = actions != {"keep"}
    files = [paths.DATA_RECORD.as_posix()] if changes_data else []
    if "keep" in actions:
        confirmed = CONFIRMED_ATTRIBUTES if isinstance(review, AttributeReview) else paths.CONFIRMED
        files.append(confirmed.as_posix())
    commit = f'git add {" ".join(files)} && git commit -m "Review of suspect labels"'
    return [f"dvc add {paths.DATA}", commit, "dvc repro"] if changes_data else [commit]


def format_summary(review: Review | AttributeReview) -> str:
    """Return what came of a review as text, with the commands to run."""
    if isinstance(review, AttributeReview):
        return _format_attribute_summary(review)
    journal = review.journal
    made = [each.action for number, each in journal.changes.items() if number in journal.untold]
    counts = Counter(made)
    text = f"Kept {counts['keep']}, moved {counts['move']}, deleted {counts['delete']}."
    text += _describe_rest(review, len(made))
    if counts["delete"]:
        text += f" What was deleted is in {paths.deleted().relative_to(paths.project())} until you remove it."
    return text + _describe_commands(review)


def _format_attribute_summary(review: AttributeReview) -> str:
    journal = review.journal
    made = [each.action for number, each in journal.changes.items() if number in journal.untold]
    counts = Counter(made)
    text = f"Kept {counts['keep']}, flipped {counts['flip']}, left blank {counts['blank']}."
    return text + _describe_rest(review, len(made)) + _describe_commands(review)


def _describe_rest(review: Review | AttributeReview, made_count: int) -> str:
    text = ""
    if undone_count := len(review.journal.untold) - made_count:
        text += f" Undone: {undone_count} of an earlier review."
    if waiting_count := sum(item.waits for item in review.items):
        text += f" Decided, but not applied: {waiting_count}; the next `celebflow review` has them."
    open_count = sum(item.listed and (item.change is None or item.change.action == "skip") for item in review.items)
    return f"{text} Still open: {open_count}."


def _describe_commands(review: Review | AttributeReview) -> str:
    commands = list_commands(review)
    return "\nNow run:\n" + "\n".join(f"  {command}" for command in commands) if commands else ""
