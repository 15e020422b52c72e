"""Train the classifier on stored features; train calls it. It reads and writes only checkpoints."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from celebflow.backbone.devices import select_device
from celebflow.backbone.state_dicts import list_not_finite
from celebflow.classifier.adam import ClassifierAdam
from celebflow.classifier.calibration import UNCALIBRATED, Calibration, fit_probabilities
from celebflow.classifier.checkpoints import Checkpoints, DivergedError
from celebflow.classifier.discriminants import fit_discriminant
from celebflow.classifier.gallery import LeftOutMatches, fit_gallery
from celebflow.classifier.history import EpochResult
from celebflow.classifier.model import Classifier, ClassifierCard
from celebflow.classifier.preprocessing import Preprocessor, fit_preprocessor
from celebflow.data.photos import list_people
from celebflow.features.sparse import SparseBatch
from celebflow.features.store import Features, select_split
from celebflow.params import ComputeParams, TrainParams


class Examples(Protocol):
    """Photographs to train or to validate on."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the (N,) people, as indices of the class names."""
        ...

    @property
    def view_count(self) -> int:
        """Return the number of views per photograph."""
        ...

    def gather(self, positions: NDArray[np.int64], views: NDArray[np.int64] | int) -> tuple[SparseBatch, Tensor]:
        """Return the features of B photographs, each in the view with its number, and (B,) labels."""
        ...


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
        classifier = Classifier(card, preprocessor).to(select_device(compute.device))
        history = fit(classifier, train, val, params, checkpoints, log_epoch)
    else:
        print(f"Fitting {params.classifier} to {len(train)} photographs, {train.view_count} views each.")
        classifier = _fold(card, preprocessor, *fit_discriminant(preprocessor, train, params))
        on_train, on_val = (validate(classifier, examples, params.batch_size) for examples in (train, val))
        history = [EpochResult(1, *on_train, *on_val)]
        _require_finite(history[0], params)
        log_epoch(history[0])
    _require_finite_weights(classifier.state_dict(), params)
    classifier.gallery = fit_gallery(train, len(class_names), params.plda_between_scale, params.seed)
    calibration = fit_probabilities(*compute_logits(classifier, val, params.batch_size))
    if classifier.gallery is not None:
        calibration = _add_threshold(calibration, classifier.gallery.left_out, params.false_acceptance_rate)
    classifier.card = replace(classifier.card, calibration=calibration)
    return classifier, history


def _add_threshold(calibration: Calibration, left_out: LeftOutMatches, false_acceptance_rate: float) -> Calibration:
    """Return the calibration with the threshold that keeps this rate among the people who were left out."""
    if not left_out.can_promise(false_acceptance_rate):
        print(
            f"train.false_acceptance_rate ({false_acceptance_rate:g}) is too low for the {len(left_out.scores)} "
            "photographs of train: none of them may reach the threshold for unknown people."
        )
    threshold = left_out.choose_threshold(false_acceptance_rate)
    return replace(calibration, threshold=threshold, false_acceptance_rate=false_acceptance_rate)


def _fold(
    card: ClassifierCard, preprocessor: Preprocessor, weight: NDArray[np.float64], bias: NDArray[np.float64]
) -> Classifier:
    """Return a classifier of one layer, whose (features, people) weight includes the projection."""
    settings = preprocessor.settings.model_copy(update={"pca_components": None})
    classifier = Classifier(replace(card, preprocessing=settings))
    first, _ = classifier.split_at_first_product()
    with torch.no_grad():
        if settings.standardize:
            classifier.preprocessor.scale.copy_(preprocessor.scale)
        first.weight.copy_(torch.from_numpy(weight))
        first.bias.copy_(torch.from_numpy(bias))
    return classifier


