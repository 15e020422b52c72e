"""Requests for comparisons that arrive one by one → responses, through passes of the verifier."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from celebflow.classifier.calibration import FloatArray
from celebflow.data.decoding import decode_photograph
from celebflow.data.formats import PhotographError
from celebflow.inference.extractor import NO_FACE, Box, ExtractedFace, make_box
from celebflow.inference.pair_verifier import PairVerifier, Verdict
from celebflow.inference.pictures import Picture, encode_picture
from celebflow.inference.request_queue import Limits, Patience, RequestQueue
from celebflow.inference.service import refuse_file
from celebflow.inference.verifying import describe_crowded

NAMES = ("first", "second")
Compared = Literal["face", "whole photograph", "nothing"]


@dataclass(frozen=True)
class ComparedPhotograph:
    """The upright photograph's size, and what of it was compared: its subject's face, which has a box, or all of it."""

    width_px: int
    height_px: int
    compared: Annotated[Compared, Field(description="nothing where no face was found")]
    box: Box | None
    picture: Picture = None


@dataclass(frozen=True)
class ComparisonResponse(Verdict):
    """Whether two photographs show the same person; without a face in both, probability and log odds are null.

    `false_match_rate` of val's pairs of two people were called same, and `false_non_match_rate` of its pairs of the
    same person different. A note says where no face was found, or else in which photographs one face of several was
    compared, and a warning is about the model.
    """

    false_match_rate: float
    false_non_match_rate: float
    first: ComparedPhotograph
    second: ComparedPhotograph
    note: str | None
    warning: str | None


@dataclass(frozen=True, eq=False)
class _ExtractedPhotograph:
    """A photograph's size, the face that is compared with its features, if any, and on request a picture of it all.

    Its pixels are gone.
    """

    width_px: int
    height_px: int
    face: ExtractedFace | None
    picture: bytes | None

    @property
    def is_crowded(self) -> bool:
        return self.face is not None and self.face.face_count > 1

    def describe(self) -> ComparedPhotograph:
        if self.face is None:
            return ComparedPhotograph(self.width_px, self.height_px, "nothing", None, self.picture)
        box = make_box(self.face.face)
        compared: Compared = "whole photograph" if box is None else "face"
        return ComparedPhotograph(self.width_px, self.height_px, compared, box, self.picture)


class PairBatcher(RequestQueue[_ExtractedPhotograph, FloatArray | None]):
    """A verifier and the requests that wait for it."""

    def __init__(self, verifier: PairVerifier, limits: Limits, observe_batch: Callable[[int], object]) -> None:
        """Take a model and its limits; `observe_batch` gets the number of photographs in each pass of the verifier."""
        super().__init__(limits, verifier.workers, observe_batch)
        self._verifier = verifier

    async def compare(
        self, contents: Sequence[bytes], *, whole: bool = False, picture: bool = False
    ) -> ComparisonResponse:
        """Compare the subjects of two photographs; with `whole`, a photograph without a face is compared as a whole.

        Raises RefusalError when one of them cannot be read or is too large.
        """
        extractions = (self._process(partial(self._extract, content, whole, picture)) for content in contents)
        processed = await asyncio.gather(*extractions, return_exceptions=True)
        photographs: list[_ExtractedPhotograph] = []
        coordinates: list[FloatArray | None] = []
        for name, result in zip(NAMES, processed, strict=True):
            if isinstance(result, PhotographError):
                raise refuse_file(result, name)
            if isinstance(result, BaseException):
                raise result
            photographs.append(result[0])
            coordinates.append(result[1])
        card = self._verifier.card
        return ComparisonResponse(
            **vars(self._verifier.compare(*coordinates)),
            false_match_rate=card.calibration.false_match_rate,
            false_non_match_rate=card.calibration.false_non_match_rate,
            first=photographs[0].describe(),
            second=photographs[1].describe(),
            note=_describe(photographs),
            warning=card.backbone.warning() or None,
        )

    def _extract(self, content: bytes, whole: bool, picture: bool, patience: Patience) -> _ExtractedPhotograph:
        photograph = decode_photograph(content, self.limits.pixels, self.limits.seconds)
        patience.check()
        face = self._verifier.extract(photograph, whole=whole)
        patience.check()
        shown = encode_picture(photograph) if picture else None
        return _ExtractedPhotograph(photograph.width, photograph.height, face, shown)

    def _run_pass(self, photographs: Sequence[_ExtractedPhotograph]) -> list[FloatArray | None]:
        faces = [photograph.face for photograph in photographs if photograph.face is not None]
        coordinates = iter(self._verifier.embed_faces(faces)[:, None] if faces else ())  # (1, D) each
        return [None if photograph.face is None else next(coordinates) for photograph in photographs]


def _describe(photographs: Sequence[_ExtractedPhotograph]) -> str | None:
    """Return the note of a ComparisonResponse."""
    named = list(zip(NAMES, photographs, strict=True))
    if missing := [name for name, photograph in named if photograph.face is None]:
        return f"{NO_FACE} in {' and '.join(missing)}"
    crowded = [name for name, photograph in named if photograph.is_crowded]
    return describe_crowded(crowded) if crowded else None
