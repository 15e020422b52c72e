"""The pictures on the page of a review: a suspect, what the network saw of it, and what it resembles."""

from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from celebflow import paths
from celebflow.data.decoding import encode_jpeg, load_photograph
from celebflow.errors import CelebflowError
from celebflow.experiments.review import Review
from celebflow.experiments.review_items import Item
from celebflow.features.store import Features, load_features
from celebflow.report.thumbnails import load_crop, load_thumbnail

Kind = Literal["photograph", "small", "seen", "of_person", "of_likelier"]
_MAX_SIDE_PX = 1600


class Pictures:
    """The pictures of a review's items, as JPEG: browsers cannot show all formats that photographs have.

    Where the features are those of the photographs, a picture of a face shows what the network saw.
    """

    def __init__(self, review: Review) -> None:
        self._review = review
        self._features: Features | None = None
        with suppress(CelebflowError, OSError):  # the photographs have changed since, or the features are gone
            self._features = load_features(paths.FEATURES, paths.PHOTOS)

    @property
    def shows_faces(self) -> bool:
        """Tell whether the network saw less of a photograph than there is."""
        return self._features is not None and self._features.origin.transform.shown.face.crop != "none"

    def draw(self, item: Item, kind: Kind) -> bytes:
        """Return a picture; raise CelebflowError when there is none."""
        suspect, place = item.suspect, self._review.locate(item)
        match kind:
            case "photograph":
                photograph = load_photograph(place, suspect.sha256)
                photograph.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX), Image.Resampling.LANCZOS)
                return encode_jpeg(np.asarray(photograph))
            case "small":
                return encode_jpeg(load_thumbnail(place, suspect.sha256))
            case "seen":
                return self._draw_seen(suspect.path, place)
            case "of_person":
                return self._draw_seen(suspect.nearest_of_person)
            case "of_likelier":
                return self._draw_seen(suspect.nearest_of_likelier)

    def _draw_seen(self, path: str, place: Path | None = None) -> bytes:
        """Return what the network saw of a photograph, or its center where that is not known any more."""
        place = place or self._review.locate_other(path)
        if self._features is None or path not in self._features.row_of:
            return encode_jpeg(load_thumbnail(place, None))
        sha256 = self._features.find_sha256(path)
        subject = self._features.subjects.get(path)
        return encode_jpeg(load_crop(place, sha256, self._features.origin.transform, subject))
