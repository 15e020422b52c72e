"""Name and describe an MLflow run."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Template

from celebflow.backbone.source import BackboneSource
from celebflow.tracking.provenance import Provenance, read_lock
from celebflow.versions import find_version

# The environment variable through which a search tells its experiments the id of its own run.
PARENT_VARIABLE = "CELEBFLOW_PARENT_RUN"
# Tags: the DVC experiment of a run, and the command that restores its result.
EXPERIMENT_TAG, RESTORE_TAG = "celebflow.dvc_experiment", "celebflow.restore"
_LIBRARIES = ("torch", "ncnn", "dvc", "mlflow")
_DESCRIPTION = Path(__file__).parent / "templates" / "run.md.jinja"


def describe_run(run_id: str, tags: Mapping[str, str], metrics: Mapping[str, Mapping[str, float]], picture: str) -> str:
    """Return a run's description in Markdown: warning, headline figures, how to restore it, and pictures.

    `picture` is the name of a figure that is shown beside that of the accuracy.
    """
    template = Template(_DESCRIPTION.read_text(encoding="utf-8"), trim_blocks=True)
    description: str = template.render(run_id=run_id, tags=tags, metrics=metrics, picture=picture)
    return description


def name_run(provenance: Provenance, source: BackboneSource, changed: Mapping[str, object], data_change: str) -> str:
    """Return a run's name: what differs, the task and then the shortest first; the experiment's name.

    `changed` are the params that differ from the commit or, where there is none, from the defaults. Lists show the
    beginnings of names, so these tell runs apart.
    """
    task = [f"task {changed['task']}"] if "task" in changed else []
    changes = task + [f"{name.split('.')[-1]} {_shorten(value)}" for name, value in changed.items() if name != "task"]
    in_order = sorted(filter(None, [*changes, data_change]), key=lambda change: (change not in task, len(change)))
    name = ", ".join(in_order)
    if provenance.experiment:
        name = f"{name} ({provenance.experiment})" if name else provenance.experiment
    name = name or ("committed params" if provenance.commit else "default params")
    return name if source.trained else f"{name} (UNTRAINED BACKBONE)"


def rename_run(name: str, lost: str, experiment: str) -> str:
    """Return the name of a run of the experiment `lost` as one of another experiment, or of none."""
    if f" ({lost})" in name:
        return name.replace(f" ({lost})", f" ({experiment})" if experiment else "", 1)
    return f"{experiment}{name.removeprefix(lost)}" if experiment and name.startswith(lost) else name


def _shorten(value: object) -> object:
    """Return a value, of a path only the file's name."""
    return Path(value).name if isinstance(value, str) else value


def describe_origin(provenance: Provenance, source: BackboneSource) -> dict[str, str]:
    """Return the tags that say which code, data, weights and machine a run comes from."""
    tags = {
        "mlflow.source.name": "dvc.yaml",
        "mlflow.source.git.commit": provenance.commit,
        "mlflow.source.git.branch": provenance.branch,
        "celebflow.git_dirty": str(provenance.dirty).lower() if provenance.commit else "",
        "mlflow.parentRunId": os.environ.get(PARENT_VARIABLE, ""),
        EXPERIMENT_TAG: provenance.experiment,
        RESTORE_TAG: provenance.restore_command(),
        "celebflow.warning": source.warning(),
        "celebflow.backbone_weights": source.weights,
        "celebflow.backbone_trained": str(source.trained).lower(),
        "celebflow.backbone_fingerprint": source.fingerprint,
        **{f"celebflow.{name}_md5": md5 for name, md5 in read_lock().items() if name != "classifier"},
        **{f"celebflow.{name}": value for name, value in describe_machine().items()},
    }
    # MLflow's file store writes each tag to a file of its name, and DVC would take celebflow.dvc for one of its own.
    tags["celebflow.dvc_version"] = tags.pop("celebflow.dvc")
    return {name: value for name, value in tags.items() if value}


def describe_machine() -> dict[str, str]:
    """Return what rounding and speed depend on: libraries, Python and machine."""
    return {
        **{library: find_version(library) for library in _LIBRARIES},
        "python": platform.python_version(),
        "machine": f"{platform.node()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
