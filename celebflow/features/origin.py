"""What determines features, apart from the photographs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from celebflow.backbone.source import BackboneSource, load_backbone_source
from celebflow.errors import CelebflowError
from celebflow.features.transform import WHOLE, Transform
from celebflow.params import ComputeParams, ExtractParams, FaceParams
from celebflow.paths import write_whole

RuntimeName = Literal["ncnn", "torch", "torch-bfloat16"]
# What a processor must have for products of bfloat16 to be faster than those of float32: AMX, AVX-512 or SVE with them.
_BFLOAT16 = ("amx_bf16", "avx512_bf16", "sve_bf16")


@dataclass(frozen=True)
class FeatureOrigin:
    """What determines features, apart from the photographs; stored with them."""

    backbone: BackboneSource
    transform: Transform
    runtime: RuntimeName

    @property
    def feature_count(self) -> int:
        """Return the number of features of one view of a photograph."""
        return self.transform.feature_count

    def save(self, path: Path) -> None:
        """Write a JSON file."""
        values = asdict(self) | {"transform": self.transform.to_dict()}
        with write_whole(path) as part:
            part.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "FeatureOrigin":
        """Read what `save` wrote; raise CelebflowError when an earlier version of celebflow wrote it."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            backbone = BackboneSource(**values["backbone"])
            return cls(backbone, Transform.from_dict(values["transform"]), values["runtime"])
        except (KeyError, TypeError, ValueError):
            raise CelebflowError(
                f"{path} is not valid: an older celebflow stored these features. Run `dvc repro` to extract them again."
            ) from None


def determine_origin(backbone_file: Path, extract: ExtractParams, compute: ComputeParams) -> FeatureOrigin:
    """Return the origin that the params select; raise CelebflowError when the runtime cannot be used."""
    runtime = choose_runtime(extract.runtime, compute.device)
    transform = Transform(extract.image_size_px, _keep_effective(extract.face), extract.views, extract.layers)
    return FeatureOrigin(load_backbone_source(backbone_file), transform, runtime)


def choose_runtime(name: RuntimeName | Literal["auto"], device: str) -> RuntimeName:
    """Return the runtime that extract.runtime names; for "auto", the fastest that computes in float32 on the device.

    Raises CelebflowError when it is ncnn, and ncnn is not installed or the device is not a CPU, and when it is
    torch-bfloat16, and the processor cannot multiply such numbers itself.
    """
    usable = device == "cpu" and _can_import_ncnn()
    if name == "auto":
        return "ncnn" if usable else "torch"
    if name == "ncnn" and not usable:
        reason = f"compute.device is {device}" if device != "cpu" else "it cannot be imported (pip install ncnn)"
        raise CelebflowError(f"extract.runtime is ncnn, which runs on the CPU only: {reason}. Or set it to auto.")
    if name == "torch-bfloat16" and device == "cpu" and not _has_bfloat16():
        raise CelebflowError(
            f"extract.runtime is {name}, but this processor does not multiply such numbers itself (it has none of "
            f"{', '.join(_BFLOAT16)}), and would take longer than with float32. Set it to auto."
        )
    return name


def _has_bfloat16() -> bool:
    import torch

    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _BFLOAT16)


def _can_import_ncnn() -> bool:
    try:
        import ncnn  # noqa: F401
    except (ImportError, OSError):  # not installed, or built for another machine
        return False
    return True


def _keep_effective(face: FaceParams) -> FaceParams:
    """Set the params that a crop does not use to fixed values, so that they do not affect the cache."""
    of_context = () if face.crop == "detect" and face.context == "margin" else ("context_margin",)
    unused = {
        "none": ("center_fraction", "margin", "align", "context"),
        "center": ("margin", "align", "context"),
        "detect": (),
    }[face.crop]
    return face.model_copy(update={name: getattr(WHOLE, name) for name in (*unused, *of_context)})


def origin_file(folder: Path) -> Path:
    """Return the file in which save_features saves the origin of the features in `folder`."""
    return folder / "origin.json"
