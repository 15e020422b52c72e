"""What saved models need to be used, beside their tensors; read without PyTorch."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from safetensors import SafetensorError, safe_open

from celebflow.backbone.source import BackboneSource
from celebflow.classifier.attribute_calibration import AttributeCalibration
from celebflow.classifier.calibration import Calibration
from celebflow.classifier.pair_calibration import PairCalibration
from celebflow.errors import CelebflowError, raise_shortage
from celebflow.features.transform import Transform
from celebflow.params import PreprocessingParams, TaskName

UNCHANGED = PreprocessingParams(square_root=False, l2_normalize=False, standardize=False, pca_components=None)
Score = Literal["plda", "lda"]


@dataclass(frozen=True)
class ModelKind:
    """A kind of model: its name and task, the key of its card in a file's metadata, and the command that uses it.

    `work` says what it does, in a sentence that begins with the file's path. Increment `format` when the meaning of a
    saved file changes, so that files of earlier versions are refused.
    """

    name: str
    task: TaskName
    key: str
    format: int
    work: str
    command: str


CLASSIFIER = ModelKind(
    "classifier",
    "recognition",
    "celebflow",
    5,
    "recognizes people",
    "celebflow predict",
)
VERIFIER = ModelKind(
    "verifier",
    "verification",
    "celebflow_verifier",
    3,
    "compares photographs",
    "celebflow verify",
)
ATTRIBUTES = ModelKind(
    "model of attributes",
    "attributes",
    "celebflow_attributes",
    1,
    "predicts attributes",
    "celebflow predict",
)
_KINDS = (CLASSIFIER, VERIFIER, ATTRIBUTES)


@dataclass(frozen=True)
class NetworkCard:
    """What a saved network needs to be used, whatever its outputs mean; inference never reads params.yaml.

    `class_names` are those of its outputs.
    """

    class_names: tuple[str, ...]
    hidden_units: tuple[int, ...]
    dropout: float
    transform: Transform
    backbone: BackboneSource
    preprocessing: PreprocessingParams = UNCHANGED


@dataclass(frozen=True)
class ClassifierCard(NetworkCard):
    """What a saved classifier needs to be used; `class_names` are people."""

    calibration: Calibration = field(kw_only=True)


@dataclass(frozen=True)
class AttributeCard(NetworkCard):
    """What a saved model of attributes needs to be used; `class_names` are the attributes.

    `yes_fractions` are the attributes' fractions of yes on train.
    """

    calibration: AttributeCalibration = field(kw_only=True)
    yes_fractions: tuple[float, ...] = field(kw_only=True)


@dataclass(frozen=True)
class ComparisonSettings:
    """How a comparison is fitted: at most `component_count` components, and the arguments of fit_two_covariances."""

    component_count: int
    shrinkage: float
    between_scale: float
    seed: int


@dataclass(frozen=True)
class VerifierCard:
    """What a saved verifier needs to be used; inference never reads params.yaml.

    `people_count` is the number of people that it was trained on. `settings` are what it was trained with, so that
    evaluation can train in the same way on other people.
    """

    score: Score
    settings: ComparisonSettings
    people_count: int
    transform: Transform
    backbone: BackboneSource
    preprocessing: PreprocessingParams
    calibration: PairCalibration


Card = TypeVar("Card", ClassifierCard, AttributeCard, VerifierCard)


def write_card(card: ClassifierCard | AttributeCard | VerifierCard, kind: ModelKind) -> dict[str, str]:
    """Return the metadata of a file with a model of this card."""
    models = {"transform": card.transform.to_dict(), "preprocessing": card.preprocessing.model_dump()}
    content = asdict(card) | models | {"format": kind.format}
    # One key, since safetensors writes several in no fixed order.
    return {kind.key: json.dumps(content, sort_keys=True, allow_nan=False)}


def load_classifier_card(path: Path) -> ClassifierCard:
    """Read a saved classifier's card, without its weights.

    Raises CelebflowError when the file has no card, is another kind of model, or another version of celebflow saved it.
    """

    def make(values: Mapping[str, Any]) -> ClassifierCard:
        return ClassifierCard(**_read_network(values), calibration=Calibration(**values["calibration"]))

    return _read_card(path, CLASSIFIER, make)


def load_attribute_card(path: Path) -> AttributeCard:
    """Read the card of a saved model of attributes, as load_classifier_card does."""

    def make(values: Mapping[str, Any]) -> AttributeCard:
        fitted = values["calibration"]
        calibration = {name: tuple(value) for name, value in fitted.items() if name != "used"}
        card = AttributeCard(
            **_read_network(values),
            calibration=AttributeCalibration(**calibration, used=fitted["used"]),
            yes_fractions=tuple(values["yes_fractions"]),
        )
        if not len(card.class_names) == len(card.yes_fractions) == len(card.calibration.slopes):
            raise ValueError("its attributes and its calibration differ in number")
        return card

    return _read_card(path, ATTRIBUTES, make)


def load_verifier_card(path: Path) -> VerifierCard:
    """Read a saved verifier's card, as load_classifier_card does."""

    def make(values: Mapping[str, Any]) -> VerifierCard:
        return VerifierCard(
            score=values["score"],
            settings=ComparisonSettings(**values["settings"]),
            people_count=values["people_count"],
            calibration=PairCalibration(**values["calibration"]),
            **_read_extraction(values),
        )

    return _read_card(path, VERIFIER, make)


