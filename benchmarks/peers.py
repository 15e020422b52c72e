"""Compare extraction with other ways to run VGG19, and `fast` with scikit-learn; `make bench` writes docs/speed.md.

Needs ONNX Runtime and OpenVINO: pip install --constraint constraints.txt 'celebflow[bench]'. For real faces:
  python -m benchmarks.peers --data faces --weights vgg19.pth
"""

import argparse
import copy
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.compare import (
    REPOSITORY,
    add_arguments,
    alternate,
    describe_machine,
    enter_repository,
    replace_between_marks,
    run,
)
from celebflow import paths
from celebflow.backbone.vgg19 import Backbone
from celebflow.backbone.weights import load_backbone
from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.classifier_training import fit_classifier
from celebflow.data.decoding import load_photograph
from celebflow.data.photos import list_people, load_photos
from celebflow.experiments.recipes import find_changes, list_arguments, load_recipe
from celebflow.features.runtimes import build_runtime
from celebflow.features.store import LabeledFeatures, load_features, select_split
from celebflow.features.transform import Transform
from celebflow.params import load_params

MARKS = "<!-- peers -->", "<!-- end of peers -->"
BATCH_SIZE = 8
ROUNDS = 7
# Multiplications and additions of VGG19's convolutions at 224 × 224, without and with Winograd's F(6×6, 3×3), which
# takes 64 multiplications where 324 are taken directly, in every convolution but the first.
DIRECT_GFLOP, WINOGRAD_GFLOP = 39.05, 7.85
Images = NDArray[np.float32]
Extract = Callable[[Images], NDArray[np.float32]]


@dataclass(frozen=True)
class Peer:
    """One way to compute features, its photographs per second, and how far its features are from the reference's."""

    name: str
    photographs_per_second: float
    relative_error: float


def main() -> None:
    """Measure, print, and write the table in docs/speed.md if it is of real photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    with enter_repository(arguments.data, arguments.weights):
        run("dvc", "repro", "prepare", "backbone")
        peers = compare_extraction(load_backbone(paths.BACKBONE, "cpu"), load_images(BATCH_SIZE))
        multiplication_gflops = measure_multiplication()
        run("dvc", "exp", "run", *list_arguments(find_changes(load_params(paths.PARAMS), load_recipe("fast"))), "train")
        fits = compare_fast()
    table = format_tables(peers, multiplication_gflops, fits)
    print(table)
    if arguments.data and arguments.weights != "untrained":
        replace_between_marks(REPOSITORY / "docs" / "speed.md", MARKS, table)


def load_images(count: int) -> Images:
    """Return (count, 3, 224, 224) photographs as the base recipe gives them to the backbone."""
    photos = load_photos(paths.PHOTOS)
    transform = Transform(load_params(paths.PARAMS).extract.image_size_px)
    chosen = photos[:: max(1, len(photos) // count)][:count]
    return np.stack([transform.make_inputs(load_photograph(paths.DATA / photo.path), None)[0] for photo in chosen])


def compare_extraction(backbone: Backbone, images: Images) -> list[Peer]:
    """Let each way compute the features of the same photographs, in turns; the first is the reference."""
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            "PyTorch": extract_with_torch(backbone, torch.contiguous_format, torch.float32),
            "PyTorch, channels_last": extract_with_torch(backbone, torch.channels_last, torch.float32),
            "PyTorch, channels_last, bfloat16": extract_with_torch(backbone, torch.channels_last, torch.bfloat16),
            "ONNX Runtime": extract_with_onnx_runtime(save_onnx(backbone, Path(folder))),
            "OpenVINO, float32": extract_with_openvino(save_onnx(backbone, Path(folder)), "f32"),
            "OpenVINO, bfloat16": extract_with_openvino(save_onnx(backbone, Path(folder)), "bf16"),
            "celebflow (ncnn)": extract_as_celebflow(backbone),
        }
        reference = ways["PyTorch"](images)
        errors = {name: measure_error(extract(images), reference) for name, extract in ways.items()}
        seconds = alternate(ROUNDS, *(partial(time_call, partial(extract, images)) for extract in ways.values()))
    return [Peer(name, len(images) / each, errors[name]) for name, each in zip(ways, seconds, strict=True)]


def time_call(function: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the norm of the difference, relative to that of the expected features."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def extract_with_torch(backbone: Backbone, layout: torch.memory_format, number_type: torch.dtype) -> Extract:
    """Compute with torchvision's layers as they come, in one layout and one type of numbers."""
    # A copy, whose weights have their layout before anything is timed.
    layers = torch.nn.Sequential(*[layer for layer, _ in backbone.named_layers()], torch.nn.Flatten())
    network = copy.deepcopy(layers).to(memory_format=layout)

    @torch.inference_mode()
    def extract(images: Images) -> NDArray[np.float32]:
        with torch.autocast("cpu", torch.bfloat16, enabled=number_type == torch.bfloat16):
            features: NDArray[np.float32] = network(torch.from_numpy(images).to(memory_format=layout)).float().numpy()
        return features

    return extract


def save_onnx(backbone: Backbone, folder: Path) -> Path:
    """Write the backbone as ONNX, and return the file."""
    import onnx
    from onnx import TensorProto, helper

    from celebflow.inference.onnx_graph import INPUT, OPSET, Graph, add_backbone

    file = folder / "backbone.onnx"
    if not file.exists():
        graph = Graph(INPUT)
        name = add_backbone(graph, backbone, Transform(224))
        inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["photographs", 3, 224, 224])]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["photographs", 25088])]
        body = helper.make_graph(graph.nodes, "vgg19", inputs, outputs, graph.constants)
        onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10), str(file))
    return file


