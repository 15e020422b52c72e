"""params.yaml as frozen, typed sections; the only reader of that file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from celebflow.errors import CelebflowError

TaskName = Literal["recognition", "verification", "attributes"]
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
# What does not affect a result.
_UNINFORMATIVE = ("compute.cluster", "compute.shared_disk", "plot.", "tracking.")
Fraction = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]
Text = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    """A section of params.yaml; the string below each field describes it in docs/params.md and params.schema.json."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class PrepareParams(_Section):
    """How photographs are checked, grouped and split."""

    seed: Seed = 0
    """decides which photographs go to which split"""
    val_fraction: Fraction = 0.15
    """fraction of each person's photographs for val; for verification and attributes, of the people"""
    test_fraction: Fraction = 0.15
    """fraction of each person's photographs for test; for verification and attributes, of the people"""
    duplicate_distance_bits: Annotated[int, Field(ge=0, le=256)] | None = 48
    """photographs whose 256-bit hashes differ in at most this many bits are near-duplicates and stay in one split; null
    looks for none"""
    max_pairs: Annotated[int, Field(ge=2, lt=2**31)] = 6000
    """for verification without pairs.csv: the most pairs to draw in each split, half of them of the same person"""
    unknown_folder: Annotated[str, Field(pattern=r"^data/[^/].*$")] | None = None
    """for recognition: a folder in data, such as data/unknown, with photographs of people who are not to be known; they
    measure the threshold, and train nothing; the other tasks leave them out"""
    unreadable: Literal["stop", "skip"] = "stop"
    """what to do about files that are not readable photographs: stop with a list of them, or skip them and list them in
    splits/left_out.csv"""

    @model_validator(mode="after")
    def _leave_some_to_train_on(self) -> "PrepareParams":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must be below 1, so that some photographs train")
        return self


class BackboneParams(_Section):
    """Where the frozen convolutions come from."""

    weights: Text = "imagenet"
    """imagenet (torchvision's), untrained (random filters), or the path of VGG19's state dict, .pth or .safetensors"""
    seed: Seed = 0
    """decides the filters of an untrained backbone"""

    @model_validator(mode="after")
    def _refuse_addresses(self) -> "BackboneParams":
        if "://" in self.weights:  # which may hold a password or a token, so that it is not repeated
            raise ValueError("weights is an address. Download that file, and set weights to its path")
        return self


class FaceParams(_Section):
    """Which part of a photograph the network sees."""

    crop: Literal["none", "center", "detect"] = "none"
    """whole photograph (none), its center square, or the square around the subject's detected face"""
    center_fraction: Annotated[float, Field(gt=0, le=1)] = 0.64
    """side of the center square, as a fraction of the shorter side; also used by detect where it finds no face"""
    margin: Annotated[float, Field(ge=-0.4, le=2)] = -0.05
    """margin around a detected face, as a fraction of its box; may be negative"""
    align: bool = True
    """rotate and scale a detected face so that eyes, nose and mouth are always in the same places"""
    context: Literal["none", "margin", "photograph"] = "none"
    """what is taken beside the crop of a detected face, and gives as many features again: nothing, the square with
    context_margin, or the whole photograph"""
    context_margin: Annotated[float, Field(ge=-0.4, le=2)] = 0.25
    """margin of the context around a detected face, as a fraction of its box; greater than margin"""

    @model_validator(mode="after")
    def _refuse_a_context_within_the_crop(self) -> "FaceParams":
        if self.context == "margin" and self.context_margin <= self.margin:
            raise ValueError("context_margin must be greater than margin")
        return self


class ExtractParams(_Section):
    """How photographs become features."""

    # Five poolings halve it: nothing is left of fewer than 32 pixels.
    image_size_px: Annotated[int, Field(ge=32, le=4096)] = 224
    """the shorter side is resized to this, and the center square is kept"""
    face: FaceParams = FaceParams()
    views: Annotated[tuple[View, ...], Field(strict=False)] = ("original",)
    """views of each photograph to train on and to average predictions over"""
    layers: Annotated[tuple[LayerName, ...], Field(strict=False)] = ("pool5",)
    """layers of VGG19 whose outputs are the features"""
    runtime: Literal["auto", "ncnn", "torch", "torch-bfloat16"] = "auto"
    """library for the features; auto is ncnn on a CPU, else torch; torch-bfloat16 rounds to 16 bits (docs/speed.md)"""

    @model_validator(mode="after")
    def _refuse_duplicates(self) -> "ExtractParams":
        if self.views[:1] != ("original",) or len(set(self.views)) < len(self.views):
            raise ValueError("views must begin with original and contain no view twice")
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError("layers must contain at least one layer, and none twice")
        return self


