"""The training loop of networks, on stored features. It reads and writes only checkpoints."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from celebflow.backbone.state_dicts import list_not_finite
from celebflow.classifier.adam import NetworkAdam
from celebflow.classifier.checkpoints import Checkpoints, DivergedError
from celebflow.classifier.history import EpochResult
from celebflow.classifier.network import Network
from celebflow.features.sparse import SparseBatch
from celebflow.params import TrainParams


class Examples(Protocol):
    """Photographs to train or to validate on."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the (N,) people, as indices of the class names, or the (N, A) labels of attributes."""
        ...

    @property
    def view_count(self) -> int:
        """Return the number of views per photograph."""
        ...

    def gather(self, positions: NDArray[np.int64], views: NDArray[np.int64] | int) -> tuple[SparseBatch, Tensor]:
        """Return the features of B photographs, each in the view with its number, and their labels."""
        ...


class Objective(Protocol):
    """What a training minimizes, and what it counts as correct; labels are those that Examples gather."""

    def compute_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the labels of a batch that are known."""
        ...

    def count_labels(self, labels: Tensor) -> int:
        """Return how many labels are known."""
        ...

    def count_hits(self, logits: Tensor, labels: Tensor) -> int:
        """Return how many of the known labels are predicted."""
        ...

    def measure(self, logits: Tensor, labels: Tensor) -> tuple[float, float]:
        """Return the mean loss and the accuracy of the known labels, without the weights and smoothing of training."""
        ...


def seed_everything(*seeds: int) -> None:
    """Seed torch's random numbers, and allow deterministic algorithms only."""
    torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
    # Does the same as torch.use_deterministic_algorithms, without importing torch's compiler.
    torch.set_deterministic_debug_mode("error")
    # By default, it also fills every new tensor with NaN, which takes a tenth of each step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def fit(
    network: Network,
    train: Examples,
    val: Examples,
    objective: Objective,
    params: TrainParams,
    checkpoints: Checkpoints,
    log_epoch: Callable[[EpochResult], None],
) -> list[EpochResult]:
    """Train `network` in place, from the last checkpoint on, show progress, and return the results of all epochs.

    `params.keep_epoch` chooses the final weights: those of the last epoch, or of the first one with the highest
    validation accuracy. An epoch takes one random view of each photograph.

    Raises DivergedError at the first loss that is not finite.
    """
    optimizer = NetworkAdam(network, params.learning_rate, params.weight_decay)
    count = sum(parameter.numel() for parameter in optimizer.parameters.values())
    print(f"Training {count:,} parameters on {len(train)} photographs.")
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
                network,
                optimizer,
                train,
                batches,
                objective,
                lambda step: _compute_learning_rate(params, step / (params.epochs * steps_per_epoch)),
                end_step,
            )
            on_val = validate(network, val, objective, params.batch_size)
            result = EpochResult(epoch, *on_train, *on_val)
            _require_finite(result, params)
            if params.keep_epoch == "best" and all(result.val_accuracy > earlier.val_accuracy for earlier in results):
                require_finite_weights(optimizer.parameters, params)
                checkpoints.save_best(optimizer.parameters)
            results.append(result)
            report(result)
            if not _is_finished(results, params):
                checkpoints.save(optimizer.tensors(), results)
    if params.keep_epoch == "best":
        checkpoints.restore_best(optimizer.parameters)
    return results


def measure_only_epoch(
    on_train: tuple[Iterable[NDArray[np.float32]], NDArray[np.int64]],
    on_val: tuple[NDArray[np.float32], NDArray[np.int64]],
    objective: Objective,
    params: TrainParams,
) -> EpochResult:
    """Return the only epoch of what was fitted at once, from logits and labels on train and on val.

    The logits on train come in blocks of examples.

    Raises DivergedError when a loss is not finite.
    """
    result = EpochResult(1, *_measure(objective, *on_train), *_measure(objective, [on_val[0]], on_val[1]))
    _require_finite(result, params)
    return result


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


