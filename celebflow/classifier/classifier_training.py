"""Train a classifier on the people of train, and calibrate it on val."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from celebflow.backbone.devices import select_device
from celebflow.classifier.calibration import UNCALIBRATED, Calibration, fit_probabilities
from celebflow.classifier.cards import ClassifierCard
from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.discriminants import fit_discriminant
from celebflow.classifier.gallery import LeftOutMatches, fit_gallery
from celebflow.classifier.history import EpochResult
from celebflow.classifier.model import Classifier
from celebflow.classifier.network import make_linear
from celebflow.classifier.projection import fit_preprocessor
from celebflow.classifier.training import (
    compute_logits,
    fit,
    measure_only_epoch,
    require_finite_weights,
    seed_everything,
)
from celebflow.data.photos import list_people
from celebflow.features.store import Features, LabeledFeatures, select_split
from celebflow.params import ComputeParams, TrainParams


@dataclass(frozen=True)
class CrossEntropy:
    """The objective of people: the cross-entropy, with (people,) weights or None, and label smoothing."""

    weights: Tensor | None = None
    label_smoothing: float = 0.0

    def compute_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of (N, people) logits and (N,) labels."""
        weights = None if self.weights is None else self.weights.to(logits.device)
        return nn.functional.cross_entropy(logits, labels, weight=weights, label_smoothing=self.label_smoothing)

    def count_labels(self, labels: Tensor) -> int:
        """Return N."""
        return len(labels)

    def count_hits(self, logits: Tensor, labels: Tensor) -> int:
        """Return for how many photographs the most probable person is the actual one."""
        return int((logits.argmax(1) == labels).sum())

    def measure(self, logits: Tensor, labels: Tensor) -> tuple[float, float]:
        """Return the mean cross-entropy and the accuracy."""
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        return nn.functional.cross_entropy(logits, labels).item(), accuracy


def train_classifier(
    features: Features,
    params: TrainParams,
    compute: ComputeParams,
    checkpoints: Checkpoints,
    log_epoch: Callable[[EpochResult], None],
) -> tuple[Classifier, list[EpochResult]]:
    """Train a classifier for the people in `features`, show progress, and calibrate it on val.

    Returns the classifier and its history; LDA and logistic regression have one epoch.

    The same features, params and number of threads give the same weights, bit for bit, on one machine, even when the
    training was killed and resumed from a checkpoint. `log_epoch` gets every epoch, including those before the
    checkpoint.

    Raises DivergedError at the first loss that is not finite, and when the weights are not finite in the end.
    """
    class_names = list_people(features.photos)
    train, val = (select_split(features, class_names, split) for split in ("train", "val"))
    if warning := features.origin.backbone.warning():
        print(warning)
    fitted = fit_classifier(class_names, train, val, params, compute, checkpoints, log_epoch)
    classifier, on_val = fitted.classifier, fitted.on_val
    between_scale = params.plda_between_scale
    classifier.gallery = fit_gallery(train, len(class_names), between_scale, params.seed, checkpoints.fits)
    calibration = fit_probabilities(*on_val)
    if classifier.gallery is not None:
        calibration = _add_threshold(calibration, classifier.gallery.left_out, params.false_acceptance_rate)
    classifier.card = replace(classifier.card, calibration=calibration)
    return classifier, fitted.history


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A classifier that is not calibrated yet, its epochs, and its (M, people) logits and (M,) labels of val."""

    classifier: Classifier
    history: list[EpochResult]
    on_val: tuple[NDArray[np.float32], NDArray[np.int64]]


def fit_classifier(
    class_names: Sequence[str],
    train: LabeledFeatures,
    val: LabeledFeatures,
    params: TrainParams,
    compute: ComputeParams,
    checkpoints: Checkpoints,
    log_epoch: Callable[[EpochResult], None],
) -> FittedClassifier:
    """Fit a classifier, with its preprocessor, to the photographs of train; labels are indices of `class_names`.

    Raises DivergedError as train_classifier does.
    """
    preprocessor = fit_preprocessor(train, params.preprocessing, params.seed, checkpoints.fits)
    seed_everything(params.seed)  # after the fit, which draws random numbers unless it is recalled
    objective = make_objective(train.labels, params)
    origin = train.features.origin
    card = ClassifierCard(
        class_names=tuple(class_names),
        hidden_units=params.hidden_units if params.classifier == "mlp" else (),
        dropout=params.dropout,
        transform=origin.transform,
        backbone=origin.backbone,
        calibration=UNCALIBRATED,
        preprocessing=preprocessor.settings,
    )
    if params.classifier in ("mlp", "linear"):
        classifier = Classifier(card, preprocessor).to(select_device(compute.device))
        history = fit(classifier, train, val, objective, params, checkpoints, log_epoch)
        on_val = compute_logits(classifier, val, params.batch_size)
    else:
        print(f"Fitting {params.classifier} to {len(train)} photographs, {train.view_count} views each.")
        fitted = fit_discriminant(preprocessor, train, params, checkpoints.fits)
        classifier = make_linear(
            lambda settings: Classifier(replace(card, preprocessing=settings)), preprocessor, fitted
        )
        on_val = compute_logits(classifier, val, params.batch_size)
        history = [measure_only_epoch((fitted.logits, train.labels), on_val, objective, params)]
        log_epoch(history[0])
    require_finite_weights(classifier.state_dict(), params)
    return FittedClassifier(classifier, history, on_val)


def train_to_the_end(params: TrainParams) -> TrainParams:
    """Return params by which a network keeps its last epoch, so that no label of val decides when it ends."""
    return params.model_copy(update={"keep_epoch": "last", "patience_epochs": None})


def _add_threshold(calibration: Calibration, left_out: LeftOutMatches, false_acceptance_rate: float) -> Calibration:
    """Return the calibration with the threshold that keeps this rate among the people who were left out."""
    if not left_out.can_promise(false_acceptance_rate):
        print(
            f"train.false_acceptance_rate ({false_acceptance_rate:g}) is too low for the {len(left_out.scores)} "
            "photographs of train: none of them may reach the threshold for unknown people."
        )
    threshold = left_out.choose_threshold(false_acceptance_rate)
    return replace(calibration, threshold=threshold, false_acceptance_rate=false_acceptance_rate)


def make_objective(labels: NDArray[np.int64], params: TrainParams) -> CrossEntropy:
    """Return the objective of photographs with these (N,) labels, the people, that the params describe."""
    weights = _weigh_classes(labels) if params.class_weights == "balanced" else None
    return CrossEntropy(weights, params.label_smoothing)


def _weigh_classes(labels: NDArray[np.int64]) -> Tensor:
    """Return the (people,) weights in the loss that make all people count equally; their mean per photograph is 1."""
    counts = np.bincount(labels)
    return torch.from_numpy((len(labels) / (len(counts) * counts)).astype(np.float32))
