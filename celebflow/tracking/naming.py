"""Name and describe an MLflow run."""

import os
from collections.abc import Mapping

from celebflow.backbone.vgg19 import BackboneSource
from celebflow.tracking.provenance import (
    Provenance,
    describe_machine,
    read_lock,
)

# Names the run that a search has opened to the runs of its experiments.
PARENT_VARIABLE = "CELEBFLOW_PARENT_RUN"


def describe_run(run_id: str, tags: Mapping[str, str], metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Return a run's description in Markdown: warning, headline figures, pictures, and how to restore it."""
    warning, restore = tags.get("celebflow.warning"), tags.get("celebflow.restore")
    names = list(next(iter(metrics.values())))
    table = [
        f"| | {' | '.join(name.replace('_', ' ') for name in names)} |",
        f"|---|{'---|' * len(names)}",
        *(
            f"| {split} | {' | '.join(f'{figures[name]:.4f}' for name in names)} |"
            for split, figures in metrics.items()
        ),
    ]
    pictures = [
        f"![{name}](get-artifact?path=reports/figures/{name}.png&run_uuid={run_id})"
        for name in ("accuracy", "val_confusion_matrix")
    ]
    restoring = f"Restore it: `{restore}`" if restore else "Made with changes that are not committed; see params.yaml."
    return "\n\n".join([*([f"**{warning}**"] if warning else []), "\n".join(table), restoring, "\n".join(pictures)])


def name_run(provenance: Provenance, source: BackboneSource, changed: Mapping[str, object]) -> str:
    """Say what was tried: the experiment's name, and what differs from the params that are committed."""
    changes = ", ".join(f"{name.split('.')[-1]} {value}" for name, value in changed.items())
    name = ": ".join(part for part in (provenance.experiment, changes) if part) or "committed params"
    return name if source.trained else f"{name} (UNTRAINED BACKBONE)"


def describe_origin(provenance: Provenance, source: BackboneSource) -> dict[str, str]:
    """Return the tags that lead from a run to its code, data, params and machine."""
    tags = {
        "mlflow.source.name": "dvc.yaml",
        "mlflow.source.git.commit": provenance.commit,
        "mlflow.source.git.branch": provenance.branch,
        "celebflow.git_dirty": str(provenance.dirty).lower() if provenance.commit else "",
        "mlflow.parentRunId": os.environ.get(PARENT_VARIABLE, ""),
        "celebflow.dvc_experiment": provenance.experiment,
        "celebflow.restore": provenance.restore_command(),
        "celebflow.warning": source.warning(),
        "celebflow.backbone_weights": source.weights,
        "celebflow.backbone_trained": str(source.trained).lower(),
        "celebflow.backbone_fingerprint": source.fingerprint,
        **{f"celebflow.{name}_md5": md5 for name, md5 in read_lock().items() if name != "classifier"},
        **{f"celebflow.{name}": value for name, value in describe_machine().items()},
    }
    return {name: value for name, value in tags.items() if value}
