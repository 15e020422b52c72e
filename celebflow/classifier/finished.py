"""Train a task's model and save it, unless another machine has finished that training."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celebflow import paths
from celebflow.classifier.history import EpochResult, load_history, save_history
from celebflow.features.store import Features
from celebflow.params import ComputeParams, TrainParams

if TYPE_CHECKING:
    from celebflow.classifier.checkpoints import Checkpoints  # imports PyTorch


def train_and_save(
    train: Callable[..., Any],
    features: Features,
    params: TrainParams,
    compute: ComputeParams,
    checkpoints: "Checkpoints",
    log_epoch: Callable[[EpochResult], None],
) -> None:
    """Write models/classifier.safetensors and reports/history.csv, and call `log_epoch` with each epoch.

    `train` is that of a task. What another machine has finished is taken instead.
    """
    if checkpoints.copy_finished(paths.CLASSIFIER, paths.HISTORY):
        print("A node of the cluster has done this training.")
        for result in load_history(paths.HISTORY):
            log_epoch(result)
        return
    model, epochs = train(features, params, compute, checkpoints, log_epoch)
    save_history(epochs, paths.HISTORY)
    model.save(paths.CLASSIFIER)
