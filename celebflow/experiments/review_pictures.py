"""The pictures on the page of a review: a suspect, what the network saw of it, and what it resembles."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from PIL import Image

from celebflow import paths
from celebflow.data.decoding import encode_jpeg, load_photograph
from celebflow.errors import CelebflowError
from celebflow.features.store import Features, load_features
from celebflow.report.thumbnails import load_crop, load_thumbnail

Kind = Literal["photograph", "small", "seen", "of_given", "of_likelier"]
_MAX_SIDE_PX = 1600


class Photographed(Protocol):
    """A photograph, as the suspects of any task have it."""

    @property
    def path(self) -> str:
        """Return its path in the folder of photographs."""

    @property
    def sha256(self) -> str:
        """Return that of its content."""


class Shown(Protocol):
    """An item of a review: a suspect, and the photographs with the given and the likelier label that it resembles."""

    @property
    def suspect(self) -> Photographed:
        """Return the suspect."""

    @property
    def nearest(self) -> tuple[str, str]:
        """Return the paths of both photographs; one is empty where there is none."""


_Item = TypeVar("_Item", bound=Shown, contravariant=True)


class Located(Protocol[_Item]):
    """A review, as far as it knows where photographs are."""

    def locate(self, item: _Item) -> Path:
        """Return where the photograph of an item is."""

    def locate_other(self, path: str) -> Path:
        """Return where a photograph is that the table names; raise CelebflowError when it is not one of the data."""


class Pictures:
    """The pictures of a review's items, as JPEG: browsers cannot show all formats that photographs have.

    Where the features are those of the photographs, a picture of a face shows what the network saw.
    """

    def __init__(self, review: Located[Any]) -> None:
        self._review = review
        self._features: Features | None = None
        with suppress(CelebflowError, OSError):  # the photographs have changed since, or the features are gone
            self._features = load_features(paths.FEATURES, paths.PHOTOS)

    @property
    def shows_faces(self) -> bool:
        """Tell whether the network saw less of a photograph than there is."""
        return self._features is not None and self._features.origin.transform.shown.face.crop != "none"

    def draw(self, item: Shown, kind: Kind) -> bytes:
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
            case "of_given":
                return self._draw_seen(item.nearest[0])
            case "of_likelier":
                return self._draw_seen(item.nearest[1])

    def _draw_seen(self, path: str, place: Path | None = None) -> bytes:
        """Return what the network saw of a photograph, or its center where that is not known any more."""
        place = place or self._review.locate_other(path)
        if self._features is None or path not in self._features.row_of:
            return encode_jpeg(load_thumbnail(place, None))
        sha256 = self._features.find_sha256(path)
        subject = self._features.subjects.get(path)
        return encode_jpeg(load_crop(place, sha256, self._features.origin.transform, subject))
