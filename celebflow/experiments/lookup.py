"""Find the files of a result: in the workspace, in a git revision or DVC experiment, or in an MLflow run."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.evaluation.results import Prediction, load_metrics, load_predictions
from celebflow.experiments.registry import download_model, find_named_run
from celebflow.experiments.results import copy_outputs
from celebflow.params import keep_informative, load_flat_params
from celebflow.tracking import stores

WORKSPACE = "workspace"
# Files are small and fetched one at a time, so progress bars would only flicker.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@dataclass(frozen=True)
class FoundResult:
    """What a comparison needs of a result: name, metrics by split, flat params, and the predictions of one split."""

    name: str
    metrics: dict[str, dict[str, float]]
    params: dict[str, object]
    predictions: list[Prediction]


def find_result(name: str, split: str) -> FoundResult:
    """Read the metrics, params and predictions of a result.

    `name` is "workspace", a git revision, a DVC experiment, or the id of an MLflow run or the beginning of its id.

    Raises CelebflowError when there is no such result, or its files cannot be read.
    """
    with _fetch(name, [paths.METRICS, paths.PARAMS, _predictions_file(split)]) as (metrics, params, predictions):
        shown = keep_informative(load_flat_params(params))
        return FoundResult(name, load_metrics(metrics), shown, _load(predictions, name))


def find_predictions(name: str, split: str) -> list[Prediction]:
    """Read a result's predictions of one split; `name` and errors are those of find_result."""
    with _fetch(name, [_predictions_file(split)]) as (predictions,):
        return _load(predictions, name)


def _predictions_file(split: str) -> Path:
    return paths.REPORTS / split / "predictions.csv"


@contextmanager
def _fetch(name: str, files: Sequence[Path]) -> Iterator[list[Path]]:
    """Fetch files of a result into a temporary folder."""
    if name == WORKSPACE:
        for file in files:
            if not file.exists():
                raise CelebflowError(f"{file} is missing. Run `dvc repro`.")
        yield list(files)
        return
    with TemporaryDirectory() as folder:
        copies = copy_outputs(files, name, Path(folder))
        yield _download(name, files, Path(folder)) if copies is None else copies


@contextmanager
def fetch_model(address: str | None, revision: str | None) -> Iterator[Path]:
    """Fetch the model of a git revision or DVC experiment, or else at an MLflow address, into a temporary folder.

    Raises CelebflowError when there is no such model, or its files cannot be read.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        if revision is None:
            yield download_model(str(address), folder)
            return
        if not copy_outputs([paths.CLASSIFIER, paths.BACKBONE], revision, folder):
            raise CelebflowError(f"--rev is {revision}, which is not a git revision or a DVC experiment here.")
        yield folder


def _download(name: str, files: Sequence[Path], folder: Path) -> list[Path]:
    """Fetch files of an MLflow run."""
    file = files[0]
    copies = []
    try:
        client = stores.open_store()
        run = find_named_run(client, name)
        for file in files:
            copies.append(Path(client.download_artifacts(run.info.run_id, file.as_posix(), str(folder))))
        return copies
    except stores.STORE_ERRORS as error:
        reason = f"No MLflow run of this name has a readable {file} ({stores.describe_failure(error)})."
    except CelebflowError as error:
        reason = str(error)
    raise CelebflowError(f"{name} is not a git revision or a DVC experiment. {reason}")


def _load(file: Path, name: str) -> list[Prediction]:
    try:
        return load_predictions(file)
    except CelebflowError as error:
        raise CelebflowError(f"{name}: {error}") from None