class PreprocessingParams(_Section):
    """How features are preprocessed before the head, in this order."""

    square_root: bool = False
    """take the square root of each feature"""
    l2_normalize: bool = False
    """bring each photograph's features to length 1"""
    standardize: bool = False
    """scale each feature to variance 1 on train"""
    pca_components: PositiveInt | None = None
    """principal components to project to; null for no projection"""


class TrainParams(_Section):
    """The classifier and how it is trained."""

    seed: Seed = 0
    """decides initial weights, the order of photographs, views and dropout"""
    preprocessing: PreprocessingParams = PreprocessingParams()
    classifier: Literal["mlp", "linear", "lda", "logistic", "plda", "ridge"] = "mlp"
    """multilayer perceptron, the same without hidden layers, linear discriminant analysis, or logistic regression; for
    verification plda, probabilistic linear discriminant analysis, or lda, whose coordinates are compared by cosine; for
    attributes also ridge, ridge regression"""
    hidden_units: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = (4096, 4096)
    """widths of the hidden layers of mlp"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """dropout probability after each hidden layer of mlp"""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """learning rate of Adam, for mlp and linear"""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """constant, or cosine, which falls to 0 over all epochs"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """weight decay of AdamW; 0 is plain Adam"""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """label smoothing of the loss"""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced gives every person the same weight in the loss; for attributes, yes and no of each attribute"""
    sampling: Literal["none", "balanced"] = "none"
    """balanced draws every person equally often"""
    batch_size: PositiveInt = 32
    """photographs per training step"""
    epochs: PositiveInt = 10
    """passes over train, for mlp and linear"""
    patience_epochs: PositiveInt | None = None
    """stop after this many epochs without a better validation accuracy; null never stops early"""
    keep_epoch: Literal["last", "best"] = "last"
    """which epoch's weights to keep; best by validation accuracy"""
    lda_shrinkage: Annotated[float, Field(ge=0, le=1)] = 0.05
    """shrinkage of the covariance of lda, and of that within a person of plda"""
    plda_between_scale: Annotated[float, Field(gt=0, le=1)] = 0.5
    """factor of the covariance between people of plda, also where it compares photographs for unknown people; below 1
    allows for new people, who vary more than those of train"""
    logistic_c: Annotated[float, Field(gt=0)] = 1.0
    """inverse strength of the L2 penalty of logistic, scikit-learn's C"""
    ridge_penalty: Annotated[float, Field(gt=0)] = 1.0
    """strength of the L2 penalty of ridge, relative to the variance of the photographs' features"""
    false_acceptance_rate: Fraction = 0.05
    """fraction of unknown people's photographs that may reach the threshold below which the prediction is unknown; it
    is fitted to people of train who are left out of a comparison model"""
    attribute_thresholds: Literal["accuracy", "balanced_accuracy"] = "accuracy"
    """for attributes: which metric the threshold of each attribute is for, from which the answer is yes"""

    @model_validator(mode="after")
    def _match_classifier_and_components(self) -> "TrainParams":
        if self.classifier in ("lda", "plda") and self.preprocessing.pca_components is None:
            raise ValueError(
                f"{self.classifier} needs preprocessing.pca_components, 600 for example: a covariance of all features "
                "is too large"
            )
        if self.classifier == "ridge" and self.preprocessing.pca_components is not None:
            raise ValueError("ridge takes all components: set preprocessing.pca_components to null")
        return self


