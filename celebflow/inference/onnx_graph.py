"""What exports to ONNX share: the graph from pixels to normalized features, and a file that is checked."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from celebflow.backbone.source import BackboneSource
from celebflow.backbone.vgg19 import Backbone
from celebflow.classifier.comparison_model import Embedder
from celebflow.classifier.layers import DenseLinear
from celebflow.classifier.network import Network
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.errors import CelebflowError, raise_shortage
from celebflow.features.transform import Transform

OPSET = 17
INPUT = "views"
_MAX_WEIGHT_BYTES = 2**31 - 2**20  # leaves room for the graph
_IR_VERSION = 8  # came with opset 17; the library's newest would exclude older runtimes
_POOLED_SIDE = 7  # of the feature maps
_NOISE_SIDES_PX = (4, 16, 64, 200)  # from coarse to fine


class Graph:
    """A chain of nodes: each takes the last one's output, unless it names its inputs."""

    def __init__(self, last: str) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.last = last

    def add(self, operator: str, *constants: torch.Tensor, **attributes: Any) -> str:
        """Apply an operator to the last node's output and constants; return its own name."""
        return self.combine(operator, [self.last, *map(self.add_constant, constants)], **attributes)

    def combine(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Apply an operator to constants and outputs of nodes with these names; return its own name."""
        from onnx import helper

        self.last = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [self.last], name=self.last, **attributes))
        return self.last

    def name_last(self, name: str) -> None:
        """Make the last node's output one of the model, with this name."""
        self.last = self.nodes[-1].output[0] = name

    def add_constant(self, constant: torch.Tensor) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(constant.detach()), name))
        return name


def add_pixels(graph: Graph, transform: Transform) -> None:
    """Turn the input, (N, images, size, size, 3) pixels of 8 bits, into what the backbone takes: a row for each."""
    from onnx import TensorProto

    size = transform.image_size_px
    graph.add("Reshape", torch.tensor([-1, size, size, 3]))
    graph.add("Cast", to=TensorProto.FLOAT)
    graph.add("Div", torch.tensor([255.0]))
    graph.add("Sub", torch.tensor(transform.mean))
    graph.add("Div", torch.tensor(transform.standard_deviation))
    graph.add("Transpose", perm=[0, 3, 1, 2])


def add_backbone(graph: Graph, backbone: Backbone, transform: Transform) -> str:
    """Add VGG19 up to the last layer whose outputs are features, and return the node of the features of each view."""
    layers = transform.layers
    side = transform.image_size_px
    features: dict[str, str] = {}  # a layer's name → its node's
    for layer, name in backbone.named_layers():
        if isinstance(layer, nn.Conv2d):
            graph.add("Conv", *layer.parameters(), pads=[1, 1, 1, 1])
        elif isinstance(layer, nn.ReLU):
            graph.add("Relu")
        else:
            pooled = graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
            side //= 2
            if name in layers:
                features[name] = _add_pooling(graph, side)
                graph.last = pooled
        if len(features) == len(layers):
            break
    joined = graph.combine("Concat", [features[name] for name in layers], axis=1)
    if len(transform.regions) > 1:  # those of a view follow each other
        joined = graph.add("Reshape", torch.tensor([-1, transform.feature_count]))
    return joined


def _add_pooling(graph: Graph, side: int) -> str:
    """Average (N, 512, side, side) to 7×7, as torchvision's VGG19 does, and flatten; ONNX has no operator for it."""
    if side != _POOLED_SIDE:
        averages = nn.functional.adaptive_avg_pool1d(torch.eye(side), _POOLED_SIDE)  # (side, 7)
        rows = graph.add("MatMul", averages)  # along each row
        graph.combine("MatMul", [graph.add_constant(averages.T), rows])  # along each column
    return graph.add("Flatten", axis=1)


def add_normalization(graph: Graph, preprocessor: Preprocessor) -> None:
    """Normalize features as Preprocessor.normalize does."""
    if preprocessor.settings.square_root:
        graph.add("Sqrt")
    if preprocessor.settings.l2_normalize:
        features = graph.last
        graph.add("ReduceL2", axes=[1], keepdims=1)
        graph.add("Max", torch.tensor([torch.finfo(torch.float32).tiny]))
        graph.combine("Div", [features, graph.last])
    if preprocessor.settings.standardize:
        graph.add("Mul", preprocessor.scale)


def add_network(graph: Graph, network: Network, views: int) -> str:
    """Turn features, a row for each view, into the means of logits as Network.average does, and return their node."""
    add_normalization(graph, network.preprocessor)
    first, rest = network.split_at_first_product()
    graph.add("Gemm", first.weight, first.bias)
    for layer in rest:
        if isinstance(layer, DenseLinear):
            graph.add("Gemm", layer.weight, layer.bias, transB=1)
        elif isinstance(layer, nn.ReLU):
            graph.add("Relu")
        elif not isinstance(layer, nn.Dropout):  # Dropout does nothing after training
            raise TypeError(layer)
    graph.add("Reshape", torch.tensor([-1, views, network.output_count]))
    return graph.add("ReduceMean", axes=[1], keepdims=0)


