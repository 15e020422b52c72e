"""Where each artifact of the pipeline lies, relative to the folder that contains dvc.yaml."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
DATA = Path("data")
RECIPES = Path("recipes")

PHOTOS = Path("splits/photos.csv")
LEFT_OUT = Path("splits/left_out.csv")
DUPLICATES = Path("splits/duplicates.csv")

BACKBONE = Path("models/backbone.safetensors")
FEATURES = Path("features")
FACES = FEATURES / "faces.csv"
CLASSIFIER = Path("models/classifier.safetensors")
MLFLOW_RUN_ID = Path("models/mlflow_run_id.txt")

REPORTS = Path("reports")
HISTORY = REPORTS / "history.csv"
METRICS = REPORTS / "metrics.json"
FIGURES = REPORTS / "figures"
PAGE = REPORTS / "index.html"


def repository() -> Path:
    """Return the user's repository, even inside the temporary copy in which DVC runs queued experiments.

    DVC sets DVC_ROOT to it for every stage that it runs; outside of DVC, it is the working directory.
    """
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def own_folder() -> Path:
    """Return celebflow's folder in the user's repository, for what neither git nor DVC tracks."""
    return repository() / ".celebflow"


def feature_cache() -> Path:
    """Return the folder of the feature cache, which all branches and experiments of a repository share."""
    return Path(os.environ.get("CELEBFLOW_CACHE") or own_folder() / "features")


def checkpoints() -> Path:
    """Return the folder of the checkpoints of training runs that are in progress or were killed."""
    return own_folder() / "checkpoints"


def waiting_runs() -> Path:
    """Return the folder of the MLflow runs that wait for their store to be reachable."""
    return own_folder() / "waiting_runs"
