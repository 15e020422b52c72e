"""DVC's experiments run beside the workspace, and their results are listed and compared."""

import json
from typing import Any

import pytest
from mlflow.entities import Run

from tests.repository import Repository, clone_repository

pytestmark = pytest.mark.slow


# The commands run as processes: DVC's queue packs git's objects, and in this process DVC would leave the packs open.
@pytest.fixture(scope="module")
def experiments(template: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Return a repository where two workers have run two queued experiments; tests do not change it."""
    repository = clone_repository(template, tmp_path_factory.mktemp("experiments") / "repository")
    repository.run_queued(**{"lower": "train.learning_rate=0.00001", "other-split": "prepare.seed=7"})
    return repository


def _find_run(repository: Repository, experiment: str) -> Run:
    (run,) = [run for run in repository.runs() if run.data.tags.get("celebflow.dvc_experiment") == experiment]
    return run


def test_queued_experiments_log_a_run_each(experiments: Repository) -> None:
    *runs, _ = experiments.runs()
    assert sorted(run.data.params["train.learning_rate"] for run in runs) == ["0.001", "1e-05"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["celebflow.restore"] for run in runs} == {"dvc exp apply lower", "dvc exp apply other-split"}


def test_experiments_outside_the_workspace_share_its_store_and_cache(experiments: Repository) -> None:
    assert "0 photographs extracted" in experiments.run("dvc", "queue", "logs", "other-split")
    run = _find_run(experiments, "other-split")
    assert run.info.run_name.startswith("seed 7 (other-split)")
    assert run.info.artifact_uri.startswith((experiments.folder / "mlartifacts").as_uri())


def test_runs_are_listed_with_commits_and_experiments(experiments: Repository) -> None:
    rows = [line.split() for line in experiments.run("celebflow", "runs").splitlines()]
    by_name = {row[0]: row for row in rows}
    head = experiments.run("git", "rev-parse", "--abbrev-ref", "HEAD").strip()
    for name in ("workspace", head):
        assert by_name[name][-1] == experiments.run_id()
        assert float(by_name[name][1]) == pytest.approx(experiments.read_metrics()["val"]["accuracy"], abs=1e-4)
    run = _find_run(experiments, "lower")
    assert by_name["lower"][-2:] == ["train.learning_rate=1e-05", run.info.run_id]


def _compare(experiments: Repository, *names: str) -> dict[str, Any]:
    """Return what `celebflow compare` writes as JSON; on standard error, a slow machine may say that it waits."""
    content: dict[str, Any] = json.loads(
        experiments.run("sh", "-c", f"celebflow compare {' '.join(names)} --json 2>/dev/null")
    )
    return content


def test_results_are_compared_wherever_they_are(experiments: Repository) -> None:
    run = _find_run(experiments, "lower")
    head = experiments.run("git", "rev-parse", "HEAD").strip()
    comparisons = []
    for a, b in (("workspace", "lower"), (head[:8], run.info.run_id[:12])):
        comparisons.append(_compare(experiments, a, b))
        assert (comparisons[-1].pop("a"), comparisons[-1].pop("b")) == (a, b)
    compared = comparisons[0]
    assert comparisons == [compared] * 2
    assert compared["count"] == 12
    assert compared["accuracy_b"] == pytest.approx(run.data.metrics["val/final_accuracy"], abs=1e-6)
    assert len(compared["broken"]) == compared["overall"]["only_a"] > 0


def test_result_does_not_differ_from_itself(experiments: Repository) -> None:
    assert _compare(experiments, "HEAD")["overall"]["p_value"] == 1.0
