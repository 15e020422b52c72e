"""The origin of features follows from the params, and that of an earlier version is refused."""

from pathlib import Path

import pytest

from celebflow.backbone.vgg19 import Backbone
from celebflow.errors import CelebflowError
from celebflow.features.origin import FeatureOrigin, determine_origin
from celebflow.features.transform import Transform
from celebflow.params import ExtractParams, FaceParams
from tests.features.conftest import CPU, SOURCE

DETECT = FaceParams(crop="detect", center_fraction=0.5, margin=0.7, align=True, context="margin", context_margin=0.9)
NO_CONTEXT = {"context": "none", "context_margin": 0.25}


def test_origin_follows_the_params(backbone: Backbone, backbone_file: Path) -> None:
    extract = ExtractParams(image_size_px=64, runtime="torch")
    assert determine_origin(backbone_file, extract, CPU) == FeatureOrigin(backbone.source, Transform(64), "torch")
    changed = ExtractParams(face=DETECT, views=("original", "mirrored"), layers=("pool4", "pool5"), runtime="torch")
    origin = determine_origin(backbone_file, changed, CPU)
    transform = Transform(224, DETECT, ("original", "mirrored"), ("pool4", "pool5"))
    assert origin == FeatureOrigin(backbone.source, transform, "torch")
    assert origin.feature_count == 100_352


@pytest.mark.parametrize(
    ("used", "unused"),
    [
        ({"crop": "none"}, {"center_fraction": 1.0, "margin": 0.0, "align": False, **NO_CONTEXT}),
        ({"crop": "center"}, {"margin": 0.0, "align": False, **NO_CONTEXT}),
        ({"context": "none"}, {"context_margin": 0.25}),
        ({"context": "photograph"}, {"context_margin": 0.25}),
    ],
)
def test_params_that_a_crop_or_a_context_does_not_use_do_not_affect_the_origin(
    backbone_file: Path, used: dict[str, object], unused: dict[str, object]
) -> None:
    face = DETECT.model_copy(update=used)
    origin = determine_origin(backbone_file, ExtractParams(face=face), CPU)
    assert origin.transform.face == face.model_copy(update=unused)


def test_origin_is_restored_from_its_file(tmp_path: Path) -> None:
    origin = FeatureOrigin(SOURCE, Transform(64, DETECT, ("original", "closer"), ("pool4",)), "ncnn")
    origin.save(tmp_path / "origin.json")
    assert FeatureOrigin.load(tmp_path / "origin.json") == origin


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("center_fraction", "centre_fraction"),
        ('"views"', '"another"'),
        ('"fingerprint"', '"another"'),
        ('"runtime"', '"another"'),
        ('"crop": "none"', '"crop": "centre"'),
        ("{", ""),
    ],
)
def test_an_origin_of_an_earlier_version_is_refused_with_the_remedy(tmp_path: Path, new: str, old: str) -> None:
    file = tmp_path / "origin.json"
    FeatureOrigin(SOURCE, Transform(64), "ncnn").save(file)
    content = file.read_text(encoding="utf-8")
    assert new in content
    file.write_text(content.replace(new, old), encoding="utf-8")
    with pytest.raises(CelebflowError, match=r"origin\.json.*older celebflow.*`dvc repro`"):
        FeatureOrigin.load(file)
