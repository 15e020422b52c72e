"""A classifier is built from its card, saved with all that prediction needs, and refused when it cannot be used."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from celebflow.backbone.source import FEATURE_COUNT, BackboneSource
from celebflow.classifier.calibration import Calibration
from celebflow.classifier.cards import find_kind, load_classifier_card
from celebflow.classifier.layers import DenseLinear, SparseLinear
from celebflow.classifier.model import load_classifier, save_classifier
from celebflow.classifier.training import compute_logits
from celebflow.errors import CelebflowError
from celebflow.features.transform import Transform
from celebflow.params import PreprocessingParams, TrainParams
from tests.conftest import draw_features
from tests.models import make_classifier
from tests.training import PEOPLE, Clusters, make_train_params, train

SOURCE = BackboneSource("untrained", False, "0" * 64)


def _save(path: Path) -> Path:
    preprocessing = PreprocessingParams(square_root=True, pca_components=4)
    calibration = Calibration(0.5, 0.9, None, 0.05)
    classifier = make_classifier(PEOPLE, (8,), 0.5, Transform(64), SOURCE, preprocessing, calibration)
    save_classifier(classifier, path)
    return path


def _rewrite(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the card of a saved classifier."""
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["celebflow"])
    change(card)
    save_file(load_file(path), path, metadata={"celebflow": json.dumps(card)})


def test_base_classifier_has_the_parameters_of_the_model_card() -> None:
    base = TrainParams()
    people = [str(number) for number in range(31)]
    with torch.device("meta"):
        classifier = make_classifier(people, base.hidden_units, base.dropout, Transform(224), SOURCE)
    assert sum(parameter.numel() for parameter in classifier.parameters()) == 119_672_863
    assert classifier.head[0].weight.shape == (FEATURE_COUNT, 4096)
    assert [type(layer) for layer in classifier.head] == [SparseLinear] + [nn.ReLU, nn.Dropout, DenseLinear] * 2
    assert [layer.p for layer in classifier.head if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("pca_components", "shapes"), [(None, [(FEATURE_COUNT, 3)]), (12, [(FEATURE_COUNT, 12), (3, 12)])]
)
def test_a_linear_classifier_has_no_hidden_layer(pca_components: int | None, shapes: list[tuple[int, int]]) -> None:
    params = make_train_params(
        pca_components=pca_components, classifier="linear", hidden_units=(64, 32), batch_size=30, epochs=1
    )
    features = draw_features()
    linear, _ = train(features, params)
    assert linear.card.hidden_units == ()
    weights = [tensor for name, tensor in linear.state_dict().items() if name.endswith("weight")]
    assert sorted(tensor.shape for tensor in weights) == sorted(shapes)
    mlp, _ = train(features, params.model_copy(update={"classifier": "mlp"}))
    assert mlp.card.hidden_units == (64, 32)


@pytest.mark.parametrize("pca_components", [None, 4])
@pytest.mark.parametrize("hidden_units", [(), (8, 6)])
def test_embed_returns_what_the_last_layer_takes(pca_components: int | None, hidden_units: tuple[int, ...]) -> None:
    preprocessing = PreprocessingParams(square_root=True, pca_components=pca_components)
    classifier = make_classifier(PEOPLE, hidden_units, 0.5, Transform(224), SOURCE, preprocessing).eval()
    batch, _ = Clusters(5, 0).gather(np.arange(5), 0)
    with torch.inference_mode():
        embedded = classifier.embed(batch)
        logits = classifier(batch)
        if pca_components is None and not hidden_units:
            torch.testing.assert_close(embedded, logits)
        else:
            torch.testing.assert_close(classifier.head[-1](embedded), logits)


def test_a_saved_classifier_predicts_alike_and_carries_its_card(tmp_path: Path) -> None:
    classifier, _ = train(draw_features(), make_train_params())
    save_classifier(classifier, tmp_path / "c.safetensors")
    loaded = load_classifier(tmp_path / "c.safetensors")
    assert loaded.card == classifier.card == load_classifier_card(tmp_path / "c.safetensors")
    assert not loaded.training
    ours, theirs = (compute_logits(model, Clusters(9, 2), 8)[0] for model in (classifier, loaded))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)  # tensors from a file are aligned differently in memory
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


@pytest.mark.parametrize("name", ["no_safetensors", "no_card", "broken_card"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "no_safetensors").write_bytes(b"something else")
    save_file({"weight": torch.zeros(3)}, tmp_path / "no_card")
    _rewrite(_save(tmp_path / "broken_card"), lambda card: card.pop("transform"))
    for load in (load_classifier_card, load_classifier):
        with pytest.raises(CelebflowError, match=rf"{name} is not a classifier.*dvc repro"):
            load(tmp_path / name)


@pytest.mark.parametrize("earlier", [None, 1])
def test_a_classifier_of_an_earlier_version_is_refused_with_the_reason(tmp_path: Path, earlier: int | None) -> None:
    path = _save(tmp_path / "c.safetensors")
    # The first cards had no format, and other names for the preprocessing.
    _rewrite(path, lambda card: card.pop("format") if earlier is None else card.update(format=earlier))
    _rewrite(path, lambda card: card.update(feature_transform=card.pop("preprocessing")))
    for load in (load_classifier_card, load_classifier):
        with pytest.raises(CelebflowError, match=r"c\.safetensors.*another version.*dvc repro"):
            load(path)


@pytest.mark.parametrize(("name", "reason"), [("missing", "No such file or directory"), ("", "Is a directory")])
def test_a_file_that_cannot_be_opened_is_named_with_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    for read in (load_classifier_card, load_classifier, find_kind):
        with pytest.raises(CelebflowError, match=rf"cannot be read \({reason}\).*dvc repro") as caught:
            read(tmp_path / name)
        assert "saved" not in str(caught.value)


def test_weights_that_do_not_match_the_card_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "c.safetensors")
    _rewrite(path, lambda card: card.update(hidden_units=[16]))
    with pytest.raises(CelebflowError, match=r"(?s)c\.safetensors.*size mismatch.*dvc repro"):
        load_classifier(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["head.3.bias", "preprocessor.projection.weight"])
def test_a_classifier_whose_weights_are_not_finite_is_refused_with_the_remedy(
    tmp_path: Path, name: str, value: float
) -> None:
    path = _save(tmp_path / "c.safetensors")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path, metadata)
    with pytest.raises(CelebflowError) as caught:
        load_classifier(path)
    for part in ("c.safetensors", "not finite", name, "train.learning_rate", "dvc repro"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": 0},
        {"threshold": math.nan},
        {"threshold": ""},
    ],
)
def test_a_calibration_that_is_not_finite_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = _save(tmp_path / "c.safetensors")
    _rewrite(path, lambda card: card["calibration"].update(change))  # type: ignore[attr-defined]
    for load in (load_classifier_card, load_classifier):
        with pytest.raises(CelebflowError, match=r"c\.safetensors is not a classifier.*dvc repro"):
            load(path)
