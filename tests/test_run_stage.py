"""A stage refuses params that change while it runs, because DVC would take them for those of the result."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from celebflow import paths
from celebflow.errors import CelebflowError
from stages import unchanged_params

_PARAMS = "task: recognition\ntrain: {seed: 0}\ntracking: {experiment: a, required: true}\nplot: {dpi: 1}\n"


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("seed: 0", "seed: 1", "train.seed"),
        ("task: recognition", "task: attributes", "task"),
        ("experiment: a", "experiment: b", "tracking.experiment"),
        ("train: {seed: 0}", "", "train.seed"),
        ("task: recognition", "<<<<<<< HEAD", "task, train.seed, tracking.experiment"),
        ("dpi: 1", "dpi: 2", None),
        ("required: true", "required: false", None),
        ("seed: 0", "seed: 0 ", None),
    ],
)
def test_params_that_change_while_a_stage_runs_are_refused_where_it_depends_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, name: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/train.py"])
    paths.PIPELINE.write_text("stages: {train: {params: [task, tracking.experiment, train]}}\n")
    paths.PARAMS.write_text(_PARAMS)
    refusal = pytest.raises(CelebflowError, match=rf"changed while train ran: {name}\. .*`dvc repro`")
    with refusal if name else nullcontext(), unchanged_params():
        paths.PARAMS.write_text(_PARAMS.replace(old, new))
