"""params.yaml as frozen, typed sections; the only reader of that file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from celebflow.errors import CelebflowError

View = Literal["original", "mirrored", "closer", "closer_mirrored"]
LayerName = Literal["pool4", "pool5"]
# The range that both torch.manual_seed and NumPy's generators accept.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# What became of the keys of earlier versions.
_RENAMED = {
    "extract.face.centre_fraction": "is now extract.face.center_fraction",
    "train.transform": "is now train.preprocessing, with square_root, l2_normalize, standardize and pca_components",
    "train.logistic_inverse_strength": "is now train.logistic_c",
    "train.schedule": "is now train.learning_rate_schedule",
    "tracking.log_model": "is gone: `celebflow register` packages the model of any run",
}
# Sections that do not affect a result.
_UNINFORMATIVE = ("plot.", "tracking.")
Fraction = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PrepareParams(_Section):
    """How photographs are checked, grouped and split."""

    seed: Annotated[Seed, Field(description="decides which photographs go to which split")] = 0
    val_fraction: Annotated[Fraction, Field(description="fraction of each person's photographs for val")] = 0.15
    test_fraction: Annotated[Fraction, Field(description="fraction of each person's photographs for test")] = 0.15
    duplicate_distance_bits: Annotated[
        Annotated[int, Field(ge=0, le=256)] | None,
        Field(
            description="photographs whose 256-bit hashes differ in at most this many bits are near-duplicates and "
            "stay in one split; null looks for none"
        ),
    ] = 48
    unreadable: Annotated[
        Literal["stop", "skip"],
        Field(
            description="what to do about files that are not readable photographs: stop with a list of them, or skip "
            "them and list them in splits/left_out.csv"
        ),
    ] = "stop"

    @model_validator(mode="after")
    def _leave_some_to_train_on(self) -> "PrepareParams":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must be below 1, so that some photographs train")
        return self


class BackboneParams(_Section):
    """Where the frozen convolutions come from."""

    weights: Annotated[
        str,
        Field(
            min_length=1,
            description="imagenet (torchvision's), untrained (random filters), or the path of VGG19's state dict, .pth "
            "or .safetensors",
        ),
    ] = "imagenet"
    seed: Annotated[Seed, Field(description="decides the filters of an untrained backbone")] = 0


class FaceParams(_Section):
    """Which part of a photograph the network sees."""

    crop: Annotated[
        Literal["none", "center", "detect"],
        Field(
            description="whole photograph (none), its center square, or the square around the subject's detected face"
        ),
    ] = "none"
    center_fraction: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="side of the center square, as a fraction of the shorter side; also used by detect where it "
            "finds no face",
        ),
    ] = 0.64
    margin: Annotated[
        float,
        Field(ge=-0.4, le=2, description="margin around a detected face, as a fraction of its box; may be negative"),
    ] = -0.05
    align: Annotated[
        bool,
        Field(
            description="rotate and scale a detected face so that eyes, nose and mouth are always in the same places"
        ),
    ] = True


class ExtractParams(_Section):
    """How photographs become features."""

    image_size_px: Annotated[
        int,
        # Five poolings halve it: nothing is left of fewer than 32 pixels.
        Field(ge=32, description="the shorter side is resized to this, and the center square is kept"),
    ] = 224
    face: FaceParams = FaceParams()
    views: Annotated[
        tuple[View, ...],
        Field(strict=False, description="views of each photograph to train on and to average predictions over"),
    ] = ("original",)
    layers: Annotated[
        tuple[LayerName, ...], Field(strict=False, description="layers of VGG19 whose outputs are the features")
    ] = ("pool5",)
    runtime: Annotated[
        Literal["auto", "ncnn", "torch"],
        Field(
            description="library that computes the features; auto is ncnn on a CPU, which is faster, otherwise torch"
        ),
    ] = "auto"

    @model_validator(mode="after")
    def _refuse_duplicates(self) -> "ExtractParams":
        if self.views[:1] != ("original",) or len(set(self.views)) < len(self.views):
            raise ValueError("views must begin with original and contain no view twice")
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError("layers must contain at least one layer, and none twice")
        return self


class PreprocessingParams(_Section):
    """How features are preprocessed before the head, in this order."""

    square_root: Annotated[bool, Field(description="take the square root of each feature")] = False
    l2_normalize: Annotated[bool, Field(description="bring each photograph's features to length 1")] = False
    standardize: Annotated[bool, Field(description="scale each feature to variance 1 on train")] = False
    pca_components: Annotated[
        PositiveInt | None, Field(description="principal components to project to; null for no projection")
    ] = None


class TrainParams(_Section):
    """The classifier and how it is trained."""

    seed: Annotated[Seed, Field(description="decides initial weights, the order of photographs, views and dropout")] = 0
    preprocessing: PreprocessingParams = PreprocessingParams()
    classifier: Annotated[
        Literal["mlp", "linear", "lda", "logistic"],
        Field(
            description="multilayer perceptron, the same without hidden layers, linear discriminant analysis, or "
            "logistic regression"
        ),
    ] = "mlp"
    hidden_units: Annotated[
        tuple[PositiveInt, ...], Field(strict=False, description="widths of the hidden layers of mlp")
    ] = (4096, 4096)
    dropout: Annotated[float, Field(ge=0, lt=1, description="dropout probability after each hidden layer of mlp")] = 0.5
    learning_rate: Annotated[float, Field(gt=0, description="learning rate of Adam, for mlp and linear")] = 1e-4
    learning_rate_schedule: Annotated[
        Literal["constant", "cosine"], Field(description="constant, or cosine, which falls to 0 over all epochs")
    ] = "constant"
    weight_decay: Annotated[float, Field(ge=0, description="weight decay of AdamW; 0 is plain Adam")] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1, description="label smoothing of the loss")] = 0.0
    class_weights: Annotated[
        Literal["none", "balanced"], Field(description="balanced gives every person the same weight in the loss")
    ] = "none"
    sampling: Annotated[Literal["none", "balanced"], Field(description="balanced draws every person equally often")] = (
        "none"
    )
    batch_size: Annotated[PositiveInt, Field(description="photographs per training step")] = 32
    epochs: Annotated[PositiveInt, Field(description="passes over train, for mlp and linear")] = 10
    patience_epochs: Annotated[
        PositiveInt | None,
        Field(description="stop after this many epochs without a better validation accuracy; null never stops early"),
    ] = None
    keep_epoch: Annotated[
        Literal["last", "best"], Field(description="which epoch's weights to keep; best by validation accuracy")
    ] = "last"
    lda_shrinkage: Annotated[float, Field(ge=0, le=1, description="shrinkage of the covariance of lda")] = 0.05
    logistic_c: Annotated[
        float, Field(gt=0, description="inverse strength of the L2 penalty of logistic, scikit-learn's C")
    ] = 1.0
    false_acceptance_rate: Annotated[
        Fraction,
        Field(
            description="fraction of unknown people's photographs that may reach the threshold below which the "
            "prediction is unknown"
        ),
    ] = 0.05

    @model_validator(mode="after")
    def _give_lda_few_dimensions(self) -> "TrainParams":
        if self.classifier == "lda" and self.preprocessing.pca_components is None:
            raise ValueError(
                "lda needs preprocessing.pca_components, 600 for example: a covariance of all features is too large"
            )
        return self


class PlotParams(_Section):
    """How figures are drawn."""

    resolution_dpi: Annotated[int, Field(ge=30, le=600, description="resolution of the figures, in dots per inch")] = (
        150
    )


class ComputeParams(_Section):
    """The device that extraction, training and evaluation use."""

    device: Annotated[
        str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$", description="PyTorch's device: cpu, cuda, cuda:1 or mps")
    ] = "cpu"


class TrackingParams(_Section):
    """Where runs are logged in MLflow."""

    experiment: Annotated[str, Field(min_length=1, description="name of the experiment in MLflow")] = "celebflow"
    required: Annotated[
        bool,
        Field(
            description="stop when MLflow's store cannot be reached; false trains on, and `celebflow runs sync` logs "
            "the run later"
        ),
    ] = True


class Params(_Section):
    """All of params.yaml, one field per section; its defaults are the base recipe."""

    prepare: PrepareParams = PrepareParams()
    backbone: BackboneParams = BackboneParams()
    extract: ExtractParams = ExtractParams()
    train: TrainParams = TrainParams()
    plot: PlotParams = PlotParams()
    compute: ComputeParams = ComputeParams()
    tracking: TrackingParams = TrackingParams()


def load_params(path: Path) -> Params:
    """Read and check a params file.

    It is parsed as YAML 1.2, as DVC does: 1e-4 is a number, and a duplicate key is an error.

    Raises CelebflowError, naming every unknown, renamed, missing or ill-typed key at once.
    """
    return check_params(load_yaml(path), str(path))


def check_params(content: object, name: str) -> Params:
    """Check the content of a params file, which errors call `name`.

    Raises CelebflowError, naming every unknown, renamed, missing or ill-typed key at once.
    """
    problems = [f"  {key}: missing" for key in _list_missing(content, Params)]
    params = None
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        for problem in error.errors():
            problems.append(f"  {_describe(problem['loc'], problem['type'], problem['msg'], problem['input'])}")
    if params is None or problems:
        raise CelebflowError("\n".join([f"{name} is not valid:", *problems]))
    return params


def _list_missing(content: object, section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the keys that a params file lacks: DVC does not track defaults, so that each key must be in the file."""
    if not isinstance(content, dict):
        return
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        if name not in content:
            yield key
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _list_missing(content[name], field.annotation, f"{key}.")


