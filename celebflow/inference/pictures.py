"""Photographs → the pictures that responses hold: JPEG files, which every browser shows as they are."""

from base64 import b64encode
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field, PlainSerializer

from celebflow.data.decoding import encode_jpeg

PICTURE_SIDE_PX = 1024  # the longer side at most

# In JSON, a JPEG file is a string.
Jpeg = Annotated[
    bytes, PlainSerializer(lambda content: b64encode(content).decode(), str), Field(description="JPEG in base64")
]

# A response has it on request only.
Picture = Annotated[
    Jpeg | None,
    Field(
        description=f"the upright photograph, its longer side {PICTURE_SIDE_PX} px at most; absent unless requested",
        exclude_if=lambda picture: picture is None,
    ),
]


def encode_picture(photograph: Image.Image) -> bytes:
    """Return an RGB photograph, made smaller if it is large, as the bytes of a JPEG file without any metadata."""
    scale = min(1.0, PICTURE_SIDE_PX / max(photograph.size))
    width, height = (max(1, round(scale * side)) for side in photograph.size)
    # The gap makes a large photograph cost little more than reading its pixels once.
    small = photograph.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return encode_jpeg(np.asarray(small))
