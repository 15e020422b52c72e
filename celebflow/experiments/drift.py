"""The photographs in a folder beside those of train → whether they look alike, a table, text and a sheet."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from celebflow import paths
from celebflow.classifier.calibration import format_confidence
from celebflow.classifier.cards import UNCHANGED
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.vectors import Vectors, draw_sample
from celebflow.data.photos import Photo
from celebflow.data.tables import write_table
from celebflow.errors import CelebflowError, escape_controls
from celebflow.evaluation.drift import SampleComparison, compare_samples
from celebflow.evaluation.metrics import Fraction, measure_fraction
from celebflow.evaluation.results import PersonPrediction
from celebflow.experiments.lookup import find_person_predictions, require
from celebflow.experiments.results import WORKSPACE
from celebflow.features.sparse import SparseRow
from celebflow.features.store import Features, load_features
from celebflow.inference.extractor import Extractor
from celebflow.inference.new_photographs import NewPhotograph, NewPhotographs, read_new_photographs
from celebflow.inference.predictor import Predictor
from celebflow.params import Params, load_params
from celebflow.report.contact_sheets import Tile, draw_contact_sheet
from celebflow.report.figures import save_figure
from celebflow.report.style import BLUE, ORANGE, spell
from celebflow.report.thumbnails import load_crop
from celebflow.tasks import TASKS

MIN_PHOTOGRAPHS = 10  # on each side: of fewer, no test says much
_MAX_TRAIN = 1000  # photographs, whose inner products with as many new ones take a second
_SEED = 0
# Nothing in it is fitted to train, beside which new photographs would look different because they are new.
_PREPROCESSING = UNCHANGED.model_copy(update={"square_root": True, "l2_normalize": True})
_MAX_TILES = 20  # of each side: two lines
_RESOLUTION_DPI = 150


@dataclass(frozen=True)
class ComparedPhotograph:
    """A new photograph: how new it looks, whether it has a face, and what the classifier predicts.

    `face` is None where the recipe detects none, and the prediction where no classifier predicts people. `unknown` is
    whether the photograph is called unknown, and None where nobody is.
    """

    path: str
    score: float
    face: bool | None
    predicted: str | None
    confidence: float | None
    unknown: bool | None


@dataclass(frozen=True)
class DriftReport:
    """Whether new photographs look like those of train, of which `train_count` were compared with them.

    `within_people` tells whether each was compared with photographs of its person alone. `auc` is the fraction of pairs
    of a new photograph and one of train that a classifier tells apart, which has not seen them, and `beyond` the
    fraction of new ones that look newer than 95% of train; `p_value` is the probability of as much by chance.
    `photographs` are the new ones, those that differ most first.

    `unknown` is the fraction of them that is called unknown, `unknown_in_test` that of the test split, `faceless` and
    `faceless_in_train` those without a face; None where nobody is unknown, or the recipe detects no faces.

    `known_count` photographs in the folder were those of train, and `duplicate_count` near-duplicates of others.
    """

    differs: bool
    auc: float
    beyond: Fraction
    p_value: float
    within_people: bool
    train_count: int
    unknown: Fraction | None
    unknown_in_test: Fraction | None
    faceless: Fraction | None
    faceless_in_train: Fraction | None
    known_count: int
    duplicate_count: int
    unreadable: list[str]
    photographs: list[ComparedPhotograph]


@dataclass(frozen=True, eq=False)
class DriftCheck:
    """A report, and what its sheet shows: the photographs of train that look least new, and the faces of new ones."""

    report: DriftReport
    folder: Path
    features: Features
    typical: list[Photo]
    new: dict[str, NewPhotograph]


def check_drift(folder: Path, max_count: int) -> DriftCheck:
    """Compare up to `max_count` new photographs in `folder`, at any depth, with those of train.

    Raises CelebflowError when the workspace has no result, or there are too few photographs.
    """
    require(paths.FEATURES)
    params, features = load_params(paths.PARAMS), load_features(paths.FEATURES, paths.PHOTOS)
    train = [features.photos[row] for row in features.find_rows("train")]
    source, test = _open_source(params, features)
    found = read_new_photographs(
        folder, source, {photo.sha256 for photo in train}, max_count, params.prepare.duplicate_distance_bits
    )
    _require_enough(found, folder)
    apart = _keep_one_of_each_group(train)
    people = _name_people(found.photographs, apart) if TASKS[params.task].folders_are_people else None
    if people is not None:
        apart = [photo for photo in apart if photo.person in people]
    if len(apart) < MIN_PHOTOGRAPHS:
        of_people = "" if people is None else f" of the people in {folder}"
        raise CelebflowError(
            f"Train has {len(apart)} photographs{of_people} to compare with, and {MIN_PHOTOGRAPHS} are needed."
        )
    compared_train = [apart[position] for position in draw_sample(len(apart), _MAX_TRAIN, _SEED)]
    if people is not None and not set(people) <= {photo.person for photo in compared_train}:
        people = None  # of too many people, the sample lacks some
    comparison = _compare(features, compared_train, found.photographs, people)
    names = source.card.class_names if isinstance(source, Predictor) else ()
    detects_faces = features.origin.transform.detects_faces
    of_train, of_new = np.split(comparison.scores, [len(compared_train)])
    compared = [
        _describe(each, score, names, detects_faces)
        for each, score in zip(found.photographs, of_new.tolist(), strict=True)
    ]
    report = DriftReport(
        differs=comparison.differs,
        auc=comparison.auc,
        beyond=comparison.beyond,
        p_value=comparison.p_value,
        within_people=people is not None,
        train_count=len(compared_train),
        unknown=_count([each.unknown for each in compared]),
        unknown_in_test=_count(_judge_test(source, test)) if isinstance(source, Predictor) else None,
        faceless=_count([None if each.face is None else not each.face for each in compared]),
        faceless_in_train=_count([photo.path not in features.subjects if detects_faces else None for photo in train]),
        known_count=found.known_count,
        duplicate_count=found.duplicate_count,
        unreadable=found.unreadable,
        photographs=sorted(compared, key=lambda each: (-each.score, each.path)),
    )
    typical = [compared_train[position] for position in np.argsort(of_train, kind="stable")]
    return DriftCheck(report, folder, features, typical, {each.path: each for each in found.photographs})


def _open_source(params: Params, features: Features) -> tuple[Predictor | Extractor, list[PersonPrediction]]:
    """Return what computes features as train has them: the classifier, where one predicts people, and its test split.

    Raises CelebflowError when the classifier was trained on other features.
    """
    origin = features.origin
    if params.task != "recognition":
        require(paths.BACKBONE)
        return Extractor(origin.transform, origin.backbone, paths.BACKBONE), []
    test = find_person_predictions(WORKSPACE, "test")
    predictor = Predictor.load(paths.CLASSIFIER.parent)
    if (predictor.card.backbone.fingerprint, predictor.card.transform) != (
        origin.backbone.fingerprint,
        origin.transform,
    ):
        raise CelebflowError(
            f"{paths.CLASSIFIER} was trained on other features than those in {paths.FEATURES}. Run `dvc repro`."
        )
    return predictor, test


def _require_enough(found: NewPhotographs, folder: Path) -> None:
    count = len(found.photographs)
    if count >= MIN_PHOTOGRAPHS:
        return
    left_out = {
        f"{len(found.unreadable)} files that are no readable photographs": found.unreadable,
        f"{found.known_count} photographs of train itself": found.known_count,
        f"{found.duplicate_count} near-duplicates of others": found.duplicate_count,
    }
    beside = " and ".join(text for text, count in left_out.items() if count)
    first = f" The first: {escape_controls(found.unreadable[0], keep='')}." if found.unreadable else ""
    raise CelebflowError(
        f"{folder} holds {count} new photographs{f', beside {beside}' if beside else ''}. Whether they look like "
        f"those of train cannot be told from fewer than {MIN_PHOTOGRAPHS}.{first}"
    )


def _keep_one_of_each_group(photos: Sequence[Photo]) -> list[Photo]:
    """Return the first of all near-duplicates: the test takes photographs for independent."""
    first_of: dict[str, Photo] = {}
    for photo in photos:
        first_of.setdefault(photo.group, photo)
    return list(first_of.values())


def _name_people(new: Sequence[NewPhotograph], train: Sequence[Photo]) -> list[str] | None:
    """Return the person of each photograph by its folder, or None where some are in no folder of a person of train."""
    people = [each.path.partition("/")[0] for each in new]
    return people if set(people) <= {photo.person for photo in train} else None


def _compare(
    features: Features, train: Sequence[Photo], new: Sequence[NewPhotograph], people: Sequence[str] | None
) -> SampleComparison:
    """Compare train's photographs with the new ones, which are in this order; within people, where they are known."""
    rows = [
        row for place in features.locate(photo.path for photo in train) for row in _list_views(features, int(place))
    ]
    rows += [view for each in new for view in each.views]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row.indices) for row in rows], out=offsets[1:])
    pooled = Features(
        offsets,
        np.concatenate([row.indices for row in rows]),
        np.concatenate([row.values for row in rows]),
        [*train, *(Photo(each.path, "", "", each.sha256, each.sha256) for each in new)],
        features.origin,
        subjects={},
    )
    count = len(pooled.photos)
    preprocessor = Preprocessor(_PREPROCESSING, features.origin.feature_count)
    products = Vectors(preprocessor, pooled, np.arange(count)).compute_products()
    strata: NDArray[np.int64] = np.zeros(count, np.int64)
    if people is not None:
        strata = np.unique([*(photo.person for photo in train), *people], return_inverse=True)[1]
    return compare_samples(products, np.arange(count) >= len(train), strata)


