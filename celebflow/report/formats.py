"""How pages write metrics, params, names and pictures."""

from base64 import b64encode
from collections.abc import Callable, Mapping

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from celebflow.classifier.calibration import format_confidence
from celebflow.data.decoding import encode_jpeg
from celebflow.report.style import spell

_MISSING = "–"
# In the order of the page.
METRIC_LABELS = {
    "accuracy": "Accuracy",
    "trivial_accuracy": "Accuracy of the trivial answer",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "macro_auc": "Macro AUC",
    "auc": "AUC",
    "average_precision": "Average precision",
    "accuracy_at_its_thresholds": "Accuracy at the thresholds for accuracy",
    "balanced_accuracy_at_its_thresholds": "Balanced accuracy at the thresholds for balanced accuracy",
    "certain_fraction": "Fraction of answers that are not uncertain",
    "certain_accuracy": "Accuracy of the answers that are not uncertain",
    "equal_error_rate": "Equal error rate (lower is better)",
    "tmr_at_fmr_1_percent": "True match rate at a false match rate (FMR) of 1%",
    "tmr_at_fmr_0_1_percent": "True match rate at a false match rate (FMR) of 0.1%",
    "false_match_rate": "False match rate (FMR, lower is better)",
    "false_non_match_rate": "False non-match rate (FNMR, lower is better)",
    "standard_error": "Standard error of the accuracy over folds",
    "top_5_accuracy": "Top-5 accuracy",
    "loss": "Loss (lower is better)",
    "calibration_error": "Calibration error (lower is better)",
    "uncalibrated_loss": "Loss before calibration",
    "uncalibrated_calibration_error": "Calibration error before calibration",
    "coverage": "Coverage (the others are “unknown”)",
    "false_acceptance_rate": "False acceptance rate (FAR) of unknown people, cross-validated (lower is better)",
    "unknown_folder_far": "FAR of the photographs in prepare.unknown_folder (lower is better)",
    "unknown_folder_auc": "AUC of known against the people in prepare.unknown_folder",
    "open_set_auc": "AUC of known against unknown people",
    "coverage_at_far_5_percent": "Coverage at a FAR of 5%",
    "coverage_at_far_1_percent": "Coverage at a FAR of 1%",
    "dir_at_far_5_percent": "Detection and identification rate at a FAR of 5%",
    "dir_at_far_1_percent": "Detection and identification rate at a FAR of 1%",
    "measured_far_at_5_percent": "Cross-validated FAR where 5% is expected",
    "measured_far_at_1_percent": "Cross-validated FAR where 1% is expected",
}
# The beginnings of the names of metrics that stand in a page's table, though they have an interval.
_DETAILS = ("coverage_at", "dir_at", "measured_far_at")


def is_headline(name: str) -> bool:
    """Return whether pages show a metric with an interval as a tile."""
    return not name.startswith(_DETAILS)


def order_metrics(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the names of the metrics that any split has, in the order in which pages show them."""
    names = {name for values in metrics.values() for name in values}
    return [*(name for name in METRIC_LABELS if name in names), *sorted(names - set(METRIC_LABELS))]


def label_metric(name: str) -> str:
    """Return what pages call a metric."""
    return METRIC_LABELS.get(name, spell(name).capitalize())


def isolate_name(name: str) -> Markup:
    """Return a person's name as HTML, escaped, and kept apart from text that runs in the other direction."""
    return Markup("<bdi>{}</bdi>").format(spell(name))


def format_number(value: float | None) -> str:
    """Write a number with three decimals."""
    return _MISSING if value is None else f"{value:.3f}"


def format_signed(value: float | None) -> str:
    """Write a difference with its sign and three decimals."""
    return _MISSING if value is None else f"{value:+.3f}".replace("-", "−")


def format_percent(value: float) -> str:
    """Write a fraction in percent."""
    return f"{value:.1%}"


def format_value(value: object) -> str:
    """Write a param as in params.yaml, but a list without its brackets."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(format_value(each) for each in value)
    return str(value)


def mark_commands(text: str) -> Markup:
    """Return a text as HTML, escaped, with what is in backticks as code."""
    plain, code = Markup("{}"), Markup("<code>{}</code>")
    parts = [(code if number % 2 else plain).format(part) for number, part in enumerate(text.split("`"))]
    return Markup("").join(parts)


def to_jpeg_uri(image: NDArray[np.uint8]) -> str:
    """Return an (H, W, 3) image as a data URI of a JPEG."""
    return _to_uri(encode_jpeg(image), "image/jpeg")


def to_png_uri(content: bytes) -> str:
    """Return a PNG file as a data URI."""
    return _to_uri(content, "image/png")


def _to_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


FILTERS: dict[str, Callable[..., str]] = {
    "spell": spell,
    "name": isolate_name,
    "metric": label_metric,
    "number": format_number,
    "signed": format_signed,
    "percent": format_percent,
    "confidence": format_confidence,
    "value": format_value,
    "commands": mark_commands,
    "jpeg": to_jpeg_uri,
    "png": to_png_uri,
}
