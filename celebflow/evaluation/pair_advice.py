"""A result of verification → what to do next: few sentences, each computed, with its number and a command."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

from celebflow.evaluation.advice import MAX_SENTENCES, Advice, compute_excess_p_value, describe_small_val
from celebflow.evaluation.pair_results import SAME, PairPrediction, VerificationReport
from celebflow.evaluation.significance import CONFIDENCE

_LEAST_ERRORS = 3  # of a person, or of photographs without a face


def advise_on_pairs(report: VerificationReport, faces: Iterable[str], params: Mapping[str, object]) -> list[Advice]:
    """Return at most five pieces of advice on a result of verification, what is likely to help most first.

    `faces` are the paths of photographs in which a face was found; `params` are flat. Only val counts: test is for
    reporting. There is none where nothing is to say.
    """
    val = report.splits["val"]
    detects = params.get("extract.face.crop") == "detect"
    small = describe_small_val(val.intervals.get("accuracy"), f"{len(val.predictions)} pairs")
    found = [
        _advise_on_faceless(val.predictions, set(faces)) if detects else None,
        _advise_on_person(val.predictions),
        Advice(small, "Choose between recipes by pairs of more people.") if small else None,
    ]
    return [each for each in found if each is not None][:MAX_SENTENCES]


def _advise_on_faceless(predictions: Sequence[PairPrediction], faces: Set[str]) -> Advice | None:
    """Advise on photographs without a face, if pairs that hold one are wrong more often than the others."""
    faceless = [each for each in predictions if not {each.first, each.second} <= faces]
    wrong, all_wrong = _count_errors(faceless), _count_errors(predictions)
    others_wrong, other_count = all_wrong - wrong, len(predictions) - len(faceless)
    p_value = compute_excess_p_value(wrong, len(faceless), others_wrong, other_count)
    if wrong < _LEAST_ERRORS or not other_count or p_value > 1 - CONFIDENCE:
        return None
    photographs = {path for each in faceless for path in (each.first, each.second)} - faces
    return Advice(
        f"In {len(photographs)} photographs of val, no face was found: {wrong} of {len(faceless)} pairs with one are "
        f"wrong, and {others_wrong / other_count:.1%} of the others.",
        f"Remove those that show nobody, {min(photographs)} for one; in features/faces.csv, their rank is 0.",
    )


def _advise_on_person(predictions: Sequence[PairPrediction]) -> Advice | None:
    """Advise on the person whose own photographs are told apart more often than everybody else's."""
    same = [each for each in predictions if each.actual == SAME]
    counts = Counter(each.group for each in same)
    errors = Counter(each.group for each in same if not each.is_hit)
    total_wrong = sum(errors.values())
    ranked = [
        (compute_excess_p_value(wrong, counts[person], total_wrong - wrong, len(same) - counts[person]), person)
        for person, wrong in errors.items()
    ]
    if not ranked or len(counts) < 2:
        return None
    p_value, person = min(ranked)
    if errors[person] < _LEAST_ERRORS or p_value * len(counts) > 1 - CONFIDENCE:
        return None
    others_wrong, others_count = total_wrong - errors[person], len(same) - counts[person]
    return Advice(
        f"{person} is taken for two people more often than others are: in {errors[person]} of {counts[person]} pairs "
        f"of val ({errors[person] / counts[person]:.1%}), the others in {others_wrong} of {others_count} "
        f"({others_wrong / others_count:.1%}).",
        "Look at them under “one person taken for two”, and for photographs of somebody else in the folder.",
    )


def _count_errors(predictions: Sequence[PairPrediction]) -> int:
    return sum(not each.is_hit for each in predictions)