def _list_views(features: Features, row: int) -> list[SparseRow]:
    edges = features.offsets[row * features.view_count : (row + 1) * features.view_count + 1].tolist()
    return [SparseRow(features.indices[start:stop], features.values[start:stop]) for start, stop in pairwise(edges)]


def _describe(new: NewPhotograph, score: float, names: Sequence[str], detects_faces: bool) -> ComparedPhotograph:
    """Put a new photograph's score beside what is predicted of it; `names` are those of the classifier's people."""
    face = new.face is not None if detects_faces else None
    predicted = new.predicted
    if predicted is None:
        return ComparedPhotograph(new.path, score, face, None, None, None)
    person = int(predicted.probabilities.argmax())
    unknown = None if predicted.match is None else not predicted.known
    return ComparedPhotograph(new.path, score, face, names[person], float(predicted.probabilities[person]), unknown)


def _judge_test(predictor: Predictor, test: Sequence[PersonPrediction]) -> list[bool | None]:
    """Return for one photograph of each group of the test split whether it is called unknown, None where nobody is."""
    gallery, threshold = predictor.classifier.gallery, predictor.card.calibration.threshold
    first_of = {each.group: each for each in reversed(test)}
    p_values = [each.unknown_p_value for each in first_of.values()]
    if gallery is None or threshold is None:
        return [None for _ in p_values]
    (of_threshold,) = gallery.left_out.compute_p_values(np.array([threshold]))
    return [None if p_value is None else bool(p_value > of_threshold) for p_value in p_values]


