"""The server with a classifier: a photograph in a request → the people in it."""

from typing import Annotated

from fastapi import Query, Request, Response
from PIL import Image

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.evaluation.neighbors import TrainingPhotographs
from celebflow.features.store import load_features
from celebflow.inference.batcher import Batcher, PredictionRequest, PredictionResponse
from celebflow.inference.predictor import Predictor
from celebflow.inference.refusals import RefusalError
from celebflow.inference.request_metrics import Metrics
from celebflow.inference.request_queue import Limits
from celebflow.inference.service import Gate, make_page
from celebflow.tracking.provenance import advise_to_make

_MAX_CANDIDATES = 1000


class RecognitionService:
    """Predicts who is in a photograph. It is a Service."""

    task = Predictor.task
    fields = ("photograph",)
    description = "Who is in a photograph: names with their probabilities."
    page = make_page("predict", "faces")
    image_sources = "data:"
    response_type = PredictionResponse

    def __init__(self, predictor: Predictor, limits: Limits, show_training: bool, metrics: Metrics) -> None:
        """Take a model; `show_training` lets the service show the workspace's photographs of train.

        Raises CelebflowError when the model was not trained on these, or its enrolled people cannot be read.
        """
        training = _load_training(predictor) if show_training else None
        predictor = predictor.with_enrolled()
        card = predictor.card
        self.people = len(card.class_names)
        enrolled = len(predictor.enrolled_names)
        self.summary = f"Recognizing {self.people} people" + (f" and {enrolled} enrolled" if enrolled else "")
        self.warning = card.backbone.warning()
        self.page_values: dict[str, object] = {"shows_training": show_training, "enrolled": enrolled}
        self.queue = Batcher(predictor, limits, training, metrics.batches.observe)
        self.answer = self.predict
        self._show_training = show_training
        self._metrics = metrics
        self._gate = Gate(self.fields, self.queue, PredictionResponse)
        # A predictor's first photograph takes longer, because it is computed twice.
        predictor.predict([Image.new("RGB", (card.transform.image_size_px,) * 2)])

    async def predict(
        self,
        request: Request,
        top: Annotated[int, Query(ge=1, le=_MAX_CANDIDATES, description="how many candidates to return per face")] = 3,
        heat_map: Annotated[bool, Query(description="return what the network saw, and where it looked")] = False,
        nearest: Annotated[bool, Query(description="return similar photographs of train, if the owner allows")] = False,
        whole: Annotated[bool, Query(description="predict a photograph without a face as a whole")] = False,
        picture: Annotated[bool, Query(description="return the upright photograph as a small JPEG")] = False,
    ) -> Response:
        """Predict who is in a photograph; its content decides its format, not its name."""
        if nearest and not self._show_training:
            raise RefusalError(403, "not_shown", "This server does not show the photographs of train.")

        async def answer(contents: list[bytes]) -> PredictionResponse:
            (content,) = contents
            response = await self.queue.predict(PredictionRequest(content, top, heat_map, nearest, whole, picture))
            self._metrics.faces.inc(len(response.faces))
            return response

        return await self._gate.serve(request, answer)


def _load_training(predictor: Predictor) -> TrainingPhotographs:
    if not (paths.FEATURES / "offsets.npy").exists():
        raise CelebflowError(
            f"--show-training needs {paths.FEATURES}, which is missing. {advise_to_make(paths.FEATURES)}."
        )
    return TrainingPhotographs(predictor.classifier, load_features(paths.FEATURES, paths.PHOTOS), paths.DATA)
