"""Run the frozen backbone: with PyTorch anywhere, with ncnn, faster on a CPU, or with PyTorch in 16 bits."""

import copy
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from celebflow.backbone.vgg19 import Backbone
from celebflow.errors import CelebflowError
from celebflow.features.origin import RuntimeName
from celebflow.params import LayerName

MAX_RELATIVE_ERROR = 1e-5
# bfloat16 has 8 significant bits. On photographs, features differ by 0.005 to 0.011.
MAX_RELATIVE_ERROR_OF_BFLOAT16 = 0.03
MAX_RELATIVE_ERRORS: dict[RuntimeName, float] = {
    "ncnn": MAX_RELATIVE_ERROR,
    "torch": MAX_RELATIVE_ERROR,
    "torch-bfloat16": MAX_RELATIVE_ERROR_OF_BFLOAT16,
}


class Runtime(Protocol):
    """Compute features. `extract` is the fastest when `workers` threads call it at once.

    It raises CelebflowError when features are not finite.
    """

    workers: int

    def extract(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn one (3, size, size) transformed photograph into its (25088 · layers,) features."""
        ...


def build_runtime(name: RuntimeName, backbone: Backbone, layers: Sequence[LayerName]) -> Runtime:
    """Build the runtime of this name, which computes the outputs of `layers` as features."""
    runtimes: dict[RuntimeName, type[NcnnRuntime | TorchRuntime | BFloat16Runtime]] = {
        "ncnn": NcnnRuntime,
        "torch": TorchRuntime,
        "torch-bfloat16": BFloat16Runtime,
    }
    return runtimes[name](backbone, layers)


class TorchRuntime:
    """PyTorch, one photograph at a time, because one convolution keeps all cores or the GPU busy.

    While it computes for one worker, the other worker reads the next photograph.
    """

    workers = 2

    def __init__(self, backbone: Backbone, layers: Sequence[LayerName]) -> None:
        self._layers = layers
        # On a CPU, oneDNN's convolutions are a quarter faster with channels_last than with the default layout.
        self._backbone = backbone.to(memory_format=torch.channels_last)
        # PyTorch keeps a pool of threads for each thread that calls it, so that one thread makes all calls.
        self._caller = ThreadPoolExecutor(1)

    def extract(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn one (3, size, size) transformed photograph into its (25088 · layers,) features."""
        return _require_finite(self._caller.submit(self._backbone.extract, image, self._layers).result())


class BFloat16Runtime:
    """PyTorch with weights and values rounded to bfloat16, which processors with AMX multiply several times as fast.

    PyTorch computes the first photograph in float32 as well, and no features are returned unless the two agree.
    """

    workers = TorchRuntime.workers

    def __init__(self, backbone: Backbone, layers: Sequence[LayerName]) -> None:
        self._layers = layers
        self._rounded = copy.deepcopy(backbone).to(torch.bfloat16).to(memory_format=torch.channels_last)
        self._device = next(backbone.parameters()).device
        self._caller = ThreadPoolExecutor(1)  # as in TorchRuntime
        self._check = _FirstCheck("bfloat16", backbone, layers, MAX_RELATIVE_ERROR_OF_BFLOAT16)

    def extract(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn one (3, size, size) transformed photograph into its (25088 · layers,) features.

        Raises CelebflowError when they differ too much from those in float32.
        """
        return self._caller.submit(self._extract, image).result()

    @torch.inference_mode()
    def _extract(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        batch = torch.from_numpy(image)[None].to(self._device, torch.bfloat16)
        found: NDArray[np.float32] = self._rounded(batch, self._layers)[0].float().cpu().numpy()
        self._check(image, _require_finite(found))
        return found


class NcnnRuntime:
    """ncnn: Winograd's minimal filtering (Lavin and Gray, 2016) in float32, with one photograph per core.

    PyTorch computes the first photograph as well, and no features are returned unless the two agree.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[LayerName]) -> None:
        import ncnn

        self._layers = layers
        self._ncnn = ncnn
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = 1  # each core computes a photograph of its own, so that none waits for another
        self.workers = torch.get_num_threads()
        for half_precision in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
            if hasattr(options, f"use_{half_precision}"):  # not every version has each
                setattr(options, f"use_{half_precision}", False)
        self._load(backbone)
        self._check = _FirstCheck("ncnn", backbone, layers, MAX_RELATIVE_ERROR)

    def _load(self, backbone: Backbone) -> None:
        """Write the layers in ncnn's two formats, a text of layers and a file of weights, and load both."""
        layers = ["Input input 0 1 blob0"]  # the output of each is the blob with its number
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.bin"
            with weights.open("wb") as file:
                for layer, name in backbone.named_layers():
                    number = len(layers)
                    blobs = f"1 1 blob{number - 1} blob{number}"
                    if isinstance(layer, nn.Conv2d):
                        # 0: filters, 1: kernel size, 4: padding, 5: with bias, 6: count of weights, 9: with ReLU
                        keys = f"0={layer.out_channels} 1=3 4=1 5=1 6={layer.weight.numel()} 9=1"
                        # Winograd's transformations do not pay off for three channels; 31=64 turns them off.
                        keys += " 31=64" if layer.in_channels == 3 else ""
                        layers.append(f"Convolution convolution{number} {blobs} {keys}")
                        file.write(bytes(4))  # says that float32 follows
                        file.write(layer.weight.detach().contiguous().numpy().data)
                        file.write(layer.bias.detach().numpy().data if layer.bias is not None else b"")
                    elif isinstance(layer, nn.MaxPool2d):
                        # 0: maximum, 1: kernel size, 2: stride, 5: no padding
                        layers.append(f"Pooling pooling{number} {blobs} 0=0 1=2 2=2 5=1")
                        if name in self._layers:  # ncnn needs a split where two layers read an output
                            layers.append(f"Split split{number + 1} 1 2 blob{number} {name} blob{number + 1}")
            for name in self._layers:  # 0: average, 7: adaptive, 8: to 7×7
                layers.append(f"Pooling average_{name} 1 1 {name} features_{name} 0=1 7=1 8=7")
            blob_count = len(layers) + len(self._layers)  # a split has two outputs
            text = "\n".join(["7767517", f"{len(layers)} {blob_count}", *layers, ""])
            if self._net.load_param_mem(text) or self._net.load_model(str(weights)):
                raise CelebflowError("ncnn cannot load the backbone. Set extract.runtime to torch.")

    def extract(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn one (3, size, size) transformed photograph into its (25088 · layers,) features.

        Raises CelebflowError when ncnn's features differ from PyTorch's.
        """
        extractor = self._net.create_extractor()
        extractor.input("blob0", self._ncnn.Mat(image))
        parts = []
        for name in self._layers:
            status, features = extractor.extract(f"features_{name}")
            if status:
                raise CelebflowError(f"ncnn could not compute (status {status}). Set extract.runtime to torch.")
            parts.append(np.array(features).reshape(-1))  # a copy, because the extractor frees its memory
        found = _require_finite(np.concatenate(parts))
        self._check(image, found)
        return found


def _require_finite(features: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(features).all():
        raise CelebflowError(
            "The backbone's features are not finite: its weights are too large to be those of VGG19. Set "
            "backbone.weights to other weights, and run `dvc repro`."
        )
    return features


def compute_relative_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the length of the difference of two vectors, relative to that of the second."""
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), np.finfo(np.float32).tiny))


class _FirstCheck:
    """Compare the features of the first photograph with PyTorch's in float32, and let no others pass before."""

    def __init__(self, name: str, backbone: Backbone, layers: Sequence[LayerName], max_relative_error: float) -> None:
        self._name = name
        self._backbone = backbone
        self._layers = layers
        self._max_relative_error = max_relative_error
        self._checking = Lock()
        self._checked = False

    def __call__(self, image: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        """Raise CelebflowError when the features found for a photograph differ too much."""
        with self._checking:
            if not self._checked:
                self._compare(found, self._backbone.extract(image, self._layers))
                self._checked = True

    def _compare(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        error = compute_relative_error(found, expected)
        if not error <= self._max_relative_error:
            raise CelebflowError(
                f"The features of {self._name} differ from PyTorch's in float32 by {error:.1e}, more than "
                f"{self._max_relative_error:.0e}. Set extract.runtime to torch."
            )
