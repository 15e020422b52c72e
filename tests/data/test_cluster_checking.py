"""Photographs decoded on a Ray cluster are prepared as on this machine."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from celebflow.data import cluster_checking
from celebflow.data.checked import count_checked
from celebflow.data.preparation import LeftOut, prepare_photographs
from celebflow.data.splits import Split, split_each_person
from celebflow.errors import CelebflowError
from celebflow.params import ComputeParams, PrepareParams

pytestmark = pytest.mark.slow
_DEAD = "127.0.0.1:9"


@pytest.fixture
def data(draw_people: Callable[..., Path]) -> Path:
    """Return photographs of two people, one in a format that is decoded in a process of its own, and what is none."""
    folder = draw_people("Ann", "Bo", count=20)
    Image.effect_noise((60, 60), 50).convert("RGB").save(folder / "Ann" / "phone.avif")
    (folder / "Bo" / "cut.jpg").write_bytes((folder / "Bo" / "1.jpg").read_bytes()[:300])
    (folder / "Bo" / "random.jpg").write_bytes(random.Random(0).randbytes(1000))
    (folder / "Bo" / "a\nb.jpg").write_bytes((folder / "Bo" / "2.jpg").read_bytes())
    return folder


def _prepare(data: Path, file: Path | None = None, **compute: object) -> tuple[Split, list[LeftOut]]:
    params = PrepareParams(unreadable="skip")
    return prepare_photographs(data, params, split_each_person, file, ComputeParams.model_validate(compute))


@pytest.mark.parametrize("shared_disk", [False, True])
def test_splits_and_refusals_are_the_same(
    data: Path, tmp_path: Path, address: str, shared_disk: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checked.db"
    here = _prepare(data)
    assert len(here[0].photos) == 41 and len(here[1]) == 3
    assert _prepare(data, file, cluster=address, shared_disk=shared_disk) == here
    lines = capsys.readouterr().out.splitlines()
    assert sum(int(line.split(": ")[1].split()[0]) for line in lines) == 43, "each file that may be one is decoded once"
    assert count_checked(file) == 41
    (data / "Bo" / "cut.jpg").unlink()
    (data / "Bo" / "random.jpg").unlink()
    assert _prepare(data, file, cluster=_DEAD)[0] == here[0], "nothing is new, so that no cluster is asked"


def test_a_cluster_that_is_not_there_is_told(data: Path) -> None:
    with pytest.raises(CelebflowError, match=f"There is no Ray cluster at compute.cluster, {_DEAD}"):
        _prepare(data, cluster=_DEAD)


def test_nodes_that_decode_otherwise_are_refused(data: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = cluster_checking.HashingWorker.probe
    monkeypatch.setattr(cluster_checking.HashingWorker, "probe", lambda worker: probe(worker) ^ np.uint64(1))
    with pytest.raises(CelebflowError, match="decodes photographs otherwise"):
        _prepare(data, cluster=address)
