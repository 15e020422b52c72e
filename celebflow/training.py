"""The loop that teaches the classifier on stored features; knows nothing of files or MLflow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from celebflow.backbone import select_device
from celebflow.classifier import Classifier, make_classifier
from celebflow.data import Photo, list_persons
from celebflow.features import Features, select_split
from celebflow.params import ComputeParams, TrainParams


class Examples(Protocol):
    """Something to learn from or to validate on."""

    def __len__(self) -> int: ...

    def batch(self, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return (B, features) inputs and (B,) labels."""
        ...


@dataclass(frozen=True)
class EpochResult:
    """One epoch: mean loss and accuracy. Those of `train` are measured while it learns, with Dropout at work."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


def teach_classifier(
    features: Features,
    photos: Sequence[Photo],
    params: TrainParams,
    compute: ComputeParams,
    log_epoch: Callable[[EpochResult], None],
) -> tuple[Classifier, list[EpochResult]]:
    """Build a classifier for the persons in `photos` and teach it, showing progress; return it and its history.

    The same features, params and number of threads give the same weights, bit for bit, on one machine.
    """
    seed_everything(params.seed)
    class_names = list_persons(photos)
    train, val = (select_split(features, photos, class_names, split) for split in ("train", "val"))
    classifier = make_classifier(class_names, params.hidden_units, params.dropout, features.transform, features.source)
    print(f"{features.source.warning()}\n" if features.source.warning() else "", end="")
    print(f"Teaching {sum(p.numel() for p in classifier.parameters()):,} parameters on {len(train)} photographs.")
    with tqdm(desc="training", total=len(train) * params.epochs, unit="photograph", disable=None) as bar:

        def report_epoch(result: EpochResult) -> None:
            log_epoch(result)
            bar.write(
                f"epoch {result.epoch:>{len(str(params.epochs))}}/{params.epochs}  "
                f"train: loss {result.train_loss:.3f}, accuracy {result.train_accuracy:.3f}  "
                f"val: loss {result.val_loss:.3f}, accuracy {result.val_accuracy:.3f}"
            )

        history = fit(classifier, train, val, params, select_device(compute.device), bar.update, report_epoch)
    return classifier, history


def seed_everything(seed: int) -> None:
    """Make what follows repeatable: torch's random numbers, and deterministic algorithms alone."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def fit(
    classifier: nn.Module,
    train: Examples,
    val: Examples,
    params: TrainParams,
    device: torch.device,
    on_batch: Callable[[int], object],
    on_epoch: Callable[[EpochResult], None],
) -> list[EpochResult]:
    """Teach `classifier` in place and return every epoch's result.

    It is left with the weights of the last epoch or of the one with the highest validation accuracy (the first of
    equals), as `params.keep_epoch` says. `on_batch` gets the number of examples just learned from.
    """
    classifier.to(device)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=params.learning_rate, fused=True)
    order = np.random.default_rng(params.seed)
    results: list[EpochResult] = []
    best: dict[str, Tensor] = {}
    for epoch in range(1, params.epochs + 1):
        train_loss, train_accuracy = train_one_epoch(
            classifier, optimizer, train, order.permutation(len(train)), params.batch_size, device, on_batch
        )
        val_loss, val_accuracy = validate(classifier, val, params.batch_size, device)
        if params.keep_epoch == "best" and all(val_accuracy > result.val_accuracy for result in results):
            best = {name: tensor.detach().clone() for name, tensor in classifier.state_dict().items()}
        results.append(EpochResult(epoch, train_loss, train_accuracy, val_loss, val_accuracy))
        on_epoch(results[-1])
    if best:
        classifier.load_state_dict(best)
    return results


def train_one_epoch(
    classifier: nn.Module,
    optimizer: torch.optim.Optimizer,
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
        inputs, labels = (tensor.to(device) for tensor in examples.batch(positions))
        logits = classifier(inputs)
        loss = nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=False)
        torch.autograd.backward(loss)
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        on_batch(len(labels))
    return loss_sum / len(examples), correct / len(examples)


def validate(classifier: nn.Module, examples: Examples, batch_size: int, device: torch.device) -> tuple[float, float]:
    """Return mean loss and accuracy without learning."""
    logits, labels = (torch.from_numpy(array) for array in compute_logits(classifier, examples, batch_size, device))
    loss = nn.functional.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).float().mean().item()


@torch.inference_mode()
def compute_logits(
    classifier: nn.Module, examples: Examples, batch_size: int, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (N, people) logits and (N,) labels of all examples, in their order and in evaluation mode."""
    classifier.eval()
    logits, labels = [], []
    for positions in _batches(np.arange(len(examples)), batch_size):
        inputs, batch_labels = examples.batch(positions)
        logits.append(classifier(inputs.to(device)).cpu().numpy())
        labels.append(batch_labels.numpy())
    return np.concatenate(logits), np.concatenate(labels)


def _batches(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
