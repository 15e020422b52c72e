"""Where the files of a result are: in the workspace, in a revision of DVC's, or with a run of MLflow's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from celebflow import paths, stores
from celebflow.errors import CelebflowError
from celebflow.experiments import copy_outputs
from celebflow.registry import download_model, find_named_run
from celebflow.reports import Prediction, load_predictions

WORKSPACE = "workspace"
# One small file is fetched at a time.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def find_predictions(name: str, split: str) -> list[Prediction]:
    """Return a result's predictions of one split.

    `name` is "workspace", a revision or an experiment of DVC's, or the id of an MLflow run or its beginning.

    Raises CelebflowError when there is no such result, or its files are gone.
    """
    file = paths.REPORTS / split / "predictions.csv"
    if name == WORKSPACE:
        if not file.exists():
            raise CelebflowError(f"{file} is missing. Run `dvc repro`.")
        return _load(file, name)
    with TemporaryDirectory() as folder:
        copies = copy_outputs([file], name, Path(folder))
        return _load(copies[0] if copies else _download(name, file, Path(folder)), name)


@contextmanager
def fetch_model(address: str | None, revision: str | None) -> Iterator[Path]:
    """Fetch the model of a revision of DVC's, or else the one at an address of MLflow's, to a folder, for a while.

    Raises CelebflowError when there is no such model, or its files are gone.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        if revision is None:
            yield download_model(str(address), folder)
            return
        if not copy_outputs([paths.CLASSIFIER, paths.BACKBONE], revision, folder):
            raise CelebflowError(f"--rev is {revision}, which is no revision or experiment of DVC's here.")
        yield folder


def _download(name: str, file: Path, folder: Path) -> Path:
    """Fetch a file of an MLflow run."""
    try:
        client = stores.open_store()
        run = find_named_run(client, name)
        return Path(client.download_artifacts(run.info.run_id, file.as_posix(), str(folder)))
    except stores.STORE_ERRORS as error:
        raise CelebflowError(
            f"{name} is no revision or experiment of DVC's, and no MLflow run with {file} could be read "
            f"({stores.describe_failure(error)})."
        ) from None


def _load(file: Path, name: str) -> list[Prediction]:
    try:
        return load_predictions(file)
    except CelebflowError as error:
        raise CelebflowError(f"{name}: {error}") from None
