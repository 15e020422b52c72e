"""Predict photographs of unknown people, and measure how well the threshold separates them from known people."""

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from celebflow.classifier.calibration import format_confidence
from celebflow.data.files import find_files, is_folder, read_file
from celebflow.data.layout import find_similar_names
from celebflow.errors import CelebflowError
from celebflow.evaluation.open_set import compute_auc, measure_interval
from celebflow.evaluation.results import PersonPrediction
from celebflow.evaluation.significance import Interval
from celebflow.inference.files import decode_in_batches
from celebflow.inference.predictor import Predictor
from celebflow.paths import write_whole
from celebflow.report.contact_sheets import Tile, draw_contact_sheet
from celebflow.report.figures import save_figure
from celebflow.report.style import ORANGE, spell
from celebflow.report.thumbnails import load_thumbnail

_DEFAULT_FOLDER = "data_unknown"
_MAX_TILES = 60
_RESOLUTION_DPI = 150


@dataclass(frozen=True)
class UnknownPrediction:
    """The prediction for a photograph of an unknown person, and whether it was taken for the one of that name."""

    photograph: str
    taken: bool
    name: str
    confidence: float
    unknown_p_value: float


@dataclass(frozen=True)
class OpenSetReport:
    """What became of photographs of unknown people, where a fraction `expected_rate` should be given a name.

    `accepted` of them were, which is the fraction `false_acceptance_rate`; its interval resamples people, each of
    whom is a folder. Of known people's photographs of test, the fraction `known_coverage` was not called unknown. `auc`
    is the fraction of pairs of a known and an unknown person's photograph in which the former matches better.
    `unreadable` lists the files left out, with reasons, and `known_names` the folders that have the names of people
    whom the classifier knows, however they are written. `faceless` are the photographs in which the detector found no
    face, and which count all the same. `known_files` are those of known people, by their bytes.
    """

    count: int
    people_count: int
    accepted: int
    expected_rate: float
    false_acceptance_rate: float
    interval: Interval
    known_coverage: float
    auc: float
    predictions: list[UnknownPrediction]
    unreadable: list[str]
    known_names: list[str]
    faceless: list[str]
    known_files: list[str]

    @property
    def taken(self) -> list[UnknownPrediction]:
        """Return the photographs that were taken for somebody, those that match best first."""
        return sorted((each for each in self.predictions if each.taken), key=lambda each: each.unknown_p_value)


def find_folder(unknown_folder: str | None) -> Path:
    """Return where photographs of unknown people are when nobody says so, given prepare.unknown_folder.

    Raises CelebflowError when there is no such folder.
    """
    folder = unknown_folder or _DEFAULT_FOLDER
    if not is_folder(folder):
        named = "as prepare.unknown_folder says" if unknown_folder else "where prepare.unknown_folder names none"
        raise CelebflowError(
            f"{folder} is not a folder. It holds the photographs of unknown people, {named}. Name their folder: "
            "celebflow openset FOLDER."
        )
    return Path(folder)


def measure_open_set(
    folder: Path, predictor: Predictor, known: Sequence[PersonPrediction], known_sha256s: Set[str] = frozenset()
) -> OpenSetReport:
    """Predict every photograph in `folder`, at any depth, and compare with the predictions for known people.

    `known_sha256s` are those of known people's photographs.

    Raises CelebflowError when there is no photograph, or the classifier calls nobody unknown.
    """
    calibration, gallery = predictor.card.calibration, predictor.classifier.gallery
    known_p_values = np.array([each.unknown_p_value for each in known if each.unknown_p_value is not None])
    if calibration.threshold is None or gallery is None or not len(known_p_values):
        raise CelebflowError(
            "The classifier calls nobody unknown: it was trained on fewer than three people, or on photographs that do "
            "not tell them apart."
        )
    files, _ = find_files(folder)
    predictions: list[UnknownPrediction] = []
    unreadable: list[str] = []
    faceless: list[str] = []
    known_files: list[str] = []

    def read(file: str) -> bytes:
        content = read_file(folder / file)
        if hashlib.sha256(content).hexdigest() in known_sha256s:
            known_files.append(file)
        return content

    def refuse(file: str, reason: str) -> None:
        unreadable.append(f"{folder / file}: {reason}")

    progress = tqdm(files, "predicting", unit="photograph", disable=None)
    for batch in decode_in_batches(progress, read, refuse):
        faces = predictor.predict_faces([photograph for _, photograph in batch], 1, whole=True)
        # Without a name for the photographs: the last one would stay in memory while the next batch is read.
        for file, (face,) in zip([name for name, _ in batch], faces, strict=True):
            if face.face is None and predictor.card.transform.detects_faces:
                faceless.append(file)
            person = int(face.probabilities.argmax())
            name, confidence = predictor.card.class_names[person], float(face.probabilities[person])
            predictions.append(UnknownPrediction(file, face.known, name, confidence, face.unknown_p_value or 0.0))
    if not predictions:
        raise CelebflowError(
            f"{folder} holds no photograph. Put photographs of people there whom the classifier was not trained on."
        )
    # The folders in `folder`, with all photographs in them at any depth; those that are in none count as one person.
    people = [each.photograph.rpartition("/")[0].partition("/")[0] for each in predictions]
    p_values = np.array([each.unknown_p_value for each in predictions])
    (of_threshold,) = gallery.left_out.compute_p_values(np.array([calibration.threshold]))
    accepted = np.array([each.taken for each in predictions])
    return OpenSetReport(
        count=len(predictions),
        people_count=len(set(people)),
        accepted=int(accepted.sum()),
        expected_rate=calibration.false_acceptance_rate,
        false_acceptance_rate=float(accepted.mean()),
        interval=measure_interval(accepted, people),
        known_coverage=float((known_p_values <= of_threshold).mean()),
        auc=compute_auc(-known_p_values, -p_values),
        predictions=predictions,
        unreadable=unreadable,
        known_names=sorted(find_similar_names(set(people), predictor.card.class_names)),
        faceless=faceless,
        known_files=known_files,
    )


def save_taken(report: OpenSetReport, folder: Path, warning: str, file: Path) -> None:
    """Draw what draw_taken does into a PNG file."""
    with write_whole(file) as part:
        save_figure(draw_taken(report, folder, warning), _RESOLUTION_DPI, part)


def draw_taken(report: OpenSetReport, folder: Path, warning: str) -> Figure:
    """Draw the photographs of unknown people who were taken for somebody, with that name, the best match first."""
    tiles = []
    for each in report.taken[:_MAX_TILES]:
        caption = f"taken for {spell(each.name)}\nconfidence {format_confidence(each.confidence)}"
        tiles.append(Tile(load_thumbnail(folder / each.photograph, None), caption, ORANGE))
    title = f"Unknown people who were given a name: {len(tiles)} of {report.accepted}, the best match first"
    return draw_contact_sheet(title, [("", tiles)], warning)
