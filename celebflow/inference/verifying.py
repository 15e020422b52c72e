"""Pairs of photographs → whether they show the same person, with a trained verifier and its backbone."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from scipy.special import expit

from celebflow.backbone.vgg19 import count_features
from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.verifier import Verifier, format_probability, load_verifier
from celebflow.data.decoding import decode_photograph
from celebflow.data.formats import PhotographError
from celebflow.data.pairs import read_pair_rows
from celebflow.data.tables import write_table
from celebflow.errors import CelebflowError, escape_controls
from celebflow.features.sparse import SparseBatch
from celebflow.inference.extractor import Extractor, find_model_files


@dataclass(frozen=True)
class PairAnswer:
    """Whether two photographs show the same person.

    `probability` is that of the same person, with both answers equally likely before the photographs are seen, and
    `log_odds` are its log odds; both are None where no face was found.
    """

    first: str
    second: str
    answer: Literal["same", "different", "no face found"]
    probability: float | None
    log_odds: float | None


class PairVerifier:
    """A verifier with its backbone on the CPU, ready for photographs; its card holds all that it needs."""

    def __init__(self, verifier: Verifier, backbone_file: Path) -> None:
        self.card = verifier.card
        self._verifier = verifier
        self._extractor = Extractor(self.card.transform, self.card.backbone, backbone_file)

    @classmethod
    def load(cls, folder: Path) -> "PairVerifier":
        """Load the model in a folder, as find_model_files finds it.

        Raises CelebflowError when the folder holds no verifier.
        """
        verifier, backbone = find_model_files(folder)
        return cls(load_verifier(verifier), backbone)

    def embed(self, photograph: Image.Image, *, whole: bool = False) -> FloatArray | None:
        """Return the (1, D) coordinates of the subject of an RGB photograph, or None when no face is found in it."""
        faces = self._extractor.extract(photograph, 1, whole=whole)
        if not faces:
            return None
        count = count_features(self.card.transform.layers)
        return self._verifier.embed([SparseBatch.from_rows([view], count) for view in faces[0].views])

    def compare(self, first: FloatArray, second: FloatArray) -> float:
        """Return the log odds that the coordinates of two photographs are those of the same person."""
        return float(self.card.calibration.compute_log_odds(self._verifier.score(first, second))[0])


def list_pairs(photographs: Sequence[str], table: Path | None) -> list[tuple[str, str]]:
    """Return the pairs that the command line gives: each two photographs, then those of a CSV file.

    Raises CelebflowError when a photograph has no partner, or there is no pair.
    """
    if len(photographs) % 2:
        raise CelebflowError(f"{photographs[-1]} has no photograph to be compared with. Give photographs two by two.")
    pairs = list(zip(photographs[::2], photographs[1::2], strict=True))
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
) -> Iterator[PairAnswer]:
    """Compare the photographs of each pair, in their order; each photograph is read once.

    `refuse` gets the name of each file that is not a photograph, and the reason; its pairs have no answer.
    """
    known: dict[str, FloatArray | None] = {}
    refused: set[str] = set()
    for pair in pairs:
        for name in pair:
            if name in known or name in refused:
                continue
            try:
                known[name] = verifier.embed(decode_photograph(read(name)), whole=whole)
            except (PhotographError, OSError) as error:
                reason = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
                refused.add(name)
                refuse(name, reason)
        if refused & set(pair):
            continue
        first, second = (known[name] for name in pair)
        if first is None or second is None:
            yield PairAnswer(*pair, "no face found", None, None)
            continue
        log_odds = verifier.compare(first, second)
        yield PairAnswer(*pair, "same" if log_odds >= 0 else "different", float(expit(log_odds)), log_odds)


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
    write_table(file, ["first", "second", "answer", "probability", "log_odds"], rows)
    return file.getvalue().rstrip("\n")