def load_yaml(path: Path) -> object:
    """Read a YAML file; raise CelebflowError when it is missing or is not valid YAML."""
    try:
        return YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise CelebflowError(f"{path} is missing. Run from the folder that contains dvc.yaml.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise CelebflowError(f"{path} is not valid YAML: {error}") from None


def load_flat_params(path: Path) -> dict[str, object]:
    """Read a params file of any version of celebflow, without checks, as a dict from dotted names to values.

    Raises CelebflowError when it is not a YAML file of sections.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise CelebflowError(f"{path} has no sections.")
    return flatten(content)


def list_informative(params: Params) -> dict[str, object]:
    """Return the params that affect a result, by their dotted names."""
    return keep_informative(flatten(params.model_dump(mode="json")))


def keep_informative(values: Mapping[str, object]) -> dict[str, object]:
    """Return the flat params that affect a result."""
    return {name: value for name, value in values.items() if not name.startswith(_UNINFORMATIVE)}


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested sections as one dict with dotted names."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _describe(location: tuple[int | str, ...], kind: str, message: str, value: object) -> str:
    key = ".".join(str(part) for part in location) or "(the whole file)"
    if key in _RENAMED:
        return f"{key}: {_RENAMED[key]}"
    if kind == "extra_forbidden":
        return f"{key}: unknown"
    return f"{key}: {message.removeprefix('Value error, ')}" + ("" if isinstance(value, dict) else f", not {value!r}")
