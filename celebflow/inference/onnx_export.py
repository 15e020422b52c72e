"""A taught model → one ONNX file, which any runtime answers with the same probabilities."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from celebflow.backbone.vgg19 import Backbone
from celebflow.classifier.layers import DenseLinear
from celebflow.classifier.model import Classifier
from celebflow.errors import CelebflowError
from celebflow.features.transform import Transform
from celebflow.inference.predictor import Predictor

OPSET = 17
MAX_DIFFERENCE = 1e-4
INPUT, OUTPUT = "views", "probabilities"
_MOST_WEIGHT_BYTES = 2**31 - 2**20  # and room for the graph
_IR_VERSION = 8  # which came with opset 17; the library's own newest would shut out older runtimes
_POOLED_SIDE = 7
_CHECKED_SIDES_PX = (4, 16, 64, 200)  # of the noise, from coarse to fine


def export_model(predictor: Predictor, file: Path) -> float:
    """Write a model to an ONNX file, and hold that against what `predictor` says itself.

    Its input are the views of N photographs, or of faces in them, cut out and resized, as (N, views, size, size, 3)
    pixels of 8 bits; its output (N, people) calibrated probabilities. Class names, transform, threshold and what else
    a program has to know stand in its metadata.

    Returns by how much a probability differs at most, on a few photographs of noise.

    Raises CelebflowError, and leaves no file, when that is more than MAX_DIFFERENCE or the libraries are missing.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError:
        raise CelebflowError("ONNX is not installed: pip install 'celebflow[onnx]'.") from None
    model = _build(predictor.backbone, predictor.classifier)
    if sum(len(constant.raw_data) for constant in model.graph.initializer) > _MOST_WEIGHT_BYTES:
        raise CelebflowError(
            "The model is too large for one ONNX file, which may have 2 GB: train it with fewer hidden units."
        )
    unchecked = file.with_name(f"{file.name}.unchecked")
    try:
        onnx.save(model, str(unchecked))
        difference = _measure_difference(unchecked, predictor)
        if not difference <= MAX_DIFFERENCE:
            raise CelebflowError(
                f"ONNX Runtime's probabilities differ by {difference:.1e}, more than {MAX_DIFFERENCE:.0e}; "
                "nothing was exported."
            )
        unchecked.replace(file)
    except OSError as error:
        raise CelebflowError(f"{file} cannot be written ({error.strerror}).") from None
    finally:
        unchecked.unlink(missing_ok=True)
    return difference


def _measure_difference(file: Path, predictor: Predictor) -> float:
    random = np.random.default_rng(0)
    photographs = [
        Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).resize((240, 320), Image.Resampling.BICUBIC)
        for side in _CHECKED_SIDES_PX
    ]
    answered = run_model(file, predictor.card.transform, photographs)
    return float(np.abs(answered - predictor.predict(photographs)).max())


