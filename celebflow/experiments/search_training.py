"""The trainings of trials that are to come → done on the nodes of a cluster, several at once."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from celebflow import paths, tasks
from celebflow.classifier.checkpoints import LABELS, has_finished, keep_finished, open_checkpoints
from celebflow.classifier.cluster_training import train_on_cluster
from celebflow.classifier.finished import train_and_save
from celebflow.errors import CelebflowError
from celebflow.experiments.lookup import require
from celebflow.experiments.recipes import apply_changes
from celebflow.features.store import Features, load_features, share_features
from celebflow.params import ComputeParams, Params, TaskName, TrainParams


def train_ahead(params: Params, trials: Sequence[Mapping[str, object]]) -> None:
    """Do the trainings of trials, each with changes of `params`, on the nodes of the cluster, and keep them for these.

    The stage train of a trial then takes what is kept. It trains here what is not: where other features are needed than
    those of the workspace, which is told, and where params or a training fail, for which the stage says why.

    Raises CelebflowError when there are no features, or the cluster cannot be used.
    """
    wanted = []
    for changes in trials:
        with suppress(CelebflowError):
            wanted.append(apply_changes(params, changes))
    alike = [each.train for each in wanted if each.model_copy(update={"train": params.train}) == params]
    if len(alike) < len(wanted):
        print(
            f"{len(wanted) - len(alike)} trials change more than train.*, and train on this machine one after the "
            "other: the cluster has the features of the workspace alone. Change the others in params.yaml, and run "
            "`dvc repro` and the search without them.",
            file=sys.stderr,
        )
    require(paths.FEATURES)
    features, compute = load_features(paths.FEATURES, paths.PHOTOS), params.compute
    missing: list[TrainParams] = []
    for each in alike:
        if each not in missing and not has_finished(features, each, compute):
            missing.append(each)
    if not missing:
        return
    shared = share_features(features, shared_disk=compute.shared_disk)
    inputs = {file: file.read_bytes() for file in LABELS if file.exists()}
    train = partial(_train, params.task, shared, compute, inputs)
    for place, outputs in train_on_cluster(train, missing, compute, "training"):
        if outputs is not None:
            keep_finished(features, missing[place], compute, outputs)


def _train(
    task: TaskName, features: Features, compute: ComputeParams, inputs: Mapping[Path, bytes], params: TrainParams
) -> dict[Path, bytes] | None:
    """Do on a node what the stage train does, and return the files that it writes; None when the training fails."""
    with TemporaryDirectory() as folder, chdir(folder):
        for file, content in inputs.items():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        try:
            with open_checkpoints(features, params, compute) as saved:
                train_and_save(tasks.load_step(task, "train"), features, params, compute, saved, lambda _: None)
        except CelebflowError:
            return None
        return {file: file.read_bytes() for file in (paths.CLASSIFIER, paths.HISTORY)}
