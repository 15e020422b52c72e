"""Train a model of attributes on the photographs of train, and calibrate it on val."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from celebflow import paths
from celebflow.backbone.devices import select_device
from celebflow.classifier.attribute_calibration import AttributeCalibration, fit_attribute_calibration
from celebflow.classifier.attribute_model import AttributeModel
from celebflow.classifier.cards import AttributeCard
from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.discriminants import balance_answers, fit_attribute_regressions, fit_attribute_ridge
from celebflow.classifier.history import EpochResult
from celebflow.classifier.network import make_linear
from celebflow.classifier.projection import fit_preprocessor
from celebflow.classifier.training import (
    compute_logits,
    fit,
    measure_only_epoch,
    require_finite_weights,
    seed_everything,
)
from celebflow.data.attributes import BLANK, YES, AttributeTable, load_attributes
from celebflow.features.store import Features, LabeledFeatures
from celebflow.params import ComputeParams, TrainParams


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """The objective of attributes: the binary cross-entropy of the labels that are known.

    `weights` (2, A) are those of no and of yes in the loss of training, or None.
    """

    weights: Tensor | None = None
    label_smoothing: float = 0.0

    def compute_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of (N, A) logits and labels."""
        known = labels != BLANK
        answers = (labels == YES).to(logits.dtype)
        targets = answers * (1 - self.label_smoothing) + self.label_smoothing / 2
        weights = known.to(logits.dtype)
        if self.weights is not None:
            of_no, of_yes = self.weights.to(logits.device)
            weights = weights * torch.where(labels == YES, of_yes, of_no)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (losses * weights).sum() / known.sum().clamp(min=1)

    def count_labels(self, labels: Tensor) -> int:
        """Return how many labels are known."""
        return int((labels != BLANK).sum())

    def count_hits(self, logits: Tensor, labels: Tensor) -> int:
        """Return how many known labels are on the side of their logits."""
        return int((((logits >= 0) == (labels == YES)) & (labels != BLANK)).sum())

    def measure(self, logits: Tensor, labels: Tensor) -> tuple[float, float]:
        """Return the mean binary cross-entropy and the accuracy."""
        loss = BinaryCrossEntropy().compute_loss(logits, labels).item()
        return loss, self.count_hits(logits, labels) / max(1, self.count_labels(labels))


def train_attributes(
    features: Features,
    params: TrainParams,
    compute: ComputeParams,
    checkpoints: Checkpoints,
    log_epoch: Callable[[EpochResult], None],
) -> tuple[AttributeModel, list[EpochResult]]:
    """Train a model for the attributes of splits/attributes.csv, show progress, and calibrate it on val.

    Returns the model and its history; logistic regressions have one epoch. It is as reproducible as train_classifier.

    Raises DivergedError at the first loss that is not finite, and when the weights are not finite in the end.
    """
    table = load_attributes(paths.ATTRIBUTES)
    train, val = (select_attributes(features, table, split) for split in ("train", "val"))
    if warning := features.origin.backbone.warning():
        print(warning)
    fitted = fit_attributes(table.names, train, val, params, compute, checkpoints, log_epoch)
    model = fitted.model
    calibration = fit_attribute_calibration(*fitted.on_val, params.attribute_thresholds)
    model.card = replace(model.card, calibration=calibration)
    return model, fitted.history


@dataclass(frozen=True, eq=False)
class FittedAttributes:
    """A model of attributes that is not calibrated yet, its epochs, and its (M, A) logits and labels of val."""

    model: AttributeModel
    history: list[EpochResult]
    on_val: tuple[NDArray[np.float32], NDArray[np.int64]]


def fit_attributes(
    names: Sequence[str],
    train: LabeledFeatures,
    val: LabeledFeatures,
    params: TrainParams,
    compute: ComputeParams,
    checkpoints: Checkpoints,
    log_epoch: Callable[[EpochResult], None],
) -> FittedAttributes:
    """Fit a model, with its preprocessor, to the photographs of train and their labels of the attributes `names`.

    Raises DivergedError as train_attributes does.
    """
    preprocessor = fit_preprocessor(train, params.preprocessing, params.seed, checkpoints.fits)
    seed_everything(params.seed)  # after the fit, which draws random numbers unless it is recalled
    objective = make_objective(train.labels, params)
    yes_fractions = measure_yes_fractions(train.labels)
    card = AttributeCard(
        class_names=tuple(names),
        hidden_units=params.hidden_units if params.classifier == "mlp" else (),
        dropout=params.dropout,
        transform=train.features.origin.transform,
        backbone=train.features.origin.backbone,
        preprocessing=preprocessor.settings,
        calibration=_make_uncalibrated(len(names), params),
        yes_fractions=tuple(yes_fractions.tolist()),
    )
    if params.classifier in ("mlp", "linear"):
        model = AttributeModel(card, preprocessor).to(select_device(compute.device))
        history = fit(model, train, val, objective, params, checkpoints, log_epoch)
        on_val = compute_logits(model, val, params.batch_size)
    else:
        print(f"Fitting {len(names)} attributes to {len(train)} photographs, {train.view_count} views each.")
        fit_all = fit_attribute_ridge if params.classifier == "ridge" else fit_attribute_regressions
        fitted = fit_all(preprocessor, train, params, checkpoints.fits)
        model = make_linear(
            lambda settings: AttributeModel(replace(card, preprocessing=settings)), preprocessor, fitted
        )
        on_val = compute_logits(model, val, params.batch_size)
        history = [measure_only_epoch((fitted.logits, train.labels), on_val, objective, params)]
        log_epoch(history[0])
    require_finite_weights(model.state_dict(), params)
    return FittedAttributes(model, history, on_val)


def select_attributes(features: Features, table: AttributeTable, split: str) -> LabeledFeatures:
    """Select the photographs of one split, with their (N, A) labels."""
    rows = features.find_rows(split)
    labels = table.select([features.photos[row].path for row in rows])
    return LabeledFeatures(features, rows, labels.astype(np.int64))


def measure_yes_fractions(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (A,) fractions of yes among the known ones of (N, A) labels; 0.5 where none is known."""
    known = (labels != BLANK).sum(axis=0)
    fractions: NDArray[np.float64] = np.where(known > 0, (labels == YES).sum(axis=0) / np.maximum(known, 1), 0.5)
    return fractions


def make_objective(labels: NDArray[np.int64], params: TrainParams) -> BinaryCrossEntropy:
    """Return the objective of photographs with these (N, A) labels that the params describe.

    Balanced weights make yes and no of each attribute count equally; their mean per known label is 1.
    """
    weights = None
    if params.class_weights == "balanced":
        weights = torch.from_numpy(balance_answers(labels).astype(np.float32))
    return BinaryCrossEntropy(weights, params.label_smoothing)


def _make_uncalibrated(count: int, params: TrainParams) -> AttributeCalibration:
    ones, halves = (1.0,) * count, (0.5,) * count
    return AttributeCalibration(ones, (0.0,) * count, ones, halves, halves, params.attribute_thresholds)
