"""The loop that teaches the classifier on stored features; knows nothing of files or MLflow."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from celebflow.backbone.devices import select_device
from celebflow.classifier.adam import ClassifierAdam
from celebflow.classifier.calibration import UNCALIBRATED, fit_calibration
from celebflow.classifier.discriminants import fit_discriminant
from celebflow.classifier.history import EpochResult
from celebflow.classifier.model import Classifier, ClassifierCard
from celebflow.classifier.preprocessing import Preprocessor, fit_preprocessor
from celebflow.data.photos import list_people
from celebflow.features.sparse import SparseBatch
from celebflow.features.store import Features, LabeledFeatures, select_split
from celebflow.params import ComputeParams, TrainParams


class Examples(Protocol):
    """Photographs to learn from or to validate on."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return whom each shows, as an index of the class names."""
        ...

    @property
    def view_count(self) -> int:
        """Return how many views there are of each."""
        ...

    def gather(self, positions: NDArray[np.int64], views: NDArray[np.int64] | int) -> tuple[SparseBatch, Tensor]:
        """Return the features of B photographs, of each its view by number, and (B,) labels."""
        ...


class Checkpoints(Protocol):
    """What a training that was killed goes on from."""

    def restore(self, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
        """Fill `tensors` with those last saved, and return the epochs that led there: none where nothing was saved."""
        ...

    def save(self, tensors: Mapping[str, Tensor], history: Sequence[EpochResult]) -> None:
        """Keep the state after the epochs of `history`."""
        ...

    def restore_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill `tensors` with those of the best epoch."""
        ...

    def save_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep the best epoch's."""
        ...


def train_classifier(
    features: Features,
    params: TrainParams,
    compute: ComputeParams,
    checkpoints: Checkpoints,
    log_epoch: Callable[[EpochResult], None],
) -> tuple[Classifier, list[EpochResult]]:
    """Train a classifier for the people in `features`, showing progress, and calibrate it on val.

    Returns it with its history; a classifier that is fitted at once has one epoch.

    The same features, params and number of threads give the same weights, bit for bit, on one machine, also when the
    training was killed and resumed from a checkpoint. `log_epoch` gets every epoch, also those before the checkpoint.
    """
    seed_everything(params.seed)
    class_names = list_people(features.photos)
    train, val = (select_split(features, class_names, split) for split in ("train", "val"))
    if warning := features.origin.backbone.warning():
        print(warning)
    preprocessor = fit_preprocessor(train, params.preprocessing, params.seed)
    card = ClassifierCard(
        class_names=tuple(class_names),
        hidden_units=params.hidden_units if params.classifier == "mlp" else (),
        dropout=params.dropout,
        transform=features.origin.transform,
        backbone=features.origin.backbone,
        calibration=UNCALIBRATED,
        preprocessing=preprocessor.settings,
    )
    if params.classifier in ("mlp", "linear"):
        classifier = Classifier(card, preprocessor)
        history = _train_head(classifier, train, val, params, compute, checkpoints, log_epoch)
    else:
        print(f"Fitting {params.classifier} to {len(train)} photographs, {train.view_count} views each.")
        classifier = _fold(card, preprocessor, *fit_discriminant(preprocessor, train, params))
        train_result, val_result = (validate(classifier, examples, params.batch_size) for examples in (train, val))
        history = [EpochResult(1, *train_result, *val_result)]
        log_epoch(history[0])
    logits, labels = compute_logits(classifier, val, params.batch_size)
    calibration = fit_calibration(logits, labels, params.false_acceptance_rate)
    classifier.card = replace(classifier.card, calibration=calibration)
    return classifier, history


def _fold(
    card: ClassifierCard, preprocessor: Preprocessor, weight: NDArray[np.float64], bias: NDArray[np.float64]
) -> Classifier:
    """Return a classifier of one layer, whose (features, people) weight contains the projection."""
    settings = preprocessor.settings.model_copy(update={"pca_components": None})
    classifier = Classifier(replace(card, preprocessing=settings))
    first, _ = classifier.split_at_first_product()
    with torch.no_grad():
        if settings.standardize:
            classifier.preprocessor.scale.copy_(preprocessor.scale)
        first.weight.copy_(torch.from_numpy(weight))
        first.bias.copy_(torch.from_numpy(bias))
    return classifier


def _train_head(
    classifier: Classifier,
    train: LabeledFeatures,
    val: LabeledFeatures,
    params: TrainParams,
    compute: ComputeParams,
    checkpoints: Checkpoints,
    log_epoch: Callable[[EpochResult], None],
) -> list[EpochResult]:
    count = sum(parameter.numel() for parameter in classifier.parameters() if parameter.requires_grad)
    print(f"Training {count:,} parameters on {len(train)} photographs.")
    with tqdm(desc="training", total=len(train) * params.epochs, unit="photograph", disable=None) as bar:

        def report_epoch(result: EpochResult) -> None:
            bar.update(result.epoch * len(train) - bar.n)  # the epochs that a checkpoint spares
            log_epoch(result)
            bar.write(
                f"epoch {result.epoch:>{len(str(params.epochs))}}/{params.epochs}  "
                f"train: loss {result.train_loss:.3f}, accuracy {result.train_accuracy:.3f}  "
                f"val: loss {result.val_loss:.3f}, accuracy {result.val_accuracy:.3f}"
            )

        device = select_device(compute.device)
        return fit(classifier, train, val, params, device, checkpoints, bar.update, report_epoch)


def seed_everything(*seeds: int) -> None:
    """Make what follows repeatable: torch's random numbers, and deterministic algorithms alone."""
    torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
    # What torch.use_deterministic_algorithms does, without its import of torch's whole compiler.
    torch.set_deterministic_debug_mode("error")
    # It also fills every new tensor with NaN, to show up who reads what was never written: a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def fit(
    classifier: Classifier,
    train: Examples,
    val: Examples,
    params: TrainParams,
    device: torch.device,
    checkpoints: Checkpoints,
    on_batch: Callable[[int], object],
    on_epoch: Callable[[EpochResult], None],
) -> list[EpochResult]:
    """Teach `classifier` in place, from the last checkpoint on, and return every epoch's result.

    It is left with the weights of the last epoch or of the one with the highest validation accuracy (the first of
    equals), as `params.keep_epoch` says. In an epoch, one view of each photograph is learned from, drawn at random.
    `on_batch` gets the number of examples just learned from.
    """
    classifier.to(device)
    optimizer = ClassifierAdam(classifier, params.learning_rate, params.weight_decay)
    weights = _weigh_classes(train.labels, params.class_weights)
    compute_loss = partial(
        nn.functional.cross_entropy,
        weight=None if weights is None else torch.from_numpy(weights).to(device),
        label_smoothing=params.label_smoothing,
    )
    steps_an_epoch = -(-len(train) // params.batch_size)
    results = checkpoints.restore(optimizer.tensors())
    for result in results:
        on_epoch(result)
    optimizer.step_count = len(results) * steps_an_epoch
    while not _is_finished(results, params):
        epoch = len(results) + 1
        # Each epoch's randomness follows from its number, so that a checkpoint need not hold it.
        seed_everything(params.seed, epoch)
        order = _draw_order(train.labels, params, epoch)
        views = np.random.default_rng([params.seed, epoch, 1]).integers(train.view_count, size=len(order))
        train_loss, train_accuracy = train_one_epoch(
            classifier,
            optimizer,
            train,
            list(zip(_batches(order, params.batch_size), _batches(views, params.batch_size), strict=True)),
            compute_loss,
            lambda step: _compute_learning_rate(params, step / (params.epochs * steps_an_epoch)),
            device,
            on_batch,
        )
        val_loss, val_accuracy = validate(classifier, val, params.batch_size)
        if params.keep_epoch == "best" and all(val_accuracy > result.val_accuracy for result in results):
            checkpoints.save_best(optimizer.parameters)
        results.append(EpochResult(epoch, train_loss, train_accuracy, val_loss, val_accuracy))
        on_epoch(results[-1])
        if not _is_finished(results, params):
            checkpoints.save(optimizer.tensors(), results)
    if params.keep_epoch == "best":
        checkpoints.restore_best(optimizer.parameters)
    return results


def _is_finished(results: Sequence[EpochResult], params: TrainParams) -> bool:
    """Tell whether all epochs are done, or validation accuracy has not risen for as many as patience allows."""
    if len(results) >= params.epochs or params.patience_epochs is None or not results:
        return len(results) >= params.epochs
    best = max(results, key=lambda result: result.val_accuracy)  # the first of equals
    return len(results) - best.epoch >= params.patience_epochs


def _draw_order(labels: NDArray[np.int64], params: TrainParams, epoch: int) -> NDArray[np.int64]:
    """Return which photographs an epoch learns from, in which order: each once, or everybody's as often."""
    random = np.random.default_rng([params.seed, epoch])
    if params.sampling == "none":
        return random.permutation(len(labels))
    shares = 1 / np.bincount(labels)[labels]
    return random.choice(len(labels), len(labels), p=shares / shares.sum())


def _weigh_classes(labels: NDArray[np.int64], how: Literal["none", "balanced"]) -> NDArray[np.float32] | None:
    """Return each person's weight in the loss, by which all people weigh the same; the mean photograph weighs 1."""
    if how == "none":
        return None
    counts = np.bincount(labels)
    return (len(labels) / (len(counts) * counts)).astype(np.float32)


def _compute_learning_rate(params: TrainParams, progress: float) -> float:
    """Return the learning rate when a share `progress` of all steps is done.

    "cosine" is a half period down to 0 (Loshchilov and Hutter, 2017, without restarts).
    """
    if params.learning_rate_schedule == "constant":
        return params.learning_rate
    return params.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def train_one_epoch(
    classifier: Classifier,
    optimizer: ClassifierAdam,
    examples: Examples,
    batches: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    compute_loss: Callable[[Tensor, Tensor], Tensor],
    compute_learning_rate: Callable[[int], float],
    device: torch.device,
    on_batch: Callable[[int], object],
) -> tuple[float, float]:
    """Take one step for each of the batches, which are positions and views; return mean loss and accuracy."""
    classifier.train()
    loss_sum, correct = 0.0, 0
    for positions, views in batches:
        inputs, labels = examples.gather(positions, views)
        labels = labels.to(device)
        logits = classifier(inputs)
        loss = compute_loss(logits, labels)
        optimizer.learning_rate = compute_learning_rate(optimizer.step_count)
        torch.autograd.backward(loss)
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        on_batch(len(labels))
    return loss_sum / len(examples), correct / len(examples)


def validate(classifier: Classifier, examples: Examples, batch_size: int) -> tuple[float, float]:
    """Return mean loss and accuracy without learning."""
    logits, labels = (torch.from_numpy(array) for array in compute_logits(classifier, examples, batch_size))
    loss = nn.functional.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).float().mean().item()


@torch.inference_mode()
def compute_logits(
    classifier: Classifier, examples: Examples, batch_size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (N, people) logits and (N,) labels of all examples, in their order and in evaluation mode.

    The logits are the means of those of all views of a photograph.
    """
    classifier.eval()
    # Made at once: results that are kept one by one would each hold the memory of their batch's temporaries apart.
    logits = np.empty((len(examples), len(classifier.card.class_names)), np.float32)
    for positions in _batches(np.arange(len(examples)), batch_size):
        views = (examples.gather(positions, view)[0] for view in range(examples.view_count))
        logits[positions] = classifier.average(views).cpu().numpy()
    return logits, examples.labels


def _batches(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
