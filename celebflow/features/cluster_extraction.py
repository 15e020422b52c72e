"""Compute features on the nodes of a Ray cluster."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from celebflow import cluster
from celebflow.backbone.devices import select_device
from celebflow.backbone.source import BackboneSource
from celebflow.backbone.vgg19 import Backbone
from celebflow.data.cluster_files import FileItem, FileItems
from celebflow.data.decoding import decode_checked
from celebflow.data.photos import Photo
from celebflow.features.extracted import Extracted, Missing, extract_photograph
from celebflow.features.origin import FeatureOrigin, RuntimeName
from celebflow.features.runtimes import MAX_RELATIVE_ERRORS, build_runtime, compute_relative_error
from celebflow.features.transform import Transform
from celebflow.params import ComputeParams


class ExtractionWorker:
    """What computes features on a node. It gets the backbone's values from the driver, not from a file."""

    def __init__(
        self,
        state: Mapping[str, NDArray[np.float32]],
        source: BackboneSource,
        runtime: RuntimeName,
        transform: Transform,
        device: str,
    ) -> None:
        # Ray's arrays are views of shared memory that cannot be written, which PyTorch warns of.
        tensors = {name: torch.from_numpy(values.copy()) for name, values in state.items()}
        backbone = Backbone(tensors, source).to(select_device(device))
        self._transform = transform
        self._runtime = build_runtime(runtime, backbone, transform.layers)
        self.threads = self._runtime.workers

    def __call__(self, item: FileItem[Missing]) -> Extracted:
        """Compute what is missing of a photograph; raise CelebflowError when it cannot be read."""
        photograph = decode_checked(item.path, item.read())
        return extract_photograph(photograph, item.more, self._transform, self._runtime)

    def probe(self) -> NDArray[np.float32]:
        """Return the features of an image of noise, the same on each node."""
        size = self._transform.image_size_px
        noise = np.random.default_rng(0).normal(size=(3, size, size)).astype(np.float32)
        return self._runtime.extract(noise)


def extract_on_cluster(
    address: str,
    missing: Sequence[Missing],
    folder: Path,
    backbone: Backbone,
    origin: FeatureOrigin,
    compute: ComputeParams,
) -> Iterator[tuple[Photo, Extracted]]:
    """Yield each photograph with what was computed of it, in the order in which the nodes are done.

    A node is refused when its code or libraries are not those here, or when it computes other features than this
    machine: more than the runtimes may differ from PyTorch. Prints how many photographs each node computed.

    Raises CelebflowError when there is no cluster or no node that can be used, or a photograph cannot be read.
    """
    state = {name: values.cpu().numpy() for name, values in backbone.features.state_dict().items()}
    arguments = state, backbone.source, origin.runtime, origin.transform, compute.device
    expected = ExtractionWorker(*arguments).probe()
    errors = {}

    def explain_difference(node: str, found: NDArray[np.float32]) -> str:
        errors[node] = compute_relative_error(found, expected)
        if errors[node] <= MAX_RELATIVE_ERRORS[origin.runtime]:
            return ""
        return f"its features differ by {errors[node]:.1e} from those of this machine"

    def explain_processor(node: str) -> str:
        if not errors[node]:
            return ""
        return f"; its features differ by {errors[node]:.1e}, as those of another kind of processor"

    task = cluster.Task(ExtractionWorker, arguments, explain_difference)
    files = [(each.photo.path, each.photo.sha256, each) for each in missing]
    items = FileItems(files, folder, shared_disk=compute.shared_disk)
    with cluster.connect(address, task) as nodes:
        for place, extracted in nodes.map(items):
            yield missing[place].photo, extracted
        for line in nodes.describe("photographs", explain_processor):
            print(line)
