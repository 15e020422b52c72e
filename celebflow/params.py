"""params.yaml as frozen, typed sections; the only reader of that file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from celebflow.errors import CelebflowError

View = Literal["original", "mirrored", "closer", "closer_mirrored"]
LayerName = Literal["pool4", "pool5"]
# torch.manual_seed and NumPy's generators both take these.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PrepareParams(_Section):
    """How photographs are checked, grouped and split."""

    seed: Seed
    val_fraction: Fraction
    test_fraction: Fraction
    duplicate_distance_bits: Annotated[int, Field(ge=0, le=256)] | None
    unreadable: Literal["stop", "leave_out"]

    @model_validator(mode="after")
    def _leave_some_to_train_on(self) -> "PrepareParams":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must be below 1, so that some photographs train")
        return self


class BackboneParams(_Section):
    """Where the frozen convolutions come from."""

    weights: Annotated[str, Field(min_length=1)]
    seed: Seed


class FaceParams(_Section):
    """What of a photograph the network sees."""

    crop: Literal["none", "centre", "detect"]
    centre_fraction: Annotated[float, Field(gt=0, le=1)]
    margin: Annotated[float, Field(ge=-0.4, le=2)]
    align: bool


class ExtractParams(_Section):
    """How photographs become features."""

    image_size_px: Annotated[int, Field(ge=32)]  # five poolings halve it: below 32 nothing is left
    face: FaceParams
    views: Annotated[tuple[View, ...], Field(strict=False)]
    layers: Annotated[tuple[LayerName, ...], Field(strict=False)]
    runtime: Literal["auto", "ncnn", "torch"]

    @model_validator(mode="after")
    def _refuse_repetitions(self) -> "ExtractParams":
        if self.views[:1] != ("original",) or len(set(self.views)) < len(self.views):
            raise ValueError("views must begin with original, and name no view twice")
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError("layers must name at least one layer, and none twice")
        return self


class FeatureTransformParams(_Section):
    """What is done to features before a classifier sees them."""

    square_root: bool
    unit_length: bool
    standardise: bool
    pca_components: PositiveInt | None


class TrainParams(_Section):
    """The replacement classifier and how it learns."""

    seed: Seed
    transform: FeatureTransformParams
    classifier: Literal["network", "linear", "lda", "logistic"]
    hidden_units: Annotated[tuple[PositiveInt, ...], Field(strict=False)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["constant", "cosine"]
    weight_decay: Annotated[float, Field(ge=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    class_weights: Literal["none", "balanced"]
    sampling: Literal["none", "balanced"]
    batch_size: PositiveInt
    epochs: PositiveInt
    patience_epochs: PositiveInt | None
    keep_epoch: Literal["last", "best"]
    lda_shrinkage: Annotated[float, Field(ge=0, le=1)]
    logistic_inverse_strength: Annotated[float, Field(gt=0)]
    false_acceptance_rate: Fraction

    @model_validator(mode="after")
    def _give_lda_few_dimensions(self) -> "TrainParams":
        if self.classifier == "lda" and self.transform.pca_components is None:
            raise ValueError("lda needs transform.pca_components, 600 say: a covariance of all features is too large")
        return self


class PlotParams(_Section):
    """How figures are drawn."""

    resolution_dpi: Annotated[int, Field(ge=30, le=600)]


class ComputeParams(_Section):
    """What the stages that calculate run on."""

    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")]


class TrackingParams(_Section):
    """Where in MLflow a run is logged, and what of it."""

    experiment: Annotated[str, Field(min_length=1)]
    required: bool
    log_model: bool


class Params(_Section):
    """All of params.yaml, one field a section."""

    prepare: PrepareParams
    backbone: BackboneParams
    extract: ExtractParams
    train: TrainParams
    plot: PlotParams
    compute: ComputeParams
    tracking: TrackingParams


def load_params(path: Path) -> Params:
    """Read and check a params file.

    It is parsed as YAML 1.2, as DVC does, so that 1e-4 is a number and a key that stands twice is an error.

    Raises CelebflowError, naming every unknown, missing or ill-typed key at once.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise CelebflowError(f"{path} is missing. Run from the folder that dvc.yaml stands in.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise CelebflowError(f"{path} is no YAML: {error}") from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        problems = [f"  {_describe(problem['loc'], problem['type'], problem['msg'], problem['input'])}"
                    for problem in error.errors()]  # fmt: skip
        raise CelebflowError("\n".join([f"{path} does not fit:", *problems])) from None


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested sections as one level, with dots in the names."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _describe(location: tuple[int | str, ...], kind: str, message: str, value: object) -> str:
    key = ".".join(str(part) for part in location) or "(the whole file)"
    if kind == "missing":
        return f"{key}: missing"
    if kind == "extra_forbidden":
        return f"{key}: unknown"
    return f"{key}: {message.removeprefix('Value error, ')}" + ("" if isinstance(value, dict) else f", not {value!r}")
