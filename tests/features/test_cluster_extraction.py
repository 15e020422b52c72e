"""Features come out of a Ray cluster as they do of this machine, byte for byte."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.cluster import start_cluster
from celebflow.backbone.source import load_backbone_source
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.features import cluster_extraction
from celebflow.features.cache import open_cache
from celebflow.features.extraction import extract_missing
from celebflow.features.origin import FeatureOrigin
from celebflow.features.store import save_features
from celebflow.features.transform import Transform
from celebflow.params import ComputeParams
from tests.features.conftest import CPU
from tests.repository import EVERY_STAGE, Repository

pytestmark = pytest.mark.slow
TWO_VIEWS = Transform(32, views=("original", "mirrored"))


def _extract(folder: Path, photos: list[Photo], data: Path, backbone_file: Path, compute: ComputeParams) -> list[bytes]:
    """Extract, and return the bytes of what is stored."""
    origin = FeatureOrigin(load_backbone_source(backbone_file), TWO_VIEWS, "ncnn")
    with open_cache(folder / "cache", origin) as cache:
        assert extract_missing(photos, data, backbone_file, compute, cache) == len(photos)
        save_features(photos, cache, folder / "features")
    return [path.read_bytes() for path in sorted((folder / "features").iterdir())]


@pytest.mark.parametrize("shared_disk", [False, True])
def test_features_are_the_same_bytes(
    tmp_path: Path,
    data: Path,
    photos: list[Photo],
    backbone_file: Path,
    address: str,
    shared_disk: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = _extract(tmp_path / "here", photos, data, backbone_file, CPU)
    compute = ComputeParams(cluster=address, shared_disk=shared_disk)
    assert _extract(tmp_path / "cluster", photos, data, backbone_file, compute) == here
    counts = [int(line.split(": ")[1].split()[0]) for line in capsys.readouterr().out.splitlines()]
    assert sum(counts) == len(photos) and all(counts)


def test_a_photograph_that_changed_is_the_same_error_as_here(
    tmp_path: Path, data: Path, photos: list[Photo], backbone_file: Path, address: str
) -> None:
    (data / photos[0].path).write_bytes((data / photos[1].path).read_bytes())
    with pytest.raises(CelebflowError, match=f"{photos[0].path} has changed since prepare"):
        _extract(tmp_path / "cluster", photos, data, backbone_file, ComputeParams(cluster=address, shared_disk=True))


def test_nodes_with_other_features_are_refused(
    tmp_path: Path,
    data: Path,
    photos: list[Photo],
    backbone_file: Path,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probe = cluster_extraction.ExtractionWorker.probe
    monkeypatch.setattr(cluster_extraction.ExtractionWorker, "probe", lambda worker: probe(worker) * np.float32(1.001))
    with pytest.raises(CelebflowError, match=r"can work:\n(  .*its features differ by 1\.0e-03 from those.*\n){2}"):
        _extract(tmp_path, photos, data, backbone_file, ComputeParams(cluster=address))


@pytest.mark.services
def test_the_whole_pipeline_on_four_nodes_has_the_same_results(repository: Repository) -> None:
    before = (repository.folder / "dvc.lock").read_text(encoding="utf-8")
    shutil.rmtree(repository.folder / ".celebflow" / "features")
    with start_cluster(4, processors=1) as nodes:
        repository.edit("cluster: null", f"cluster: {nodes.address}")
        output = repository.run("dvc", "repro", "--force")
    assert re.findall(r"Running stage '(\w+)'", output) == EVERY_STAGE
    assert re.search("60 photographs extracted", output)
    locks = (before, (repository.folder / "dvc.lock").read_text(encoding="utf-8"))
    first, second = (yaml.safe_load(lock)["stages"] for lock in locks)
    for stages in (first, second):  # another training has another run
        outputs = stages["train"]["outs"]
        stages["train"]["outs"] = [each for each in outputs if each["path"] != "models/mlflow_run_id.txt"]
    for stage in ("prepare", "extract", "train"):
        assert second[stage] == first[stage]