def find_kind(path: Path) -> ModelKind:
    """Return the kind of a model; raise CelebflowError when the file is not a model."""
    try:
        metadata = _read_metadata(path)
    except (OSError, SafetensorError) as error:
        raise_shortage(error, path)
        raise CelebflowError(f"{path} is not a model that celebflow saved ({error}). Run `dvc repro`.") from None
    for kind in _KINDS:
        if kind.key in metadata:
            return kind
    raise CelebflowError(f"{path} is not a model that celebflow saved (it has no card). Run `dvc repro`.")


def refuse_kind(path: Path, found: ModelKind, needed: Sequence[ModelKind]) -> CelebflowError:
    """Return the error that a file holds a model of another kind than is needed here."""
    names = " or ".join(f"a {kind.name}" for kind in needed)
    tasks = " or ".join(kind.task for kind in needed)
    return CelebflowError(
        f"{path} {found.work}: it was trained with the task {found.task}, and this needs {names}. Use "
        f"`{found.command}`, choose another model, or set task to {tasks} in params.yaml and run `dvc repro`."
    )


def _read_card(path: Path, kind: ModelKind, make: Callable[[Mapping[str, Any]], Card]) -> Card:
    """Read the card of a model, without its tensors, and return what `make` makes of it.

    Raises CelebflowError when the file has no card, is a model of another kind or version, or `make` cannot use it.
    """
    try:
        metadata = _read_metadata(path)
        for other in _KINDS:
            if other is not kind and other.key in metadata:
                raise refuse_kind(path, other, [kind])
        values = json.loads(metadata[kind.key])
        if values.get("format") != kind.format:
            raise CelebflowError(
                f"{path} was saved by another version of celebflow, in a format that this one does not read. "
                "Run `dvc repro` to train it again."
            )
        return make(values)
    except (AttributeError, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise_shortage(error, path)
        raise CelebflowError(f"{path} is not a {kind.name} that celebflow saved ({error}). Run `dvc repro`.") from None


def _read_network(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the cards of networks share."""
    return _read_extraction(values) | {
        "class_names": tuple(values["class_names"]),
        "hidden_units": tuple(values["hidden_units"]),
        "dropout": values["dropout"],
    }


def _read_extraction(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the cards of all models share: how photographs become what the model takes."""
    return {
        "transform": Transform.from_dict(values["transform"]),
        "backbone": BackboneSource(**values["backbone"]),
        "preprocessing": PreprocessingParams(**values["preprocessing"]),
    }


def _read_metadata(path: Path) -> dict[str, str]:
    try:
        path.open("rb").close()  # safetensors says of every file that cannot be opened that there is none
    except OSError as error:
        raise_shortage(error, path)
        raise CelebflowError(
            f"{path} cannot be read ({error.strerror}). Check that file, or run `dvc repro`."
        ) from None
    with safe_open(path, "np") as file:
        return file.metadata() or {}