def _count(judged: Sequence[bool | None]) -> Fraction | None:
    """Return the fraction that is true, or None where that is not known of all, or of none."""
    known = [each for each in judged if each is not None]
    return measure_fraction(sum(known), len(known)) if known and len(known) == len(judged) else None


def format_drift(report: DriftReport, max_photographs: int) -> str:
    """Return the report as text, with at most `max_photographs` photographs; -1 lists all."""
    sentences = [_format_answer(report), _format_comparison(report)]
    if report.differs and not report.within_people:
        sentences.append(
            "Who is shown counts, too: photographs of other people, or of some more often, look different."
        )
    sentences.append(f"{_format_fraction(report.beyond)} look newer than 95% of train; by chance, 5% do.")
    sentences.append(_format_fractions("would be called unknown", report.unknown, "of test", report.unknown_in_test))
    sentences.append(_format_fractions("have no face", report.faceless, "of train", report.faceless_in_train))
    text = "\n".join(sentence for sentence in sentences if sentence)
    shown = report.photographs if max_photographs < 0 else report.photographs[:max_photographs]
    if not shown:
        return text
    text += f"\n\n{_format_photographs(shown)}"
    if hidden_count := len(report.photographs) - len(shown):
        text += f"\nand {hidden_count} more; --limit -1 lists all"
    return text


