"""How pages write figures, params and pictures."""

from base64 import b64encode
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from celebflow.data.decoding import encode_jpeg
from celebflow.report.style import spell

_MISSING = "–"
FIGURE_LABELS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_auc": "Macro AUC",
    "top_5_accuracy": "Top-5 accuracy",
    "loss": "Loss (lower is better)",
    "calibration_error": "Calibration error (lower is better)",
    "uncalibrated_loss": "Loss before calibration",
    "uncalibrated_calibration_error": "Calibration error before calibration",
    "coverage": "Coverage (the others are “unknown”)",
}


def format_number(value: float | None) -> str:
    """Write a figure with three decimals."""
    return _MISSING if value is None else f"{value:.3f}"


def format_signed(value: float | None) -> str:
    """Write a difference with its sign and three decimals."""
    return _MISSING if value is None else f"{value:+.3f}".replace("-", "−")


def format_percent(value: float) -> str:
    """Write a fraction in percent."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def format_value(value: object) -> str:
    """Write a param as params.yaml would, a list without its brackets."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(format_value(each) for each in value)
    return str(value)


def to_jpeg_uri(image: NDArray[np.uint8]) -> str:
    """Return an (H, W, 3) picture as the address of a JPEG that stands in the page itself."""
    return _to_uri(encode_jpeg(image), "image/jpeg")


def to_png_uri(content: bytes) -> str:
    """Return a PNG file as an address that stands in the page itself."""
    return _to_uri(content, "image/png")


def _to_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


FILTERS: dict[str, Callable[..., str]] = {
    "spell": spell,
    "number": format_number,
    "signed": format_signed,
    "percent": format_percent,
    "value": format_value,
    "jpeg": to_jpeg_uri,
    "png": to_png_uri,
}