def seed_everything(*seeds: int) -> None:
    """Seed torch's random numbers, and allow deterministic algorithms only."""
    torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
    # Does the same as torch.use_deterministic_algorithms, without importing torch's compiler.
    torch.set_deterministic_debug_mode("error")
    # By default, it also fills every new tensor with NaN, which takes a tenth of each step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def fit(
    classifier: Classifier,
    train: Examples,
    val: Examples,
    params: TrainParams,
    checkpoints: Checkpoints,
    log_epoch: Callable[[EpochResult], None],
) -> list[EpochResult]:
    """Train `classifier` in place, from the last checkpoint on, show progress, and return the results of all epochs.

    `params.keep_epoch` chooses the final weights: those of the last epoch, or of the first one with the highest
    validation accuracy. An epoch takes one random view of each photograph.

    Raises DivergedError at the first loss that is not finite.
    """
    optimizer = ClassifierAdam(classifier, params.learning_rate, params.weight_decay)
    count = sum(parameter.numel() for parameter in optimizer.parameters.values())
    print(f"Training {count:,} parameters on {len(train)} photographs.")
    device = next(classifier.parameters()).device
    compute_loss = partial(
        nn.functional.cross_entropy,
        weight=_weigh_classes(train.labels).to(device) if params.class_weights == "balanced" else None,
        label_smoothing=params.label_smoothing,
    )
    steps_per_epoch = -(-len(train) // params.batch_size)
    results = checkpoints.restore(optimizer.tensors())
    optimizer.step_count = len(results) * steps_per_epoch
    with tqdm(desc="training", total=len(train) * params.epochs, unit="photograph", disable=None) as bar:

        def report(result: EpochResult) -> None:
            bar.update(result.epoch * len(train) - bar.n)  # after a restart, the epochs before the checkpoint
            log_epoch(result)
            bar.write(
                f"epoch {result.epoch:>{len(str(params.epochs))}}/{params.epochs}  "
                f"train: loss {result.train_loss:.3f}, accuracy {result.train_accuracy:.3f}  "
                f"val: loss {result.val_loss:.3f}, accuracy {result.val_accuracy:.3f}"
            )

        def end_step(loss: float, count: int) -> None:
            if not math.isfinite(loss):
                epoch, step = divmod(optimizer.step_count - 1, steps_per_epoch)  # this step has been counted
                moment = f"in epoch {epoch + 1}, step {step + 1} of {steps_per_epoch}"
                raise _describe_divergence(f"the loss is {loss} {moment}", params)
            bar.update(count)

        for result in results:
            report(result)
        while not _is_finished(results, params):
            epoch = len(results) + 1
            # Seeded by the epoch's number, so that a checkpoint need not hold the state of random generators.
            seed_everything(params.seed, epoch)
            order = _draw_order(train.labels, params, epoch)
            views = np.random.default_rng([params.seed, epoch, 1]).integers(train.view_count, size=len(order))
            batches = zip(_batches(order, params.batch_size), _batches(views, params.batch_size), strict=True)
            on_train = train_one_epoch(
                classifier,
                optimizer,
                train,
                batches,
                compute_loss,
                lambda step: _compute_learning_rate(params, step / (params.epochs * steps_per_epoch)),
                end_step,
            )
            on_val = validate(classifier, val, params.batch_size)
            result = EpochResult(epoch, *on_train, *on_val)
            _require_finite(result, params)
            if params.keep_epoch == "best" and all(result.val_accuracy > earlier.val_accuracy for earlier in results):
                _require_finite_weights(optimizer.parameters, params)
                checkpoints.save_best(optimizer.parameters)
            results.append(result)
            report(result)
            if not _is_finished(results, params):
                checkpoints.save(optimizer.tensors(), results)
    if params.keep_epoch == "best":
        checkpoints.restore_best(optimizer.parameters)
    return results


def _is_finished(results: Sequence[EpochResult], params: TrainParams) -> bool:
    """Return whether all epochs are done, or the validation accuracy has not risen for `patience_epochs`."""
    if len(results) >= params.epochs:
        return True
    if params.patience_epochs is None or not results:
        return False
    best = max(results, key=lambda result: result.val_accuracy)  # the first of equals
    return len(results) - best.epoch >= params.patience_epochs


def _require_finite(result: EpochResult, params: TrainParams) -> None:
    """Raise DivergedError when a loss after an epoch is not finite."""
    for name, loss in (("training", result.train_loss), ("validation", result.val_loss)):
        if not math.isfinite(loss):
            raise _describe_divergence(f"the {name} loss is {loss} after epoch {result.epoch}", params)


def _require_finite_weights(tensors: Mapping[str, Tensor], params: TrainParams) -> None:
    """Raise DivergedError when weights are not finite: where ReLU hides it, the loss does not show it."""
    if names := list_not_finite(tensors):
        raise _describe_divergence(f"weights are not finite ({', '.join(names)})", params)


def _describe_divergence(what: str, params: TrainParams) -> DivergedError:
    """Return the error for a training whose numbers are not finite, with the params that likely caused it."""
    causes = {
        "lda": [f"train.lda_shrinkage ({params.lda_shrinkage:g}) is too low"],
        "logistic": [f"train.logistic_c ({params.logistic_c:g}) is too high"],
    }.get(params.classifier, [f"train.learning_rate ({params.learning_rate:g}) is too high"])
    if params.classifier in ("mlp", "linear") and params.weight_decay > 0:
        causes.append(f"train.weight_decay ({params.weight_decay:g}) is too high")
    if not params.preprocessing.l2_normalize:
        causes.append("the features are too large without train.preprocessing.l2_normalize")
    return DivergedError(
        f"Training diverged: {what}. Nothing of it was saved. Likely causes: {'; '.join(causes)}. Change these params "
        "and run `dvc repro`."
    )


def _draw_order(labels: NDArray[np.int64], params: TrainParams, epoch: int) -> NDArray[np.int64]:
    """Return the photographs of an epoch in order: each once, or a sample with every person equally often."""
    random = np.random.default_rng([params.seed, epoch])
    if params.sampling == "none":
        return random.permutation(len(labels))
    weights = 1 / np.bincount(labels)[labels]
    return random.choice(len(labels), len(labels), p=weights / weights.sum())


def _weigh_classes(labels: NDArray[np.int64]) -> Tensor:
    """Return the (people,) weights in the loss that make all people count equally; their mean per photograph is 1."""
    counts = np.bincount(labels)
    return torch.from_numpy((len(labels) / (len(counts) * counts)).astype(np.float32))


def _compute_learning_rate(params: TrainParams, progress: float) -> float:
    """Return the learning rate after a fraction `progress` of all steps.

    "cosine" falls to 0 along half a period (Loshchilov and Hutter, 2017, without restarts).
    """
    if params.learning_rate_schedule == "constant":
        return params.learning_rate
    return params.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def train_one_epoch(
    classifier: Classifier,
    optimizer: ClassifierAdam,
    examples: Examples,
    batches: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]],
    compute_loss: Callable[[Tensor, Tensor], Tensor],
    compute_learning_rate: Callable[[int], float],
    on_step: Callable[[float, int], object],
) -> tuple[float, float]:
    """Take one step for each batch of positions and views; return mean loss and accuracy.

    `on_step` gets the loss of each step and the number of its examples.
    """
    classifier.train()
    loss_sum = 0.0
    correct = 0
    for positions, views in batches:
        inputs, labels = examples.gather(positions, views)
        logits = classifier(inputs)
        labels = labels.to(logits.device)
        loss = compute_loss(logits, labels)
        optimizer.learning_rate = compute_learning_rate(optimizer.step_count)
        torch.autograd.backward(loss)
        optimizer.step()
        batch_loss = loss.item()
        loss_sum += batch_loss * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        on_step(batch_loss, len(labels))
    return loss_sum / len(examples), correct / len(examples)


def validate(classifier: Classifier, examples: Examples, batch_size: int) -> tuple[float, float]:
    """Return mean loss and accuracy without training."""
    logits, labels = (torch.from_numpy(array) for array in compute_logits(classifier, examples, batch_size))
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    return nn.functional.cross_entropy(logits, labels).item(), accuracy


@torch.inference_mode()
def compute_logits(
    classifier: Classifier, examples: Examples, batch_size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (N, people) logits and (N,) labels of all examples, in order; puts the classifier in evaluation mode.

    Logits are means over all views of a photograph.
    """
    classifier.eval()
    # One array: small results, kept one by one, would keep the memory of their batches from being freed.
    logits = np.empty((len(examples), len(classifier.card.class_names)), np.float32)
    for positions in _batches(np.arange(len(examples)), batch_size):
        views = (examples.gather(positions, view)[0] for view in range(examples.view_count))
        logits[positions] = classifier.average(views).cpu().numpy()
    return logits, examples.labels


def _batches(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
