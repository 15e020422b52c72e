"""The best trial is compared with where the search started, and its figures are not taken at face value."""

from dataclasses import replace

import pytest

from celebflow import paths
from celebflow.experiments.recommendation import format_recommendation
from celebflow.experiments.search import SearchResult, Trial
from celebflow.params import keep_informative, load_flat_params
from celebflow.tracking.git import run_git
from celebflow.tracking.provenance import read_locked_md5s
from tests.experiments.conftest import enter_repository
from tests.repository import Repository

pytestmark = pytest.mark.slow
RATE = "train.learning_rate"


@pytest.fixture
def result(two_results: Repository, monkeypatch: pytest.MonkeyPatch) -> SearchResult:
    """Return a search that began at HEAD, and found the experiment in the workspace; its repository is not changed."""
    enter_repository(two_results, monkeypatch)
    start = {**keep_informative(load_flat_params(paths.PARAMS)), RATE: 0.001}
    trials = [Trial("faint", {RATE: 1e-9}, 0.5), Trial("tuning-2", {RATE: 1e-8}, 0.4), Trial("tuning-3", {}, None)]
    return SearchResult(trials, start, read_locked_md5s()["data"], run_git("rev-parse", "HEAD"))


def test_the_best_is_compared_with_the_commit_that_the_search_started_from(result: SearchResult) -> None:
    text = format_recommendation(result, {})
    assert f"A: {result.start_commit[:9]}, B: faint, 12 photographs of val" in text
    assert "p = " in text and "95 % interval" in text
    assert "B is worse than A." in text or "The difference may be chance." in text
    assert "best of 2, so val flatters it" in text
    assert text.endswith("dvc exp apply faint")


def test_the_workspace_is_where_the_search_started_when_its_result_has_those_params(
    result: SearchResult, clone: Repository
) -> None:
    started = replace(result, start_params={**result.start_params, RATE: 1e-9})
    text = format_recommendation(started, {})
    assert "A: workspace, B: faint" in text and "The difference may be chance." in text
    clone.edit("learning_rate: 1.0e-09", "learning_rate: 0.001")  # without a result
    text = format_recommendation(result, {})
    assert f"A: {result.start_commit[:9]}, B: faint" in text


@pytest.mark.parametrize("change", ["params", "photographs"])
def test_without_a_result_of_the_start_nothing_is_compared(result: SearchResult, change: str) -> None:
    if change == "params":
        result = replace(result, start_params={**result.start_params, "train.dropout": 0.25})
    else:
        result = replace(result, data_md5="another")
    text = format_recommendation(result, {})
    assert "p = " not in text
    for part in ("faint is better", "unknown", "workspace", result.start_commit[:7], "`dvc repro`", "val flatters it"):
        assert part in text
    assert text.endswith("dvc exp apply faint")


def test_of_an_experiment_that_was_removed_the_command_that_runs_it_again_is_given(result: SearchResult) -> None:
    removed = replace(result, trials=[Trial("gone-1", {RATE: 0.002}, 0.5)])
    text = format_recommendation(removed, {"train.hidden_units": [128, 64]})
    command = f"dvc exp run --name=gone-1 '--set-param=train.hidden_units=[128,64]' --set-param={RATE}=0.002"
    assert text.endswith(command)