CLASSIFIERS: dict[TaskName, tuple[str, ...]] = {
    "recognition": ("mlp", "linear", "lda", "logistic"),
    "verification": ("plda", "lda"),
    "attributes": ("mlp", "linear", "logistic", "ridge"),
}
# The classifiers for which a param of train makes a difference, and the tasks for which one does; of others, all.
_OF_CLASSIFIERS = {
    **dict.fromkeys(("hidden_units", "dropout"), ("mlp",)),
    **dict.fromkeys(
        (
            "learning_rate",
            "learning_rate_schedule",
            "weight_decay",
            "label_smoothing",
            "sampling",
            "batch_size",
            "epochs",
            "patience_epochs",
            "keep_epoch",
        ),
        ("mlp", "linear"),
    ),
    "lda_shrinkage": ("lda", "plda"),
    "logistic_c": ("logistic",),
    "ridge_penalty": ("ridge",),
}
_OF_TASKS: dict[str, tuple[TaskName, ...]] = {
    "plda_between_scale": ("recognition", "verification"),
    "false_acceptance_rate": ("recognition",),
    "attribute_thresholds": ("attributes",),
}


def list_affected_classifiers(name: str, task: TaskName) -> tuple[str, ...]:
    """Return the classifiers of a task for which a param, by its dotted name, makes a difference."""
    section, _, key = name.partition(".")
    if section != "train":
        return CLASSIFIERS[task]
    if task not in _OF_TASKS.get(key, (task,)):
        return ()
    affected = _OF_CLASSIFIERS.get(key, CLASSIFIERS[task])
    if key == "class_weights" and task != "attributes":
        affected = ("mlp", "linear")
    return tuple(classifier for classifier in CLASSIFIERS[task] if classifier in affected)


class PlotParams(_Section):
    """How figures are drawn."""

    resolution_dpi: Annotated[int, Field(ge=30, le=600)] = 150
    """resolution of the figures, in dots per inch"""


class ComputeParams(_Section):
    """The device that extraction, training and evaluation use, and the machines that share the work."""

    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")] = "cpu"
    """PyTorch's device: cpu, cuda, cuda:1 or mps"""
    cluster: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    """where photographs are decoded, features computed, and folds, learning curves and trials trained: null for this
    machine, local for a Ray cluster that is started on it, or the address of a Ray cluster such as 192.0.2.1:6379 (pip
    install 'celebflow[ray]')"""
    shared_disk: bool = False
    """the cluster's nodes see data/, features/ and splits/ at the same paths, so that they read the files themselves"""


class TrackingParams(_Section):
    """Where runs are logged in MLflow."""

    experiment: Annotated[str, Field(min_length=1, max_length=500)] = "celebflow"
    """name of the experiment in MLflow"""
    required: bool = True
    """stop when MLflow's store cannot be reached; false trains on, and `celebflow runs sync` logs the run later"""


class Params(_Section):
    """All of params.yaml, one field per section; its defaults are the base recipe."""

    task: TaskName = "recognition"
    """what is learned: recognition (who it is), verification (whether two photographs show the same person), or
    attributes (smiling, glasses and others, each yes or no)"""
    prepare: PrepareParams = PrepareParams()
    backbone: BackboneParams = BackboneParams()
    extract: ExtractParams = ExtractParams()
    train: TrainParams = TrainParams()
    plot: PlotParams = PlotParams()
    compute: ComputeParams = ComputeParams()
    tracking: TrackingParams = TrackingParams()

    @model_validator(mode="after")
    def _match_classifier_and_task(self) -> "Params":
        fitting = CLASSIFIERS[self.task]
        if self.train.classifier not in fitting:
            raise ValueError(
                f"train.classifier is {self.train.classifier}, which does not fit task {self.task}: set it to "
                f"{' or '.join(fitting)}. The recipes do so: celebflow recipe"
            )
        if self.task == "verification" and self.train.preprocessing.standardize:
            raise ValueError("train.preprocessing.standardize must be false for task verification: components have it")
        if self.task == "attributes" and self.train.sampling == "balanced":
            raise ValueError("train.sampling must be none for task attributes. Use train.class_weights")
        return self


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
    except OSError as error:
        raise CelebflowError(f"{path} cannot be read ({error.strerror}).") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise CelebflowError(f"{path} is not valid YAML: {error}") from None


def load_flat_params(path: Path) -> dict[str, object]:
    """Read a params file of any version of celebflow, without checks, as a dict from dotted names to values.

    Raises CelebflowError when it is not a YAML file of sections.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise CelebflowError(f"{path} has no sections. Restore it by `git checkout HEAD -- {path.name}`.")
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
