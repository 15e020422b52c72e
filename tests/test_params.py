"""params.yaml is checked by key before any work, and its defaults are the base recipe."""

from pathlib import Path

import pytest

from celebflow.errors import CelebflowError
from celebflow.params import Params, check_params, flatten, list_informative, load_flat_params, load_params
from tests import COMMITTED_PARAMS


def _write(folder: Path, content: str) -> Path:
    (folder / "params.yaml").write_text(content, encoding="utf-8")
    return folder / "params.yaml"


def test_the_committed_params_are_the_defaults(params: Params) -> None:
    assert params == Params()
    train = params.train
    assert (train.classifier, train.hidden_units, train.dropout) == ("mlp", (4096, 4096), 0.5)
    assert (train.learning_rate, train.batch_size, train.epochs) == (1e-4, 32, 10)
    assert (params.backbone.weights, params.extract.image_size_px, params.compute.device) == ("imagenet", 224, "cpu")


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
        ("unreadable: stop", "unreadable: ignore", "prepare.unreadable: Input should be 'stop' or 'skip'"),
        ("val_fraction: 0.15", "val_fraction: 0.9", "prepare: val_fraction + test_fraction must be below 1"),
        ("duplicate_distance_bits: 48", "duplicate_distance_bits: 257", "prepare.duplicate_distance_bits"),
        ("plot:\n  resolution_dpi: 150", "plots:\n  resolution_dpi: 150", "plots: unknown"),
        ("plot:\n  resolution_dpi: 150", "plots:\n  resolution_dpi: 150", "plot: missing"),
        ("classifier: mlp", "classifier: lda", "train: lda needs preprocessing.pca_components"),
        ("classifier: mlp", "classifier: svm", "train.classifier: Input should be 'mlp', 'linear', 'lda'"),
        ("classifier: mlp", "classifier: plda", "train: plda needs preprocessing.pca_components"),
        ("task: recognition", "task: clustering", "Input should be 'recognition', 'verification' or 'attributes'"),
        ("task: recognition", "task: verification", "train.classifier is mlp, which does not fit task verification"),
        ("max_pairs: 6000", "max_pairs: 1", "prepare.max_pairs: Input should be greater than or equal to 2"),
        ("square_root: false", "square_root: 0", "train.preprocessing.square_root: Input should be a valid boolean"),
        ("square_root: false", "square_roots: false", "train.preprocessing.square_root: missing"),
        ("pca_components: null", "pca_components: 0", "train.preprocessing.pca_components: Input should be greater"),
        ("schedule: constant", "schedule: step", "train.learning_rate_schedule: Input should be 'constant' or"),
        ("weight_decay: 0.0", "weight_decay: -1.0", "train.weight_decay"),
        ("label_smoothing: 0.0", "label_smoothing: 1.0", "train.label_smoothing: Input should be less than 1"),
        ("class_weights: none", "class_weights: equal", "train.class_weights: Input should be 'none' or 'balanced'"),
        ("sampling: none", "sampling: equal", "train.sampling: Input should be 'none' or 'balanced'"),
        ("patience_epochs: null", "patience_epochs: 0", "train.patience_epochs"),
        ("lda_shrinkage: 0.05", "lda_shrinkage: 1.5", "train.lda_shrinkage"),
        ("logistic_c: 1.0", "logistic_c: 0", "train.logistic_c"),
        ("ridge_penalty: 1.0", "ridge_penalty: 0", "train.ridge_penalty"),
        ("classifier: mlp", "classifier: ridge", "train.classifier is ridge, which does not fit task recognition"),
        ("crop: none", "crop: face", "extract.face.crop: Input should be 'none', 'center' or 'detect'"),
        ("center_fraction: 0.64", "center_fraction: 1.5", "extract.face.center_fraction"),
        ("margin: -0.05", "margins: -0.05", "extract.face.margins: unknown"),
        ("context: none", "context: all", "extract.face.context: Input should be 'none', 'margin' or 'photograph'"),
        (
            "    context: none\n    context_margin: 0.25",
            "    context: margin\n    context_margin: -0.05",
            "extract.face: context_margin must be greater than margin",
        ),
        ("  - original\n", "  - mirrored\n", "extract: views must begin with original"),
        ("  - original\n", "  - original\n  - original\n", "extract: views must begin with original"),
        ("  - original\n", "  - original\n  - flipped\n", "extract.views.1: Input should be 'original', 'mirrored'"),
        ("  - pool5\n", "  - pool5\n  - pool5\n", "extract: layers must contain at least one layer, and none twice"),
        ("  - pool5\n", "    []\n", "extract: layers must contain at least one layer"),
        ("epochs: 10", f"epochs: {2**31}", "train.epochs: Input should be less than"),
        ("image_size_px: 224", "image_size_px: 5000", "extract.image_size_px: Input should be less than"),
        ("experiment: celebflow", f"experiment: {'x' * 501}", "tracking.experiment: String should have at most 500"),
        ("epochs: 10", "epochs: 10\n  epochs: 11", "duplicate key"),
        ("epochs: 10", "epochs: [10", "not valid YAML"),
    ],
)
def test_bad_params_are_refused_by_key(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in COMMITTED_PARAMS
    with pytest.raises(CelebflowError) as caught:
        load_params(_write(tmp_path, COMMITTED_PARAMS.replace(old, new, 1)))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("new", "old", "key", "remedy"),
    [
        ("center_fraction:", "centre_fraction:", "extract.face.centre_fraction", "extract.face.center_fraction"),
        ("preprocessing:", "transform:", "train.transform", "train.preprocessing"),
        ("logistic_c:", "logistic_inverse_strength:", "train.logistic_inverse_strength", "train.logistic_c"),
        ("learning_rate_schedule:", "schedule:", "train.schedule", "train.learning_rate_schedule"),
        ("tracking:\n", "tracking:\n  log_model: false\n", "tracking.log_model", "celebflow register"),
    ],
)
def test_keys_of_earlier_versions_are_refused_with_the_new_key(
    tmp_path: Path, new: str, old: str, key: str, remedy: str
) -> None:
    assert new in COMMITTED_PARAMS
    with pytest.raises(CelebflowError, match=rf"(?m)^  {key}: is .*{remedy}"):
        load_params(_write(tmp_path, COMMITTED_PARAMS.replace(new, old, 1)))


