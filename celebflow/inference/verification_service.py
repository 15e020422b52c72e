"""The server with a verifier: two photographs in a request → whether they show the same person."""

from typing import Annotated

from fastapi import Query, Request, Response
from PIL import Image

from celebflow.errors import CelebflowError
from celebflow.inference.pair_batcher import NAMES, ComparisonResponse, PairBatcher
from celebflow.inference.pair_verifier import PairVerifier
from celebflow.inference.request_metrics import Metrics
from celebflow.inference.request_queue import Limits
from celebflow.inference.service import Gate, make_page


class VerificationService:
    """Tells whether two photographs show the same person. It is a Service."""

    task = PairVerifier.task
    fields = NAMES
    description = "Whether two photographs show the same person, with the probability."
    summary = "Comparing photographs"
    page = make_page("verify")
    image_sources = "blob: data:"  # the first file is shown before there is a response
    response_type = ComparisonResponse

    def __init__(self, verifier: PairVerifier, limits: Limits, show_training: bool, metrics: Metrics) -> None:
        """Take a model; raise CelebflowError when it should show photographs of train, which it cannot."""
        if show_training:
            raise CelebflowError(
                "--show-training needs a model that recognizes people, and this one compares photographs. Leave it out."
            )
        card = verifier.card
        self.people = card.people_count
        self.warning = card.backbone.warning()
        self.page_values: dict[str, object] = {}
        self.queue = PairBatcher(verifier, limits, metrics.batches.observe)
        self.answer = self.verify
        self._metrics = metrics
        self._gate = Gate(self.fields, self.queue, ComparisonResponse)
        # The first photograph takes longer, because it is computed twice.
        verifier.embed(Image.new("RGB", (card.transform.image_size_px,) * 2), whole=True)

    async def verify(
        self,
        request: Request,
        whole: Annotated[bool, Query(description="compare a photograph without a face as a whole")] = False,
        picture: Annotated[bool, Query(description="return the upright photographs as small JPEGs")] = False,
    ) -> Response:
        """Tell whether two photographs show the same person; of several people in one, its subject is compared."""

        async def answer(contents: list[bytes]) -> ComparisonResponse:
            response = await self.queue.compare(contents, whole=whole, picture=picture)
            self._metrics.faces.inc(sum(each.compared != "nothing" for each in (response.first, response.second)))
            return response

        return await self._gate.serve(request, answer)
