"""The loop that teaches the classifier on stored features; knows nothing of files or MLflow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from celebflow.backbone import select_device
from celebflow.calibration import fit_calibration
from celebflow.classifier import Classifier, make_classifier
from celebflow.data import list_persons
from celebflow.features import Features, select_split
from celebflow.optimizer import ClassifierAdam
from celebflow.params import ComputeParams, TrainParams
from celebflow.sparse import SparseBatch


class Examples(Protocol):
    """Something to learn from or to validate on."""

    def __len__(self) -> int: ...

    def batch(self, positions: NDArray[np.int64]) -> tuple[SparseBatch, Tensor]:
        """Return the features of B photographs and (B,) labels."""
        ...


@dataclass(frozen=True)
class EpochResult:
    """One epoch: mean loss and accuracy. Those of `train` are measured while it learns, with Dropout at work."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


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


def teach_classifier(
    features: Features,
    params: TrainParams,
    compute: ComputeParams,
    checkpoints: Checkpoints,
    log_epoch: Callable[[EpochResult], None],
) -> tuple[Classifier, list[EpochResult]]:
    """Build a classifier for the persons in `features`, teach it, showing progress, and calibrate it.

    Returns it and its history.

    The same features, params and number of threads give the same weights, bit for bit, on one machine, also when the
    training was killed and went on from a checkpoint. `log_epoch` hears of every epoch, those before that included.
    """
    seed_everything(params.seed)
    class_names = list_persons(features.photos)
    train, val = (select_split(features, class_names, split) for split in ("train", "val"))
    classifier = make_classifier(
        class_names, params.hidden_units, params.dropout, features.origin.transform, features.origin.backbone
    )
    print(f"{features.origin.backbone.warning()}\n" if features.origin.backbone.warning() else "", end="")
    print(f"Teaching {sum(p.numel() for p in classifier.parameters()):,} parameters on {len(train)} photographs.")
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
        history = fit(classifier, train, val, params, device, checkpoints, bar.update, report_epoch)
    logits, labels = compute_logits(classifier, val, params.batch_size)
    calibration = fit_calibration(logits, labels, params.false_acceptance_rate)
    classifier.card = replace(classifier.card, calibration=calibration)
    return classifier, history


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
    equals), as `params.keep_epoch` says. `on_batch` gets the number of examples just learned from.
    """
    classifier.to(device)
    optimizer = ClassifierAdam(classifier, params.learning_rate)
    results = checkpoints.restore(optimizer.tensors())
    for result in results:
        on_epoch(result)
    optimizer.step_count = len(results) * -(-len(train) // params.batch_size)
    for epoch in range(len(results) + 1, params.epochs + 1):
        # Each epoch's randomness follows from its number, so that a checkpoint need not hold it.
        seed_everything(params.seed, epoch)
        order = np.random.default_rng([params.seed, epoch]).permutation(len(train))
        train_loss, train_accuracy = train_one_epoch(
            classifier, optimizer, train, order, params.batch_size, device, on_batch
        )
        val_loss, val_accuracy = validate(classifier, val, params.batch_size)
        if params.keep_epoch == "best" and all(val_accuracy > result.val_accuracy for result in results):
            checkpoints.save_best(optimizer.parameters)
        results.append(EpochResult(epoch, train_loss, train_accuracy, val_loss, val_accuracy))
        on_epoch(results[-1])
        if epoch < params.epochs:
            checkpoints.save(optimizer.tensors(), results)
    if params.keep_epoch == "best":
        checkpoints.restore_best(optimizer.parameters)
    return results


def train_one_epoch(
    classifier: Classifier,
    optimizer: ClassifierAdam,
    examples: Examples,
    order: NDArray[np.int64],
    batch_size: int,
    device: torch.device,
    on_batch: Callable[[int], object],
) -> tuple[float, float]:
    """Take one step a batch through `examples` in the given order; return mean loss and accuracy."""
    classifier.train()
    loss_sum, correct = 0.0, 0
    for positions in _batches(order, batch_size):
        inputs, labels = examples.batch(positions)
        labels = labels.to(device)
        logits = classifier(inputs)
        loss = nn.functional.cross_entropy(logits, labels)
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
    """Return (N, people) logits and (N,) labels of all examples, in their order and in evaluation mode."""
    classifier.eval()
    logits, labels = [], []
    for positions in _batches(np.arange(len(examples)), batch_size):
        inputs, batch_labels = examples.batch(positions)
        logits.append(classifier(inputs).cpu().numpy())
        labels.append(batch_labels.numpy())
    return np.concatenate(logits), np.concatenate(labels)


def _batches(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
