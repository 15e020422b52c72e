"""Get the frozen convolutions of VGG19."""

from celebflow import paths
from celebflow.backbone.weights import make_backbone, save_backbone
from celebflow.params import load_params
from stages import run_stage


def main() -> None:
    """Write models/backbone.safetensors."""
    params = load_params(paths.PARAMS)
    backbone = make_backbone(params.backbone.weights, params.backbone.seed, paths.project())
    save_backbone(backbone, paths.BACKBONE)
    source = backbone.source
    print(f"Backbone {source.weights}, fingerprint {source.fingerprint[:12]}. {source.warning()}")


if __name__ == "__main__":
    run_stage(main, "Only a change of backbone.* runs this again.")
