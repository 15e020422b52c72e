"""A verifier → the files of its result on the pairs of val and test, and of folds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from celebflow import paths
from celebflow.classifier.verifier import load_verifier
from celebflow.classifier.verifier_training import score_split
from celebflow.data.pairs import load_folds, load_pairs
from celebflow.evaluation.folds import FoldScores, score_folds
from celebflow.evaluation.pair_results import FOLDS, place_split, save_pair_report
from celebflow.evaluation.results import REPORTED_SPLITS, print_metrics, require_backbone
from celebflow.features.store import Features
from celebflow.params import ComputeParams


def evaluate_verifier(
    model_file: Path, features: Features, compute: ComputeParams, folder: Path
) -> dict[str, dict[str, float]]:
    """Evaluate the verifier in a file on the pairs of val and test, and by the k-fold protocol where there are folds.

    Writes the files of each to folder/<split>, those of the folds to folder/test/folds, and returns each one's metrics.
    `compute` is not used: scores are computed on the CPU.

    Raises CelebflowError when the verifier was trained on the features of another backbone.
    """
    verifier = load_verifier(model_file)
    require_backbone(verifier.card.backbone, features, "verifier")
    pairs = load_pairs(paths.PAIRS)
    metrics = {}
    for split in REPORTED_SPLITS:
        scores, _ = score_split(verifier, features, pairs, split)
        log_odds = verifier.card.calibration.compute_log_odds(scores)
        chosen = [pair for pair in pairs if pair.split == split]
        metrics[split] = save_pair_report(log_odds, chosen, features, place_split(folder, split))
    if fold_of := load_folds(paths.FOLDS):
        folds = score_folds(verifier.card, features, [pair for pair in pairs if pair.fold], fold_of)
        metrics[FOLDS] = _report_folds(folds, features, place_split(folder, FOLDS))
    for split, values in metrics.items():
        print_metrics(split, values)
    if warning := features.origin.backbone.warning():
        print(warning)
    return metrics


def _report_folds(folds: Sequence[FoldScores], features: Features, folder: Path) -> dict[str, float]:
    """Write the files of all folds together; the accuracy is the mean of the folds', with its standard error."""
    pairs = [pair for fold in folds for pair in fold.pairs]
    metrics = save_pair_report(np.concatenate([fold.log_odds for fold in folds]), pairs, features, folder)
    accuracies = [float(((fold.log_odds >= 0) == fold.same).mean()) for fold in folds]
    metrics["accuracy"] = float(np.mean(accuracies))
    metrics["standard_error"] = float(np.std(accuracies, ddof=1) / np.sqrt(len(accuracies)))
    return metrics
