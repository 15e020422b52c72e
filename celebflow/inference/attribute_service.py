"""The server with a model of attributes: a photograph in a request → the attributes of the faces in it."""

from typing import Annotated

from fastapi import Query, Request, Response
from PIL import Image

from celebflow.errors import CelebflowError
from celebflow.inference.attribute_batcher import AttributeBatcher, AttributeResponse
from celebflow.inference.attribute_predictor import AttributePredictor
from celebflow.inference.request_metrics import Metrics
from celebflow.inference.request_queue import Limits
from celebflow.inference.service import Gate, make_page

_MAX_ATTRIBUTES = 1000


class AttributeService:
    """Predicts which attributes the faces in a photograph have. It is a Service."""

    task = AttributePredictor.task
    fields = ("photograph",)
    description = "Which attributes a face has: for each, the probability of yes and the answer."
    people = None
    page = make_page("attributes", "faces")
    image_sources = "data:"
    response_type = AttributeResponse

    def __init__(self, predictor: AttributePredictor, limits: Limits, show_training: bool, metrics: Metrics) -> None:
        """Take a model; raise CelebflowError when it should show photographs of train, which it cannot."""
        if show_training:
            raise CelebflowError(
                "--show-training needs a model that recognizes people, and this one predicts attributes. Leave it out."
            )
        card = predictor.card
        self.summary = f"Predicting {len(card.class_names)} attributes"
        self.warning = card.backbone.warning()
        self.page_values: dict[str, object] = {"attribute_count": len(card.class_names)}
        self.queue = AttributeBatcher(predictor, limits, metrics.batches.observe)
        self.answer = self.predict
        self._metrics = metrics
        self._gate = Gate(self.fields, self.queue, AttributeResponse)
        # A predictor's first photograph takes longer, because it is computed twice.
        predictor.predict_faces([Image.new("RGB", (card.transform.image_size_px,) * 2)], whole=True)

    async def predict(
        self,
        request: Request,
        top: Annotated[
            int, Query(ge=1, le=_MAX_ATTRIBUTES, description="how many attributes to return per face")
        ] = _MAX_ATTRIBUTES,
        whole: Annotated[bool, Query(description="predict a photograph without a face as a whole")] = False,
        picture: Annotated[bool, Query(description="return the upright photograph as a small JPEG")] = False,
    ) -> Response:
        """Predict the attributes of the faces in a photograph, the most probable first."""

        async def answer(contents: list[bytes]) -> AttributeResponse:
            (content,) = contents
            response = await self.queue.predict(content, top, whole=whole, picture=picture)
            self._metrics.faces.inc(len(response.faces))
            return response

        return await self._gate.serve(request, answer)