def run_model(file: Path, transform: Transform, photographs: Sequence[Image.Image]) -> NDArray[np.float32]:
    """Ask ONNX Runtime about the subjects of RGB photographs, one at a time: (N, people) probabilities."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    answers = []
    for photograph in photographs:
        shown = transform.make_views(photograph, transform.find_subject(photograph))
        views = np.stack([np.asarray(view) for view in shown])
        answers.append(session.run([OUTPUT], {INPUT: views[None]})[0][0])
    return np.stack(answers)


class _Graph:
    """Nodes that are made one after another, each from what the last one gave."""

    def __init__(self, last: str) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.last = last

    def add(self, operator: str, *constants: NDArray[Any], first: NDArray[Any] | None = None, **attributes: Any) -> str:
        """Apply an operator to what the last node gave and constants, of which `first` stands before it."""
        names = [self.last, *(self._hold(constant) for constant in constants)]
        if first is not None:
            names.insert(0, self._hold(first))
        return self.combine(operator, names, **attributes)

    def combine(self, operator: str, names: Sequence[str], **attributes: Any) -> str:
        """Apply an operator to what nodes of these names gave."""
        self.last = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(operator, names, [self.last], name=self.last, **attributes))
        return self.last

    def _hold(self, constant: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self._numpy_helper.from_array(np.ascontiguousarray(constant), name))
        return name


def _build(backbone: Backbone, classifier: Classifier) -> Any:
    from onnx import TensorProto, helper

    card = classifier.card
    transform, size, views = card.transform, card.transform.image_size_px, len(card.transform.views)
    graph = _Graph(INPUT)
    graph.add("Reshape", np.array([-1, size, size, 3]))
    graph.add("Cast", to=TensorProto.FLOAT)
    graph.add("Div", np.array([255], np.float32))
    graph.add("Sub", np.array(transform.mean, np.float32))
    graph.add("Div", np.array(transform.standard_deviation, np.float32))
    graph.add("Transpose", perm=[0, 3, 1, 2])
    _add_backbone(graph, backbone, classifier)
    _add_classifier(graph, classifier)
    graph.add("Reshape", np.array([-1, views, len(card.class_names)]))
    graph.add("ReduceMean", axes=[1], keepdims=0)
    graph.add("Div", np.array([card.calibration.temperature], np.float32))
    graph.combine("Softmax", [graph.last], axis=1)
    graph.nodes[-1].output[0] = OUTPUT
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "celebflow",
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["photographs", views, size, size, 3])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["photographs", len(card.class_names)])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="celebflow",
        producer_version=version("celebflow"),
    )
    helper.set_model_props(model, describe_model(classifier))
    return model


def _add_backbone(graph: _Graph, backbone: Backbone, classifier: Classifier) -> None:
    """Add VGG19's layers, up to the last that gives features, and put those of all layers side by side."""
    layers, side = classifier.card.transform.layers, classifier.card.transform.image_size_px
    found: dict[str, str] = {}
    for layer, name in backbone.named_layers():
        if isinstance(layer, nn.Conv2d):
            graph.add("Conv", *(_to_array(parameter) for parameter in layer.parameters()), pads=[1, 1, 1, 1])
        elif isinstance(layer, nn.ReLU):
            graph.add("Relu")
        else:
            passed = graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
            side //= 2
            if name in layers:
                found[name] = _add_pooling(graph, side)
                graph.last = passed
        if len(found) == len(layers):
            break
    graph.combine("Concat", [found[name] for name in layers], axis=1)


def _add_pooling(graph: _Graph, side: int) -> str:
    """Average (N, 512, side, side) to 7×7 as torchvision's VGG19 does, which ONNX has no operator for, and flatten."""
    if side != _POOLED_SIDE:
        averages = _to_array(nn.functional.adaptive_avg_pool1d(torch.eye(side), _POOLED_SIDE))  # (side, 7)
        graph.add("MatMul", averages)  # each row's
        graph.add("MatMul", first=averages.T)  # each column's
    return graph.add("Flatten", axis=1)


def _add_classifier(graph: _Graph, classifier: Classifier) -> None:
    preprocessor = classifier.preprocessor
    if preprocessor.settings.square_root:
        graph.add("Sqrt")
    if preprocessor.settings.l2_normalize:
        features = graph.last
        graph.add("ReduceL2", axes=[1], keepdims=1)
        graph.add("Max", np.array([np.finfo(np.float32).tiny]))
        graph.combine("Div", [features, graph.last])
    if preprocessor.settings.standardize:
        graph.add("Mul", _to_array(preprocessor.scale))
    first, rest = classifier.split_at_first_product()
    graph.add("Gemm", _to_array(first.weight), _to_array(first.bias))
    for layer in rest:
        if isinstance(layer, DenseLinear):
            graph.add("Gemm", _to_array(layer.weight), _to_array(layer.bias), transB=1)
        elif isinstance(layer, nn.ReLU):
            graph.add("Relu")
        elif not isinstance(layer, nn.Dropout):  # Dropout does nothing after training
            raise TypeError(layer)


def _to_array(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().numpy()
    return array


def describe_model(classifier: Classifier) -> dict[str, str]:
    """Return the metadata of the file: facts in JSON, and texts."""
    card = classifier.card
    facts = {
        "class_names": card.class_names,
        "transform": card.transform.to_dict(),
        "threshold": card.calibration.threshold,
        "backbone_fingerprint": card.backbone.fingerprint,
    }
    warning = card.backbone.warning()
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()} | {
        "input": "RGB pixels, 0 to 255: of each photograph the views that the transform names, in their order. The "
        "shorter side of what it cuts out is resized to image_size_px (bilinear, antialiased), the center square kept.",
        "output": "Probabilities in the order of class_names, calibrated. Below the threshold, a face is unknown.",
        **({"warning": warning} if warning else {}),
    }
