"""Find the files of a result: in the workspace, in a git revision or DVC experiment, or in an MLflow run."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from celebflow import paths
from celebflow.data.photos import Photo, load_photos
from celebflow.data.tables import load_rows
from celebflow.errors import CelebflowError, raise_shortage
from celebflow.evaluation.cross_validation import FoldResult
from celebflow.evaluation.results import (
    PersonPrediction,
    Prediction,
    load_metrics,
    load_person_predictions,
    load_predictions,
)
from celebflow.experiments.results import WORKSPACE, copy_outputs, find_maker
from celebflow.features.store import Features, load_features
from celebflow.params import Params, keep_informative, load_flat_params, load_params
from celebflow.tracking.git import require_commit
from celebflow.tracking.provenance import LockedResult, advise_to_make, parse_locked_result, read_locked_md5s

# Files are small and fetched one at a time, so progress bars would only flicker.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@dataclass(frozen=True)
class FoundResult:
    """What a comparison needs of a result: name, metrics by split, flat params, and the predictions of one split.

    `data_md5` is that of its photographs, empty where it is not known.
    """

    name: str
    metrics: dict[str, dict[str, float]]
    params: dict[str, object]
    predictions: list[Prediction]
    data_md5: str


def find_result(name: str, split: str) -> FoundResult:
    """Read the metrics, params and predictions of a result.

    `name` is "workspace", a git revision, a DVC experiment, or the id of an MLflow run or the beginning of its id.

    Raises CelebflowError when there is no such result, or its files cannot be read.
    """
    with _fetch(name, paths.ALL_METRICS, paths.PARAMS, _predictions_file(split)) as (metrics, params, predictions):
        made_with = load_flat_params(params)
        locked = None
        with suppress(CelebflowError), _fetch(name, paths.LOCK) as (lock,):  # an MLflow run has none
            locked = parse_locked_result(lock)
        if locked is not None:
            made_with |= _find_params(name, locked)  # params.yaml may have changed since
        informative = keep_informative(made_with)
        data_md5 = "" if locked is None else locked.data_md5
        return FoundResult(name, load_metrics(metrics), informative, load_predictions(predictions), data_md5)


def find_predictions(name: str, split: str) -> list[Prediction]:
    """Read a result's predictions of one split; `name` and errors are those of find_result."""
    with _fetch_predictions(name, split) as predictions:
        return load_predictions(predictions)


def find_person_predictions(name: str, split: str) -> list[PersonPrediction]:
    """Read a result's predictions of one split with p values; `name` and errors are those of find_result."""
    with _fetch_predictions(name, split) as predictions:
        return load_person_predictions(predictions)


def find_photos(name: str) -> list[Photo]:
    """Read which photographs a result was made from; `name` and errors are those of find_result."""
    with _fetch(name, paths.PHOTOS) as (photos,):
        return load_photos(photos)


def find_folds(name: str) -> list[FoldResult]:
    """Read a result's folds of cross-validation; `name` and errors are those of find_result."""
    with _fetch(name, paths.CROSS_VALIDATION / "folds.csv") as (folds,):
        return load_rows(FoldResult, folds, may_be_empty=False)


@contextmanager
def _fetch_predictions(name: str, split: str) -> Iterator[Path]:
    with _fetch(name, _predictions_file(split)) as (predictions,):
        if name == WORKSPACE:
            _require_evaluated(parse_locked_result(paths.LOCK))
        yield predictions


def find_predictions_of_params(
    names: Sequence[str], params: Mapping[str, object], data_md5: str, split: str
) -> tuple[str, list[Prediction]] | None:
    """Return the first result that was made with these params and photographs: its name and predictions, or None.

    `params` are all informative ones, flat. What a result was made with is in dvc.lock: params.yaml may have changed
    since.
    """
    for name in names:
        with suppress(CelebflowError), _fetch(name, paths.LOCK, _predictions_file(split)) as (lock, predictions):
            made_with = keep_informative(_find_params(name, parse_locked_result(lock)))
            if made_with == params and read_locked_md5s(lock).get("data") == data_md5:
                return name, load_predictions(predictions)
    return None