def extract_with_onnx_runtime(file: Path) -> Extract:
    """Compute with ONNX Runtime, whose threads sleep while others compute."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def extract(images: Images) -> NDArray[np.float32]:
        features: NDArray[np.float32] = session.run(None, {name: images})[0]
        return features

    return extract


def extract_with_openvino(file: Path, precision: str) -> Extract:
    """Compute with OpenVINO, set to throughput, in one precision."""
    import openvino

    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    model = openvino.Core().compile_model(str(file), "CPU", settings)
    queue = openvino.AsyncInferQueue(model)

    def extract(images: Images) -> NDArray[np.float32]:
        found: list[Any] = [None] * len(images)
        queue.set_callback(lambda request, row: found.__setitem__(row, request.get_output_tensor().data.copy()))
        for row in range(len(images)):
            queue.start_async({0: images[row : row + 1]}, row)
        queue.wait_all()
        return np.concatenate(found)

    return extract


def extract_as_celebflow(backbone: Backbone) -> Extract:
    """Compute as the stage extract does: each core a photograph of its own."""
    runtime = build_runtime("ncnn", backbone, load_params(paths.PARAMS).extract.layers)
    pool = ThreadPoolExecutor(runtime.workers)
    return lambda images: np.stack(list(pool.map(runtime.extract, images)))


def measure_multiplication(size: int = 4096) -> float:
    """Return the rate of a product of two float32 matrices, in 10^9 operations a second."""
    matrix = torch.rand(size, size)
    (seconds,) = alternate(ROUNDS, partial(time_call, partial(torch.mm, matrix, matrix)))
    return 2 * size**3 / seconds / 1e9


def compare_fast() -> dict[str, tuple[float, float]]:
    """Return the median seconds of fitting the recipe `fast` to train, and the accuracy on val, of each way."""
    params, features = load_params(paths.PARAMS), load_features(paths.FEATURES, paths.PHOTOS)
    names = list_people(features.photos)
    train, val = (select_split(features, names, split) for split in ("train", "val"))
    dense = {"train": Path("train.npy"), "val": Path("val.npy")}
    for file, split in zip(dense.values(), (train, val), strict=True):
        np.save(file, list_dense_views(split))

    def fit_as_celebflow() -> float:
        with redirect_stdout(io.StringIO()):
            fitted = fit_classifier(names, train, val, params.train, params.compute, Checkpoints(), lambda _: None)
        logits, labels = fitted.on_val
        return float((logits.argmax(axis=1) == labels).mean())

    def fit_as_scikit_learn() -> float:
        from sklearn.decomposition import PCA
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, Normalizer

        model = make_pipeline(
            FunctionTransformer(np.sqrt),
            Normalizer(),
            PCA(params.train.preprocessing.pca_components, random_state=0),
            LinearDiscriminantAnalysis(solver="lsqr", shrinkage=params.train.lda_shrinkage),
        )
        model.fit(np.load(dense["train"]), np.tile(train.labels, train.view_count))
        scores = model.decision_function(np.load(dense["val"])).reshape(val.view_count, len(val), -1).mean(axis=0)
        return float((scores.argmax(axis=1) == val.labels).mean())

    ways = {"scikit-learn": fit_as_scikit_learn, "celebflow": fit_as_celebflow}
    accuracies = {}

    def time_fit(name: str) -> float:
        started = time.perf_counter()
        accuracies[name] = ways[name]()
        return time.perf_counter() - started

    seconds = alternate(2, *(partial(time_fit, name) for name in ways))
    return {name: (each, accuracies[name]) for name, each in zip(ways, seconds, strict=True)}


def list_dense_views(split: LabeledFeatures) -> NDArray[np.float32]:
    """Return the (V · N, features) of a split, one view after the other."""
    views = [split.gather(np.arange(len(split)), view)[0].to_dense() for view in range(split.view_count)]
    return np.concatenate(views)


def format_tables(peers: Sequence[Peer], multiplication_gflops: float, fits: dict[str, tuple[float, float]]) -> str:
    """Write both comparisons as Markdown."""
    machine = describe_machine()
    reference = peers[0].photographs_per_second
    lines = [
        f"On {machine['processor']} ({machine['capability']}), torch {machine['torch']}, ncnn {machine['ncnn']}; "
        f"{BATCH_SIZE} photographs from memory, medians of {ROUNDS} rounds in turns. A product of two matrices of "
        f"4096 × 4096 reaches {multiplication_gflops:.0f} GFLOP/s; at that rate, direct convolutions could compute "
        f"{multiplication_gflops / DIRECT_GFLOP:.1f} photographs a second, and Winograd's method "
        f"{multiplication_gflops / WINOGRAD_GFLOP:.0f}.",
        "",
        "| extraction | photographs/s | ratio | relative error |",
        "|---|---|---|---|",
    ]
    for peer in peers:
        rate = peer.photographs_per_second
        lines.append(f"| {peer.name} | {rate:.1f} | {rate / reference:.2f} | {peer.relative_error:.1e} |")
    lines += ["", "| `fast`, fitted to features on disk | seconds | accuracy on val |", "|---|---|---|"]
    for name, (seconds, accuracy) in fits.items():
        lines.append(
            f"| {name}{' on dense features' if name == 'scikit-learn' else ''} | {seconds:.1f} | {accuracy:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