def _format_answer(report: DriftReport) -> str:
    if report.differs:
        return "The new photographs look different from those of train."
    return "No difference of the new photographs from those of train was found."


def _format_comparison(report: DriftReport) -> str:
    within = ", each with those of its person alone" if report.within_people else ""
    left_out = [
        f"{count} {what}"
        for count, what in (
            (report.known_count, "of train itself"),
            (report.duplicate_count, "near-duplicates of others"),
        )
        if count
    ]
    beside = f" Left out: {' and '.join(left_out)}." if left_out else ""
    return (
        f"{len(report.photographs)} new photographs were compared with {report.train_count} of train{within}: AUC "
        f"{report.auc:.3f}, where 0.5 is chance (p = {report.p_value:.3f}).{beside}"
    )


def _format_fractions(what: str, new: Fraction | None, of_others: str, others: Fraction | None) -> str:
    if new is None:
        return ""
    text = f"{_format_fraction(new)} {what}"
    return f"{text}; {of_others}, {_format_fraction(others)}." if others is not None else f"{text}."


def _format_fraction(fraction: Fraction) -> str:
    interval = fraction.interval
    return (
        f"{fraction.hits} of {fraction.count} ({fraction.value:.1%}, 95% interval {interval.low:.1%} to "
        f"{interval.high:.1%})"
    )


def _format_photographs(shown: Sequence[ComparedPhotograph]) -> str:
    has_people = any(each.predicted is not None for each in shown)
    rows = []
    for each in shown:
        row = [each.path, f"{each.score:+.3f}"]
        if each.predicted is not None and each.confidence is not None:
            name = f"unknown ({each.predicted}?)" if each.unknown else each.predicted
            row += [name, format_confidence(each.confidence)]
        row.append("no face found" if each.face is False else "")
        rows.append([escape_controls(cell, keep="") for cell in row])
    headers = ["differs most", "score", *(["predicted", "confidence"] if has_people else []), ""]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=True))


def format_csv(report: DriftReport) -> str:
    """Return CSV with a row for each new photograph; the one that differs most comes first."""
    names = [field.name for field in fields(ComparedPhotograph)]
    cells = ([getattr(each, name) for name in names] for each in report.photographs)
    file = io.StringIO()
    write_table(file, names, ([str(cell).lower() if isinstance(cell, bool) else cell for cell in row] for row in cells))
    return file.getvalue().rstrip("\n")


def save_sheet(check: DriftCheck, file: Path) -> None:
    """Draw the new photographs that differ most above those of train that look least new, as the network sees them.

    Raises CelebflowError when a photograph has changed meanwhile.
    """
    transform, subjects = check.features.origin.transform, check.features.subjects
    new = [
        Tile(
            load_crop(check.folder / each.path, check.new[each.path].sha256, transform, check.new[each.path].face),
            f"{escape_controls(Path(each.path).name, keep='')}\n{each.score:+.3f}",
            ORANGE,
        )
        for each in check.report.photographs[:_MAX_TILES]
    ]
    typical = [
        Tile(
            load_crop(paths.DATA / photo.path, photo.sha256, transform, subjects.get(photo.path)),
            spell(photo.person) or Path(photo.path).name,
            BLUE,
        )
        for photo in check.typical[:_MAX_TILES]
    ]
    rows = [("New photographs that differ most", new), ("Photographs of train that look least new", typical)]
    figure = draw_contact_sheet(_format_answer(check.report), rows, check.features.origin.backbone.warning())
    with paths.write_whole(file) as part:
        save_figure(figure, _RESOLUTION_DPI, part)
