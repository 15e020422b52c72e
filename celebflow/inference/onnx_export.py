"""A trained model → one ONNX file, from which any runtime computes the same probabilities."""

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
from celebflow.classifier.gallery import Gallery
from celebflow.classifier.layers import DenseLinear
from celebflow.classifier.model import Classifier, ClassifierCard
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.errors import CelebflowError, raise_shortage
from celebflow.features.transform import Transform
from celebflow.inference.predictor import Predictor

OPSET = 17
MAX_DIFFERENCE = 1e-4  # of probabilities
_MAX_MATCH_DIFFERENCE = 1e-2  # of matches, which are logarithms of ratios
INPUT, OUTPUT, MATCH = "views", "probabilities", "match"
_MAX_WEIGHT_BYTES = 2**31 - 2**20  # leaves room for the graph
_IR_VERSION = 8  # came with opset 17; the library's newest would exclude older runtimes
_POOLED_SIDE = 7  # of the feature maps
_NOISE_SIDES_PX = (4, 16, 64, 200)  # from coarse to fine


def export_model(predictor: Predictor, file: Path) -> float:
    """Write a model to an ONNX file, and check the file's probabilities against the predictor's.

    Its input is the views of N photographs, or of faces in them, cropped and resized: (N, views, size, size, 3) pixels
    of 8 bits. Its outputs are (N, people) calibrated probabilities and, where people may be unknown, their (N,)
    matches. The metadata holds class names, transform, threshold and what else a program needs.

    Returns the largest difference between probabilities on a few photographs of noise.

    Raises CelebflowError, and leaves no file, when it exceeds MAX_DIFFERENCE or when the libraries are missing.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError:
        raise CelebflowError("ONNX is not installed: pip install 'celebflow[onnx]'.") from None
    model = _build(predictor.backbone, predictor.classifier)
    if sum(len(constant.raw_data) for constant in model.graph.initializer) > _MAX_WEIGHT_BYTES:
        raise CelebflowError(
            "The model is too large for one ONNX file, which may have up to 2 GB. Train it with fewer hidden units."
        )
    unchecked = file.with_name(f"{file.name}.unchecked")
    try:
        onnx.save(model, str(unchecked))
        difference = _measure_difference(unchecked, predictor)
        if not difference <= MAX_DIFFERENCE:
            raise CelebflowError(
                f"ONNX Runtime's probabilities differ by {difference:.1e}, more than {MAX_DIFFERENCE:.0e}, so nothing "
                "was exported."
            )
        unchecked.replace(file)
    except OSError as error:
        raise_shortage(error, file)
        raise CelebflowError(f"{file} cannot be written ({error.strerror}).") from None
    finally:
        unchecked.unlink(missing_ok=True)
    return difference


def _measure_difference(file: Path, predictor: Predictor) -> float:
    random = np.random.default_rng(0)
    photographs = []
    for side in _NOISE_SIDES_PX:
        noise = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
        photographs.append(noise.resize((240, 320), Image.Resampling.BICUBIC))
    expected = [faces[0] for faces in predictor.predict_faces(photographs, 1, whole=True)]
    probabilities, matches = run_model(file, predictor.card.transform, photographs)
    if matches is not None:
        difference = float(np.abs(matches - np.array([face.match for face in expected])).max())
        if not difference <= _MAX_MATCH_DIFFERENCE:
            raise CelebflowError(f"ONNX Runtime's matches differ by {difference:.1e}, so nothing was exported.")
    return float(np.abs(probabilities - np.stack([face.probabilities for face in expected])).max())


def run_model(
    file: Path, transform: Transform, photographs: Sequence[Image.Image]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Run ONNX Runtime on the subjects of N RGB photographs, one at a time.

    Returns (N, people) probabilities and the (N,) matches, or None where the model has none.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    results = []
    for photograph in photographs:
        views = transform.make_views(photograph, transform.find_subject(photograph))
        pixels = np.stack([np.asarray(view) for view in views])  # (views, size, size, 3)
        results.append([values[0] for values in session.run(names, {INPUT: pixels[None]})])
    columns = dict(zip(names, map(np.stack, zip(*results, strict=True)), strict=True))
    return columns[OUTPUT], columns.get(MATCH)


class _Graph:
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

    def name_output(self, name: str) -> None:
        """Make the last node's output one of the model's, of this name."""
        self.nodes[-1].output[0] = name

    def add_constant(self, constant: torch.Tensor) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(constant.detach()), name))
        return name


def _build(backbone: Backbone, classifier: Classifier) -> Any:
    from onnx import TensorProto, helper

    card = classifier.card
    transform = card.transform
    size, views = transform.image_size_px, len(transform.views)
    graph = _Graph(INPUT)
    graph.add("Reshape", torch.tensor([-1, size, size, 3]))
    graph.add("Cast", to=TensorProto.FLOAT)
    graph.add("Div", torch.tensor([255.0]))
    graph.add("Sub", torch.tensor(transform.mean))
    graph.add("Div", torch.tensor(transform.standard_deviation))
    graph.add("Transpose", perm=[0, 3, 1, 2])
    features = _add_backbone(graph, backbone, classifier)
    outputs = []
    if classifier.gallery is not None:
        _add_gallery(graph, classifier.gallery, views)
        graph.name_output(MATCH)
        outputs.append(helper.make_tensor_value_info(MATCH, TensorProto.FLOAT, ["photographs"]))
        graph.last = features
    _add_classifier(graph, classifier)
    graph.add("Reshape", torch.tensor([-1, views, len(card.class_names)]))
    graph.add("ReduceMean", axes=[1], keepdims=0)
    graph.add("Div", torch.tensor([card.calibration.temperature]))
    graph.add("Softmax", axis=1)
    _limit_confidence(graph, card)
    graph.name_output(OUTPUT)
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["photographs", views, size, size, 3])]
    outputs.insert(0, helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["photographs", len(card.class_names)]))
    model = helper.make_model(
        helper.make_graph(graph.nodes, "celebflow", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="celebflow",
        producer_version=version("celebflow"),
    )
    helper.set_model_props(model, _describe_model(classifier))
    return model


def _add_backbone(graph: _Graph, backbone: Backbone, classifier: Classifier) -> str:
    """Add VGG19 up to the last layer whose outputs are features, and return the node of the features of all layers."""
    layers = classifier.card.transform.layers
    side = classifier.card.transform.image_size_px
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
    return graph.combine("Concat", [features[name] for name in layers], axis=1)


def _add_pooling(graph: _Graph, side: int) -> str:
    """Average (N, 512, side, side) to 7×7, as torchvision's VGG19 does, and flatten; ONNX has no operator for it."""
    if side != _POOLED_SIDE:
        averages = nn.functional.adaptive_avg_pool1d(torch.eye(side), _POOLED_SIDE)  # (side, 7)
        rows = graph.add("MatMul", averages)  # along each row
        graph.combine("MatMul", [graph.add_constant(averages.T), rows])  # along each column
    return graph.add("Flatten", axis=1)