def require_finite_weights(tensors: Mapping[str, Tensor], params: TrainParams) -> None:
    """Raise DivergedError when weights are not finite: where ReLU hides it, the loss does not show it."""
    if names := list_not_finite(tensors):
        raise _describe_divergence(f"weights are not finite ({', '.join(names)})", params)


def _describe_divergence(what: str, params: TrainParams) -> DivergedError:
    """Return the error for a training whose numbers are not finite, with the params that likely caused it."""
    causes = {
        "lda": [f"train.lda_shrinkage ({params.lda_shrinkage:g}) is too low"],
        "logistic": [f"train.logistic_c ({params.logistic_c:g}) is too high"],
        "ridge": [f"train.ridge_penalty ({params.ridge_penalty:g}) is too low"],
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


def _compute_learning_rate(params: TrainParams, progress: float) -> float:
    """Return the learning rate after a fraction `progress` of all steps.

    "cosine" falls to 0 along half a period (Loshchilov and Hutter, 2017, without restarts).
    """
    if params.learning_rate_schedule == "constant":
        return params.learning_rate
    return params.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def train_one_epoch(
    network: Network,
    optimizer: NetworkAdam,
    examples: Examples,
    batches: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]],
    objective: Objective,
    compute_learning_rate: Callable[[int], float],
    on_step: Callable[[float, int], object],
) -> tuple[float, float]:
    """Take one step for each batch of positions and views; return mean loss and accuracy.

    `on_step` gets the loss of each step and the number of its examples.
    """
    network.train()
    loss_sum = 0.0
    label_count = hit_count = 0
    for positions, views in batches:
        inputs, labels = examples.gather(positions, views)
        logits = network(inputs)
        labels = labels.to(logits.device)
        loss = objective.compute_loss(logits, labels)
        optimizer.learning_rate = compute_learning_rate(optimizer.step_count)
        torch.autograd.backward(loss)
        optimizer.step()
        batch_loss = loss.item()
        count = objective.count_labels(labels)
        loss_sum += batch_loss * count
        label_count += count
        hit_count += objective.count_hits(logits, labels)
        on_step(batch_loss, len(labels))
    return loss_sum / label_count, hit_count / label_count


def validate(network: Network, examples: Examples, objective: Objective, batch_size: int) -> tuple[float, float]:
    """Return mean loss and accuracy without training."""
    logits, labels = compute_logits(network, examples, batch_size)
    return _measure(objective, [logits], labels)


def _measure(
    objective: Objective, blocks: Iterable[NDArray[np.float32]], labels: NDArray[np.int64]
) -> tuple[float, float]:
    """Return mean loss and accuracy of (N,) labels, of which each block of logits takes the next."""
    measured, counts, start = [], [], 0
    for logits in blocks:
        of_block = torch.from_numpy(labels[start : start + len(logits)])
        measured.append(objective.measure(torch.from_numpy(logits), of_block))
        counts.append(objective.count_labels(of_block))
        start += len(logits)
    if len(measured) == 1:  # without the rounding of a mean
        return measured[0]
    loss, accuracy = np.average(measured, axis=0, weights=counts).tolist()
    return loss, accuracy


@torch.inference_mode()
def compute_logits(
    network: Network, examples: Examples, batch_size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (N, outputs) logits and the labels of all examples, in order; puts the network in evaluation mode.

    Logits are means over all views of a photograph.
    """
    network.eval()
    # One array: small results, kept one by one, would keep the memory of their batches from being freed.
    logits = np.empty((len(examples), network.output_count), np.float32)
    for positions in _batches(np.arange(len(examples)), batch_size):
        views = (examples.gather(positions, view)[0] for view in range(examples.view_count))
        logits[positions] = network.average(views).cpu().numpy()
    return logits, examples.labels


def _batches(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
