"""Why the predictions that are worth a look came out so: evaluate writes it, and plot shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from celebflow.data.tables import load_rows, save_rows
from celebflow.errors import CelebflowError
from celebflow.evaluation.results import AnyPrediction

HEAT_MAP_SIDE = 7
_FILE = "explanations.csv"


@dataclass(frozen=True, eq=False)
class Explanation(Generic[AnyPrediction]):
    """How much each part of a photograph supports its prediction, (7, 7) from 0 to 1, and who in train resembles it.

    `nearest_of_actual` and `nearest_of_predicted` are paths of the photographs of both people that resemble it most;
    they are empty where nothing was compared.
    """

    prediction: AnyPrediction
    heat_map: NDArray[np.float32]
    nearest_of_actual: str = ""
    nearest_of_predicted: str = ""


@dataclass(frozen=True)
class _Row:
    """A row of explanations.csv: `heat_map` holds 49 numbers from 0 to 255, row by row, in hexadecimal."""

    path: str
    heat_map: str
    nearest_of_actual: str
    nearest_of_predicted: str


def save_explanations(explanations: Sequence[Explanation[AnyPrediction]], folder: Path) -> None:
    """Write the explanations of a split to its folder of reports; heat maps in steps of 1/255."""
    rows = []
    for each in explanations:
        heat = (each.heat_map * 255).round().astype(np.uint8).tobytes().hex()
        rows.append(_Row(each.prediction.path, heat, each.nearest_of_actual, each.nearest_of_predicted))
    save_rows(_Row, rows, folder / _FILE)


def load_explanations(predictions: Sequence[AnyPrediction], folder: Path) -> list[Explanation[AnyPrediction]]:
    """Read what save_explanations wrote about some of the `predictions`, in its order.

    Raises CelebflowError when the file is missing or damaged, or is about other predictions.
    """
    file = folder / _FILE
    prediction_of = {each.path: each for each in predictions}
    explanations = []
    try:
        for row in load_rows(_Row, file):
            heat = (
                np.frombuffer(bytes.fromhex(row.heat_map), np.uint8)
                .reshape(HEAT_MAP_SIDE, HEAT_MAP_SIDE)
                .astype(np.float32)
            )
            nearest = row.nearest_of_actual, row.nearest_of_predicted
            explanations.append(Explanation(prediction_of[row.path], heat / np.float32(255), *nearest))
    except FileNotFoundError:
        raise CelebflowError(
            f"{file} is missing: an earlier version of celebflow evaluated. Run `dvc repro`."
        ) from None
    except (KeyError, ValueError) as error:
        raise CelebflowError(f"{file} is damaged ({error}). Run `dvc repro` to make it again.") from None
    return explanations