def _add_gallery(graph: _Graph, gallery: Gallery, views: int) -> None:
    """Add what turns features into matches."""
    between = gallery.model.between
    assert gallery.preprocessor.projection is not None  # noqa: S101 - a gallery projects
    _add_normalization(graph, gallery.preprocessor)
    graph.add("Gemm", gallery.preprocessor.projection.weight, gallery.preprocessor.projection.bias)
    graph.add("Reshape", torch.tensor([-1, views, len(between)]))
    coordinates = graph.add("ReduceMean", axes=[1], keepdims=0)
    graph.combine("Mul", [coordinates, coordinates])
    graph.add("Mul", torch.from_numpy((1 / (1 + between)).astype(np.float32)))
    graph.add("ReduceMean", axes=[1], keepdims=1)
    graph.add("Sqrt")
    graph.add("Max", torch.tensor([torch.finfo(torch.float32).tiny]))
    equalized = graph.combine("Div", [coordinates, graph.last])
    people = gallery.people
    products = graph.add("MatMul", torch.from_numpy(people.factors.astype(np.float32)))
    graph.combine("Mul", [equalized, equalized])
    squares = graph.add("MatMul", torch.from_numpy(people.squares.astype(np.float32)))
    graph.combine("Add", [products, squares])
    graph.add("Add", torch.from_numpy(people.offsets.astype(np.float32)))
    graph.add("ReduceMax", axes=[1], keepdims=0)


def _limit_confidence(graph: _Graph, card: ClassifierCard) -> None:
    """Add what moves probabilities towards equal ones, as Calibration.compute_probabilities does."""
    equal = 1 / len(card.class_names)
    if card.calibration.max_confidence < 1 and equal < 1:
        factor = (card.calibration.max_confidence - equal) / (1 - equal)
        graph.add("Mul", torch.tensor([factor]))
        graph.add("Add", torch.tensor([equal * (1 - factor)]))


def _add_classifier(graph: _Graph, classifier: Classifier) -> None:
    _add_normalization(graph, classifier.preprocessor)
    first, rest = classifier.split_at_first_product()
    graph.add("Gemm", first.weight, first.bias)
    for layer in rest:
        if isinstance(layer, DenseLinear):
            graph.add("Gemm", layer.weight, layer.bias, transB=1)
        elif isinstance(layer, nn.ReLU):
            graph.add("Relu")
        elif not isinstance(layer, nn.Dropout):  # Dropout does nothing after training
            raise TypeError(layer)


def _add_normalization(graph: _Graph, preprocessor: Preprocessor) -> None:
    if preprocessor.settings.square_root:
        graph.add("Sqrt")
    if preprocessor.settings.l2_normalize:
        features = graph.last
        graph.add("ReduceL2", axes=[1], keepdims=1)
        graph.add("Max", torch.tensor([torch.finfo(torch.float32).tiny]))
        graph.combine("Div", [features, graph.last])
    if preprocessor.settings.standardize:
        graph.add("Mul", preprocessor.scale)


def _describe_model(classifier: Classifier) -> dict[str, str]:
    """Return the metadata of the file: facts in JSON, and texts."""
    card = classifier.card
    facts = {
        "class_names": card.class_names,
        "transform": card.transform.to_dict(),
        "threshold": card.calibration.threshold,
        "backbone_fingerprint": card.backbone.fingerprint,
    }
    metadata = {name: json.dumps(value, ensure_ascii=False, allow_nan=False) for name, value in facts.items()}
    metadata["input"] = (
        "RGB pixels, 0 to 255, of each photograph in the views that the transform lists, in their order. The shorter "
        "side of the crop is resized to image_size_px (bilinear, antialiased), and the center square is kept."
    )
    metadata["output"] = (
        "Calibrated probabilities in the order of class_names. A face whose match is below the threshold is unknown."
    )
    if card.backbone.warning():
        metadata["warning"] = card.backbone.warning()
    return metadata
