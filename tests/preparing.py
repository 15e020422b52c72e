"""Prepare photographs as the stage does for recognition."""

from pathlib import Path

from celebflow.data.photos import Photo
from celebflow.data.preparation import LeftOut, prepare_photographs
from celebflow.data.splits import split_each_person
from celebflow.params import PrepareParams


def prepare(folder: Path, params: PrepareParams) -> tuple[list[Photo], list[LeftOut]]:
    """Return the photographs with their splits, and the files that are left out."""
    split, left_out = prepare_photographs(folder, params, split_each_person)
    return split.photos, left_out