def _list_keys(values: object, prefix: str = "") -> list[str]:
    keys = []
    if isinstance(values, dict):
        for name, value in values.items():
            keys += [f"{prefix}{name}", *_list_keys(value, f"{prefix}{name}.")]
    return keys


@pytest.mark.parametrize("key", _list_keys(Params().model_dump()))
def test_every_key_must_be_in_the_file(key: str) -> None:
    content = Params().model_dump(mode="json")
    section = content
    *parents, name = key.split(".")
    for parent in parents:
        section = section[parent]
    del section[name]
    with pytest.raises(CelebflowError, match=rf"(?m)^some params is not valid:\n  {key}: missing$"):
        check_params(content, "some params")


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    content = COMMITTED_PARAMS.replace("epochs: 10", "epochs: ten").replace("  dropout: 0.5\n", "")
    with pytest.raises(CelebflowError, match=r"(?s)train\.dropout: missing.*train\.epochs"):
        load_params(_write(tmp_path, content))


@pytest.mark.parametrize("content", ["", "[]", "train", "train: 5"])
def test_a_file_without_sections_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(CelebflowError, match=r"params\.yaml"):
        load_params(_write(tmp_path, content))


def test_exponents_are_numbers_as_they_are_for_dvc(tmp_path: Path) -> None:
    params = load_params(_write(tmp_path, COMMITTED_PARAMS.replace("0.0001", "1e-3")))
    assert params.train.learning_rate == 0.001


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match=r"params\.yaml is missing.*dvc\.yaml"):
        load_params(tmp_path / "params.yaml")


def test_params_of_any_version_are_loaded_flat(tmp_path: Path) -> None:
    assert load_flat_params(_write(tmp_path, "old: {key: 1, deeper: {list: [2]}}")) == {
        "old.key": 1,
        "old.deeper.list": [2],
    }
    with pytest.raises(CelebflowError, match="has no sections"):
        load_flat_params(_write(tmp_path, "[1]"))


def test_informative_params_are_all_that_affect_a_result(params: Params) -> None:
    informative = list_informative(params)
    everything = flatten(params.model_dump(mode="json"))
    left_out = everything.keys() - informative.keys()
    assert {key.split(".")[0] for key in left_out} == {"compute", "plot", "tracking"}
    assert {key for key in left_out if key.startswith("compute.")} == {"compute.cluster", "compute.shared_disk"}
    assert all(informative[key] == everything[key] for key in informative)


def test_an_address_of_weights_is_refused_without_being_repeated(tmp_path: Path) -> None:
    address = "https://ada:secret@example.org/vgg19.pth?token=secret"
    path = _write(tmp_path, COMMITTED_PARAMS.replace("weights: imagenet", f"weights: {address}"))
    with pytest.raises(CelebflowError, match="backbone: weights is an address.*path") as caught:
        load_params(path)
    assert "secret" not in str(caught.value)