def add_embedding(graph: Graph, embedder: Embedder, views: int) -> str:
    """Turn features, a row for each view, into coordinates as Embedder.embed does, and return their node."""
    preprocessor, between = embedder.preprocessor, embedder.model.between
    assert preprocessor.projection is not None  # noqa: S101 - every embedder has one
    add_normalization(graph, preprocessor)
    graph.add("Gemm", preprocessor.projection.weight, preprocessor.projection.bias)
    graph.add("Reshape", torch.tensor([-1, views, preprocessor.output_count]))
    projected = graph.add("ReduceMean", axes=[1], keepdims=0)  # (N, D), to be brought to one length
    graph.add("Div", torch.from_numpy(np.sqrt(1 + between)).float())
    graph.combine("Mul", [graph.last, graph.last])
    graph.add("ReduceMean", axes=[1], keepdims=1)
    graph.add("Sqrt")
    lengths = graph.add("Max", torch.tensor([torch.finfo(torch.float32).tiny]))
    return graph.combine("Div", [projected, lengths])


def make_model(graph: Graph, transform: Transform, outputs: Mapping[str, int], metadata: Mapping[str, str]) -> Any:
    """Return the model of a graph with outputs of these names: (N, width) numbers each.

    Raises CelebflowError when it is too large for one file.
    """
    from onnx import TensorProto, helper

    size, images = transform.image_size_px, len(transform.views) * len(transform.regions)
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["photographs", images, size, size, 3])]
    results = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["photographs", outputs[name]]) for name in outputs
    ]
    if sum(len(constant.raw_data) for constant in graph.constants) > _MAX_WEIGHT_BYTES:
        raise CelebflowError(
            "The model is too large for one ONNX file, which may have up to 2 GB. Train it with fewer hidden units or "
            "components."
        )
    model = helper.make_model(
        helper.make_graph(graph.nodes, "celebflow", inputs, results, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="celebflow",
        producer_version=version("celebflow"),
    )
    helper.set_model_props(model, dict(metadata))
    return model


def describe_input(transform: Transform, backbone: BackboneSource, facts: Mapping[str, object]) -> dict[str, str]:
    """Return metadata of a file: facts in JSON, among them what its input is made by, and texts."""
    facts = {**facts, "transform": transform.to_dict(), "backbone_fingerprint": backbone.fingerprint}
    metadata = {name: json.dumps(value, ensure_ascii=False, allow_nan=False) for name, value in facts.items()}
    metadata["input"] = (
        "RGB pixels, 0 to 255, of each photograph in the views that the transform lists, in their order. The shorter "
        "side of the crop is resized to image_size_px (bilinear, antialiased), and the center square is kept."
    )
    if len(transform.regions) > 1:
        metadata["input"] += " The crop of each view is followed by its context: the square with context_margin, or "
        metadata["input"] += "the photograph."
    if backbone.warning():
        metadata["warning"] = backbone.warning()
    return metadata


def require_onnx() -> None:
    """Raise CelebflowError when the libraries are missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        raise CelebflowError("ONNX is not installed: pip install 'celebflow[onnx]'.") from None


def save_checked(model: Any, file: Path, measure: Callable[[Path], float], max_difference: float) -> float:
    """Write a model to a file, and return the difference that `measure` finds between the file and celebflow.

    A device or a pipe is written as it is.

    Raises CelebflowError, and leaves the file as it was, when it exceeds `max_difference`.
    """
    if file.exists() and not file.is_file():  # what cannot be read again, nor be replaced without being lost
        with TemporaryDirectory() as folder:
            checked = Path(folder, "model.onnx")
            difference = save_checked(model, checked, measure, max_difference)
            try:
                with checked.open("rb") as content, file.open("wb") as target:
                    shutil.copyfileobj(content, target)
            except OSError as error:
                raise CelebflowError(f"{file} cannot be written ({error.strerror}).") from None
        return difference
    import onnx

    unchecked = file.with_name(f"{file.name}.unchecked")
    try:
        onnx.save(model, str(unchecked))
        difference = measure(unchecked)
        if not difference <= max_difference:
            raise CelebflowError(
                f"What ONNX Runtime computes differs by {difference:.1e}, more than {max_difference:.0e}, so nothing "
                "was exported."
            )
        unchecked.replace(file)
    except OSError as error:
        raise_shortage(error, file)
        raise CelebflowError(f"{file} cannot be written ({error.strerror}).") from None
    finally:
        unchecked.unlink(missing_ok=True)
    return difference


def draw_noise() -> list[Image.Image]:
    """Return a few photographs of noise, from coarse to fine."""
    random = np.random.default_rng(0)
    photographs = []
    for side in _NOISE_SIDES_PX:
        noise = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
        photographs.append(noise.resize((240, 320), Image.Resampling.BICUBIC))
    return photographs


def run(file: Path, transform: Transform, photographs: Sequence[Image.Image]) -> dict[str, NDArray[np.float32]]:
    """Run ONNX Runtime on the subjects of N RGB photographs, one at a time; return its (N, width) outputs by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rows = []
    for photograph in photographs:
        views = transform.make_views(photograph, transform.find_subject(photograph))
        pixels = np.stack([np.asarray(view) for view in views])  # (images, size, size, 3)
        rows.append([values[0] for values in session.run(names, {INPUT: pixels[None]})])
    return dict(zip(names, map(np.stack, zip(*rows, strict=True)), strict=True))
