"""Where each artifact of the pipeline lies, relative to the folder that contains dvc.yaml."""

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

from celebflow.errors import CelebflowError

PIPELINE = Path("dvc.yaml")
PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")
DATA = Path("data")
DATA_RECORD = Path("data.dvc")
RECIPES = Path("recipes")
CONFIRMED = Path("confirmed.csv")  # git tracks it

PHOTOS = Path("splits/photos.csv")
PAIRS = Path("splits/pairs.csv")
FOLDS = Path("splits/folds.csv")
ATTRIBUTES = Path("splits/attributes.csv")
ATTRIBUTE_BALANCE = Path("splits/attribute_balance.csv")
LEFT_OUT = Path("splits/left_out.csv")
DUPLICATES = Path("splits/duplicates.csv")

BACKBONE = Path("models/backbone.safetensors")
FEATURES = Path("features")
FACES = FEATURES / "faces.csv"
CLASSIFIER = Path("models/classifier.safetensors")
ENROLLED = Path("models/enrolled.safetensors")  # neither git nor DVC tracks it
MLFLOW_RUN_ID = Path("models/mlflow_run_id.txt")

REPORTS = Path("reports")
HISTORY = REPORTS / "history.csv"
METRICS = REPORTS / "metrics.json"
ALL_METRICS = REPORTS / "all_metrics.json"
FIGURES = REPORTS / "figures"
PAGE = REPORTS / "index.html"
# Neither git nor DVC tracks what commands write there.
SUSPECTS = REPORTS / "suspects.csv"
SUSPECTS_PAGE = REPORTS / "suspects.html"
CROSS_VALIDATION = REPORTS / "crossvalidation"
REVIEW_PAGE = REPORTS / "review.html"  # leads to the page of a review
LEARNING_CURVE = REPORTS / "learning_curve.csv"
LEARNING_CURVE_FIGURE = REPORTS / "learning_curve.png"
EVIDENCE = REPORTS / "evidence.csv"
COMPARISON_PAGE = REPORTS / "comparison.html"
WHY_PAGE = REPORTS / "why.html"


def project() -> Path:
    """Return the folder with dvc.yaml in the workspace, even inside the temporary copy in which DVC runs experiments.

    DVC sets DVC_ROOT to the root of the workspace's DVC repository for every stage that it runs, and the project lies
    as deep below it as the working directory lies below the root of the copy.
    """
    here = Path.cwd()
    root = os.environ.get("DVC_ROOT")
    if not root:
        return here
    copy = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)
    return Path(root) / here.relative_to(copy)


def require_project() -> None:
    """Raise CelebflowError when the working directory is not that of a project, or has a name that DVC cannot use."""
    here = Path.cwd()
    try:
        str(here).encode()
    except UnicodeEncodeError:
        raise CelebflowError(
            f"The name of {here} is not in UTF-8, and DVC and MLflow cannot use it. Rename that folder, or move the "
            "project elsewhere."
        ) from None
    if (here / PIPELINE).exists():
        return
    found = next((str(folder) for folder in here.parents if (folder / PIPELINE).exists()), "")
    remedy = f"Run `cd {shlex.quote(found)}` first." if found else "Run this in the folder of a project."
    raise CelebflowError(f"{here} has no {PIPELINE}. {remedy}")


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield the path of a file to write, and put it in the place of `path`, whole or, when writing fails, not at all.

    The folder is made if it is missing. A device or a pipe is written as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        yield path
        return
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        if error.filename in (None, str(part)):  # None when the disk is full
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # where it cannot be made, the reason is known
            part.unlink(missing_ok=True)


def require_writable(*files: Path) -> None:
    """Raise OSError where write_whole could not write one of these files, before what is written there is computed.

    It leaves nothing behind: folders that are missing are made, and removed again.
    """
    for path in files:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        missing = [*takewhile(lambda folder: not folder.exists(), path.parents)]
        try:
            with suppress(_UnwrittenError), write_whole(path) as part:
                if part != path:
                    part.touch()
                raise _UnwrittenError
        finally:
            with suppress(OSError):
                for folder in missing:
                    folder.rmdir()


class _UnwrittenError(Exception):
    """A file was not to be written, only tried."""


def own_folder() -> Path:
    """Return celebflow's folder in the project, for what neither git nor DVC tracks."""
    return project() / ".celebflow"


def feature_cache() -> Path:
    """Return the folder of the feature cache, which all branches and experiments of a project share.

    CELEBFLOW_CACHE is relative to the project, because DVC runs experiments in temporary copies.
    """
    return project() / (os.environ.get("CELEBFLOW_CACHE") or own_folder() / "features")


def checked_photographs() -> Path:
    """Return the file of what prepare has found out about each photograph."""
    return own_folder() / "checked.db"


def checkpoints() -> Path:
    """Return the folder of the checkpoints of training runs that are in progress or were killed."""
    return own_folder() / "checkpoints"


def fits() -> Path:
    """Return the folder of what was fitted to features and is kept for other trainings on them."""
    return own_folder() / "fits"


def searches() -> Path:
    """Return the folder of the records of searches, by which interrupted searches continue."""
    return own_folder() / "searches"


def review() -> Path:
    """Return the folder of what a review of suspects keeps."""
    return own_folder() / "review"


def deleted() -> Path:
    """Return the folder of photographs that a review has deleted, from where they can return."""
    return review() / "deleted"


def waiting_runs() -> Path:
    """Return the folder of the MLflow runs that wait for their store to be reachable."""
    return own_folder() / "waiting_runs"
