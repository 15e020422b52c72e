"""Pairs of files → whether each shows the same person, for people and for programs."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.pair_calibration import format_probability
from celebflow.data.decoding import decode_photograph
from celebflow.data.files import STANDARD_INPUT
from celebflow.data.formats import PhotographError, explain_refusal
from celebflow.data.given_pairs import read_pair_rows
from celebflow.data.tables import write_table
from celebflow.errors import CelebflowError, escape_controls, list_some
from celebflow.inference.pair_verifier import Answer, PairVerifier


@dataclass(frozen=True)
class PairAnswer:
    """Two files and, as in a Verdict, whether they show the same person; and how often such answers were wrong on val.

    Of val's pairs of two people, a fraction `false_match_rate` were called same; of its pairs of the same person, a
    fraction `false_non_match_rate` different.
    """

    first: str
    second: str
    answer: Answer
    probability: float | None
    log_odds: float | None
    false_match_rate: float
    false_non_match_rate: float


def list_pairs(photographs: Sequence[str], table: Path | None) -> list[tuple[str, str]]:
    """Return the pairs that the command line gives: each two photographs, then those of a CSV file.

    Raises CelebflowError when a photograph has no partner, or there is no pair.
    """
    if len(photographs) % 2:
        raise CelebflowError(f"{photographs[-1]} has no photograph to be compared with. Give photographs two by two.")
    pairs = list(zip(photographs[::2], photographs[1::2], strict=True))
    if (STANDARD_INPUT, STANDARD_INPUT) in pairs:
        raise CelebflowError(
            "Standard input (-) holds one photograph, which would be compared with itself. Give the other one as a "
            "file or as a pipe: <(COMMAND)."
        )
    if table is not None and str(table) == STANDARD_INPUT and STANDARD_INPUT in photographs:
        raise CelebflowError("Standard input (-) cannot be a photograph and the table of --pairs. Save one as a file.")
    if table is not None:
        pairs += read_pair_rows(table)
    if not pairs:
        raise CelebflowError("There is no pair. Give two photographs, or a CSV file of pairs by --pairs.")
    return pairs


def verify_pairs(
    pairs: Iterable[tuple[str, str]],
    read: Callable[[str], bytes],
    verifier: PairVerifier,
    refuse: Callable[[str, str], object],
    *,
    whole: bool = False,
    note_faces: Callable[[str], object] = lambda name: None,
) -> Iterator[PairAnswer]:
    """Compare the photographs of each pair, in their order; each photograph is read once.

    `refuse` gets the name of each file that is not a photograph, and the reason; its pairs have no answer. `note_faces`
    gets the name of each photograph with several faces, of which the subject's is compared.
    """
    known: dict[str, FloatArray | None] = {}
    refused: set[str] = set()
    for pair in pairs:
        for name in pair:
            if name in known or name in refused:
                continue
            try:
                face = verifier.extract(decode_photograph(read(name)), whole=whole)
            except (PhotographError, OSError) as error:
                refused.add(name)
                refuse(name, explain_refusal(error))
                continue
            known[name] = None if face is None else verifier.embed_faces([face])
            if face is not None and face.face_count > 1:
                note_faces(name)
        if refused & set(pair):
            continue
        verdict = verifier.compare(*(known[name] for name in pair))
        calibration = verifier.card.calibration
        rates = calibration.false_match_rate, calibration.false_non_match_rate
        yield PairAnswer(*pair, verdict.answer, verdict.probability, verdict.log_odds, *rates)


def describe_crowded(names: Sequence[str]) -> str:
    """Say of which photographs one face of several was compared."""
    return (
        f"Of several faces in a photograph, the most prominent was compared: {list_some(names)}. "
        "Crop those in which another one is meant."
    )


def format_table(answers: Sequence[PairAnswer]) -> str:
    """Return a table for people."""
    from tabulate import tabulate

    rows = [
        [
            answer.first,
            answer.second,
            answer.answer,
            "" if answer.log_odds is None else format_probability(answer.log_odds),
        ]
        for answer in answers
    ]
    rows = [[escape_controls(cell, keep="") for cell in row] for row in rows]
    headers = ["first", "second", "answer", "same person"]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=True))


def format_json(answers: Sequence[PairAnswer]) -> str:
    """Return a JSON array with an object for each pair."""
    return json.dumps([asdict(answer) for answer in answers], indent=2, ensure_ascii=False, allow_nan=False)


def format_csv(answers: Sequence[PairAnswer]) -> str:
    """Return a row for each pair."""
    file = io.StringIO()
    rows = ([*asdict(answer).values()] for answer in answers)
    write_table(file, [field.name for field in fields(PairAnswer)], rows)
    return file.getvalue().rstrip("\n")
