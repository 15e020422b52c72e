"""The workspace's result → what explains it: suspects, a learning curve, where the evidence lies, people one by one."""

import os
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from celebflow import paths
from celebflow.classifier.fits import Fits, open_fits
from celebflow.classifier.subset_training import train_on_subsets
from celebflow.data.decoding import load_photograph
from celebflow.data.photos import Photo, list_people
from celebflow.errors import CelebflowError
from celebflow.evaluation.advice import Measured, is_overfit_network
from celebflow.evaluation.evidence import save_evidence, summarize_evidence
from celebflow.evaluation.person_sheets import build_sheets, compare_faults, find_faults
from celebflow.evaluation.quality import Quality, measure_quality
from celebflow.evaluation.results import Report, load_report
from celebflow.evaluation.suspects import save_suspects
from celebflow.experiments.learning import LearningReport, measure_learning_curve
from celebflow.experiments.lookup import load_for_recognition, require
from celebflow.experiments.recipes import load_recipe
from celebflow.experiments.suspect_labels import judge_labels, leave_out_confirmed
from celebflow.features.store import Features, select_split
from celebflow.inference.evidence import measure_evidence
from celebflow.inference.predictor import Predictor
from celebflow.params import Params
from celebflow.report.suspects_page import show_suspects
from celebflow.report.why_section import Occlusion, Why

_REPETITIONS = {"lda": 5, "logistic": 5}  # of a learning curve; a network takes long for one
_ALTERNATIVE = "fast"


def explain_result(fold_count: int) -> Why:
    """Measure what explains the workspace's result, and write the tables of it to reports.

    What cannot be measured is left out, and said.

    Raises CelebflowError when there is no result, or the task does not recognize people.
    """
    params, features = load_for_recognition("Results are explained")
    require(paths.CLASSIFIER, paths.HISTORY, paths.ALL_METRICS)
    paths.require_writable(paths.SUSPECTS, paths.EVIDENCE, paths.LEARNING_CURVE, paths.LEARNING_CURVE_FIGURE)
    report = load_report(paths.HISTORY, paths.ALL_METRICS, paths.REPORTS)
    fits = open_fits(features)
    predicted, found = judge_labels(params, features, fits, fold_count)
    suspects = leave_out_confirmed(found)
    save_suspects(suspects, paths.SUSPECTS)
    occlusions = _look_for_evidence(features)
    learning = _measure_learning(_REPETITIONS.get(params.train.classifier, 1))
    faults = find_faults(_measure_qualities(predicted.photos, features))
    evidence = [each.evidence for each in occlusions]
    measured = Measured(
        alternative_accuracy=_try_alternative(report, params, features, fits),
        suspects=suspects,
        photograph_count=len(predicted.photos),
        accuracy=predicted.accuracy,
        forecast=learning.curve.forecast if learning else None,
        gains=learning.gains if learning else {},
        evidence=summarize_evidence(evidence, len(predicted.class_names)) if evidence else None,
    )
    return Why(
        measured,
        show_suspects(suspects, features, paths.DATA),
        paths.LEARNING_CURVE_FIGURE.read_bytes() if learning else None,
        occlusions,
        compare_faults(predicted, faults),
        build_sheets(predicted, faults, suspects),
    )


def _look_for_evidence(features: Features) -> list[Occlusion]:
    try:
        occlusions = measure_evidence(Predictor.load(paths.CLASSIFIER.parent), features, paths.DATA)
    except CelebflowError as error:
        print(f"Where the evidence lies is left out: {error}")
        return []
    save_evidence([each.evidence for each in occlusions], paths.EVIDENCE)
    return occlusions


def _measure_learning(repetitions: int) -> LearningReport | None:
    try:
        return measure_learning_curve(repetitions, paths.LEARNING_CURVE_FIGURE)
    except CelebflowError as error:
        print(f"The learning curve is left out: {error}")
        return None


def _measure_qualities(photos: list[Photo], features: Features) -> list[Quality]:
    def measure(photo: Photo) -> Quality:
        photograph = load_photograph(paths.DATA / photo.path, photo.sha256)
        return measure_quality(photograph, features.subjects.get(photo.path), features.origin.transform)

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        progress = tqdm(workers.map(measure, photos), "measuring", len(photos), unit="photograph", disable=None)
        return list(progress)


def _try_alternative(report: Report, params: Params, features: Features, fits: Fits) -> float | None:
    """Return the accuracy on val of the discriminants of recipe fast, where a network overfits."""
    if not is_overfit_network(report, params.train.classifier):
        return None
    (result,) = train_on_subsets(features, load_recipe(_ALTERNATIVE).train, params.compute, fits, [1.0], 1)
    val = select_split(features, list_people(features.photos), "val")
    return float((result.logits.argmax(axis=1) == val.labels).mean())