def _find_params(name: str, locked: LockedResult) -> dict[str, object]:
    """Return the flat params that made the metrics of a result, by its dvc.lock.

    Raises CelebflowError when dvc.lock does not say it: stages have run since, or the workspace has other files.
    """
    _require_evaluated(locked)
    here = paths.MLFLOW_RUN_ID if name == WORKSPACE and locked.trained else None
    if here and here.exists() and not locked.is_of(here.read_text(errors="replace")):
        raise CelebflowError(
            f"The result here is not that of {paths.LOCK}, so what made it is not known. Run `dvc checkout` for the "
            "result in dvc.lock, or `dvc repro` for a new one."
        )
    return locked.params


def _require_evaluated(locked: LockedResult) -> None:
    """Raise CelebflowError when evaluate has not ended since the stages before it: the metrics are of older params."""
    if locked.evaluated and not locked.is_whole():
        raise CelebflowError(
            "evaluate has not ended since the stages before it: the predictions and metrics are those of an older "
            "result. Run `dvc repro`."
        )


def _predictions_file(split: str) -> Path:
    return paths.REPORTS / split / "predictions.csv"


def require(*files: Path) -> None:
    """Raise CelebflowError when a file of the workspace is missing."""
    for file in files:
        if not file.exists():
            raise CelebflowError(f"{file} is missing. {advise_to_make(file, maker=find_maker(file))}.")


def load_recognition_params(what: str) -> Params:
    """Return the workspace's params; raise CelebflowError, which begins with `what`, when their task is another one."""
    params = load_params(paths.PARAMS)
    if params.task != "recognition":
        raise CelebflowError(f"{what} for the task recognition, and {paths.PARAMS} has {params.task}.")
    return params


def load_for_recognition(what: str) -> tuple[Params, Features]:
    """Return the workspace's params and features; `what` begins the error where its task does not recognize people.

    Raises CelebflowError then, and when there are no features.
    """
    require(paths.FEATURES)
    params = load_recognition_params(what)
    return params, load_features(paths.FEATURES, paths.PHOTOS)


@contextmanager
def _fetch(name: str, *files: Path) -> Iterator[Sequence[Path]]:
    """Fetch files of a result, if need be into a temporary folder; errors about their content name the result."""
    with TemporaryDirectory() as folder:
        if name == WORKSPACE:
            require(*files)
            found: Sequence[Path] = files
        else:
            if name == "HEAD":
                require_commit()
            found = copy_outputs(files, name, Path(folder)) or _download(name, files, folder)
        try:
            yield found
        except CelebflowError as error:
            raise CelebflowError(f"{name}: {str(error).replace(f'{folder}/', '')}") from None


def _download(name: str, files: Sequence[Path], folder: str) -> list[Path]:
    """Fetch files of an MLflow run."""
    from celebflow.experiments.registry import find_named_run  # imports MLflow, which takes seconds
    from celebflow.tracking import stores

    try:
        if not stores.store_exists():
            raise CelebflowError(f"There is no MLflow store {stores.describe_store()}.")
        with stores.short_timeouts():
            client = stores.open_store()
            run_id = find_named_run(client, name).info.run_id
        with stores.translate_files_errors():
            return [Path(client.download_artifacts(run_id, file.as_posix(), folder)) for file in files]
    except stores.STORE_ERRORS as error:
        raise_shortage(error)
        listed = ", ".join(str(file) for file in files)
        reason = f"No MLflow run of this name has readable {listed} ({stores.describe_failure(error)})."
    except CelebflowError as error:
        reason = str(error)
    raise CelebflowError(f"{name} is not a git revision or a DVC experiment. {reason}")


@contextmanager
def fetch_model(address: str | None, revision: str | None) -> Iterator[Path]:
    """Fetch the model of a git revision or DVC experiment, or else at an MLflow address, into a temporary folder.

    Errors about the model's files name the revision or the address.

    Raises CelebflowError when there is no such model, or its files cannot be read.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        if revision is None:
            from celebflow.experiments.registry import download_model

            option = f"--model is {address}"
            folder = download_model(str(address), folder)
        else:
            require_commit()
            option = f"--rev is {revision}"
            if not copy_outputs([paths.CLASSIFIER, paths.BACKBONE], revision, folder):
                raise CelebflowError(f"{option}, which is not a git revision or a DVC experiment here.")
        try:
            yield folder
        except CelebflowError as error:
            if name not in str(error):
                raise
            # Nobody knows the temporary folder.
            raise CelebflowError(f"{option}: {str(error).replace(f'{folder}/', '')}") from None
