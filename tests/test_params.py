"""params.yaml is checked by key before any work."""

from pathlib import Path

import pytest

from celebflow.errors import CelebflowError
from celebflow.params import Params, load_params
from tests import COMMITTED_PARAMS


def test_committed_params_are_the_base_recipe(params: Params) -> None:
    assert params.backbone.weights == "imagenet"
    assert params.extract.image_size_px == 224
    train = params.train
    assert (train.hidden_units, train.dropout, train.learning_rate) == ((4096, 4096), 0.5, 1e-4)
    assert (train.batch_size, train.epochs, params.compute.device) == (32, 10, "cpu")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs: 10", "epochs: ten", "train.epochs: Input should be a valid integer, not 'ten'"),
        ("epochs: 10", "epochs: true", "train.epochs: Input should be a valid integer, not True"),
        ("epochs: 10", "epochs: 10.5", "train.epochs: Input should be a valid integer"),
        ("epochs: 10", "epochs: 0", "train.epochs: Input should be greater than 0"),
        ("epochs: 10", "epoch: 10", "train.epoch: unknown"),
        ("epochs: 10", "epoch: 10", "train.epochs: missing"),
        ("learning_rate: 0.0001", "learning_rate: .nan", "train.learning_rate"),
        ("learning_rate: 0.0001", "learning_rate: '0.0001'", "train.learning_rate"),
        ("dropout: 0.5", "dropout: 1.0", "train.dropout: Input should be less than 1"),
        ("keep_epoch: last", "keep_epoch: first", "train.keep_epoch: Input should be 'last' or 'best'"),
        ("device: cpu", "device: tpu", "compute.device"),
        ("image_size_px: 224", "image_size_px: 16", "extract.image_size_px"),
        ("weights: imagenet", "weights: 7", "backbone.weights: Input should be a valid string"),
        ("unreadable: stop", "unreadable: ignore", "prepare.unreadable"),
        ("val_fraction: 0.15", "val_fraction: 0.9", "prepare: val_fraction + test_fraction must be below 1"),
        ("plot:\n  resolution_dpi: 150", "plots:\n  resolution_dpi: 150", "plots: unknown"),
        ("classifier: network", "classifier: lda", "train: lda needs transform.pca_components, 600 say"),
        ("classifier: network", "classifier: svm", "train.classifier: Input should be 'network', 'linear', 'lda' or"),
        ("square_root: false", "square_root: 0", "train.transform.square_root: Input should be a valid boolean"),
        ("pca_components: null", "pca_components: 0", "train.transform.pca_components: Input should be greater than 0"),
        ("schedule: constant", "schedule: step", "train.schedule: Input should be 'constant' or 'cosine'"),
        ("weight_decay: 0.0", "weight_decay: -1.0", "train.weight_decay"),
        ("label_smoothing: 0.0", "label_smoothing: 1.0", "train.label_smoothing: Input should be less than 1"),
        ("class_weights: none", "class_weights: equal", "train.class_weights: Input should be 'none' or 'balanced'"),
        ("sampling: none", "sampling: equal", "train.sampling: Input should be 'none' or 'balanced'"),
        ("patience_epochs: null", "patience_epochs: 0", "train.patience_epochs"),
        ("lda_shrinkage: 0.05", "lda_shrinkage: 1.5", "train.lda_shrinkage"),
        ("logistic_c: 1.0", "logistic_c: 0", "train.logistic_c"),
        ("crop: none", "crop: face", "extract.face.crop: Input should be 'none', 'center' or 'detect'"),
        ("center_fraction: 0.64", "center_fraction: 1.5", "extract.face.center_fraction"),
        ("margin: -0.05", "margins: -0.05", "extract.face.margins: unknown"),
        ("  - original\n", "  - mirrored\n", "extract: views must begin with original"),
        ("  - original\n", "  - original\n  - original\n", "extract: views must begin with original, and name no view"),
        (
            "  - original\n",
            "  - original\n  - upside_down\n",
            "extract.views.1: Input should be 'original', 'mirrored'",
        ),
        ("  - pool5\n", "  - pool5\n  - pool5\n", "extract: layers must name at least one layer, and none twice"),
        ("  - pool5\n", "    []\n", "extract: layers must name at least one layer"),
        ("epochs: 10", "epochs: 10\n  epochs: 11", "duplicate key"),
        ("epochs: 10", "epochs: [10", "is no YAML"),
    ],
)
def test_bad_params_are_refused_by_name(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in COMMITTED_PARAMS
    (tmp_path / "params.yaml").write_text(COMMITTED_PARAMS.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CelebflowError) as caught:
        load_params(tmp_path / "params.yaml")
    assert expected in str(caught.value)


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    content = COMMITTED_PARAMS.replace("epochs: 10", "epochs: ten").replace("  dropout: 0.5\n", "")
    (tmp_path / "params.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(CelebflowError, match="(?s)train.dropout: missing.*train.epochs"):
        load_params(tmp_path / "params.yaml")


def test_exponents_are_numbers_as_they_are_for_dvc(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(COMMITTED_PARAMS.replace("0.0001", "1e-3"), encoding="utf-8")
    assert load_params(tmp_path / "params.yaml").train.learning_rate == 0.001


def test_missing_params_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match=r"params\.yaml is missing"):
        load_params(tmp_path / "params.yaml")
