"""The workspace's photographs whose labels may be wrong → a table and a page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from celebflow import paths
from celebflow.classifier.fits import Fits, open_fits
from celebflow.classifier.gallery import fit_gallery
from celebflow.classifier.out_of_fold import OutOfFold
from celebflow.classifier.out_of_fold_training import predict_out_of_fold
from celebflow.evaluation.suspects import Suspect, find_suspects, save_suspects
from celebflow.experiments.confirmed import ConfirmedLabel, load_confirmed
from celebflow.experiments.lookup import load_for_recognition
from celebflow.features.store import Features, select_split
from celebflow.params import Params
from celebflow.report.suspects_page import render_suspects


@dataclass(frozen=True)
class LabelCheck:
    """The suspects among `count` photographs, and the accuracy out of fold of those that were judged.

    `count_of` counts the photographs of each person, and `confirmed_count` those that would be suspects, had nobody
    confirmed their labels.
    """

    suspects: list[Suspect]
    count: int
    accuracy: float
    count_of: dict[str, int]
    unjudged_count: int = 0
    confirmed_count: int = 0


def check_labels(fold_count: int, page: Path) -> LabelCheck:
    """Find the workspace's suspects by its recipe, and write reports/suspects.csv and a page of them.

    Labels that somebody has confirmed are left out, and counted.

    Raises CelebflowError when there are no features, or the task does not recognize people.
    """
    params, features = load_for_recognition("Suspect labels are found")
    paths.require_writable(paths.SUSPECTS, page)
    predicted, found = judge_labels(params, features, open_fits(features), fold_count)
    suspects = leave_out_confirmed(found)
    save_suspects(suspects, paths.SUSPECTS)
    count = len(predicted.photos)
    with paths.write_whole(page) as part:
        part.write_text(render_suspects(suspects, count, features, paths.DATA), encoding="utf-8")
    return LabelCheck(
        suspects,
        count,
        predicted.accuracy,
        count_of=dict(Counter(photo.person for photo in predicted.photos)),
        unjudged_count=int((~predicted.judged).sum()),
        confirmed_count=len(found) - len(suspects),
    )


def judge_labels(params: Params, features: Features, fits: Fits, fold_count: int) -> tuple[OutOfFold, list[Suspect]]:
    """Predict all photographs out of fold by the recipe, and return this and the suspects, confirmed ones included."""
    predicted = predict_out_of_fold(features, params.train, params.compute, fits, fold_count, share_preprocessor=True)
    names = predicted.class_names
    train = select_split(features, names, "train")
    gallery = fit_gallery(train, len(names), params.train.plda_between_scale, params.train.seed, fits)
    rows = features.locate(photo.path for photo in predicted.photos)
    return predicted, find_suspects(predicted, None if gallery is None else gallery.embed_rows(features, rows))


def leave_out_confirmed(suspects: Sequence[Suspect]) -> list[Suspect]:
    """Return the suspects whose labels nobody has confirmed."""
    confirmed = load_confirmed(paths.CONFIRMED)
    return [each for each in suspects if ConfirmedLabel(each.sha256, each.person) not in confirmed]


def format_check(check: LabelCheck, max_suspects: int) -> str:
    """Return the surest suspects as text, at most `max_suspects`; -1 lists all."""
    share = f"{len(check.suspects)} of {check.count} labels are suspect ({len(check.suspects) / check.count:.1%})."
    text = f"{share} Accuracy of the predictions without the photograph itself: {check.accuracy:.4f}."
    if check.unjudged_count:
        text += f" Not judged: {check.unjudged_count}, whose people have near-duplicates alone."
    if check.confirmed_count:
        text += f" Left out: {check.confirmed_count}, whose labels were confirmed ({paths.CONFIRMED})."
    if not check.suspects:
        return text
    shown = check.suspects if max_suspects < 0 else check.suspects[:max_suspects]
    parts = [text, _format_suspects(shown), _format_people(check)]
    if hidden_count := len(check.suspects) - len(shown):
        parts[1] += f"\nand {hidden_count} more; --limit -1 lists all"
    return "\n\n".join(part for part in parts if part)


def _format_suspects(suspects: Sequence[Suspect]) -> str:
    rows = [[each.path, each.likelier, f"{each.probability_of_likelier:.1%}", each.split] for each in suspects]
    return str(
        tabulate(rows, ["suspect", "looks like", "probability", "split"], tablefmt="plain", disable_numparse=True)
    )


def _format_people(check: LabelCheck) -> str:
    """Return a table of the people in whose folders there are several suspects, the most first."""
    counts = Counter(suspect.person for suspect in check.suspects)
    rows = [[person, count, check.count_of[person]] for person, count in counts.most_common() if count > 1]
    headers = ["in the folder of", "suspects", "photographs"]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=[0])) if rows else ""
