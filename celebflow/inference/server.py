"""The HTTP server: a photograph in a request → the people in it. It keeps no photograph, in no file and in no log."""

import asyncio
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field, TypeAdapter
from starlette.requests import ClientDisconnect

from celebflow import paths
from celebflow.data.formats import PhotographError, list_formats
from celebflow.errors import CelebflowError
from celebflow.evaluation.neighbors import TrainingPhotographs
from celebflow.features.store import load_features
from celebflow.inference.access import Access, HostCheck
from celebflow.inference.batcher import Batcher, Limits, PredictionRequest, PredictionResponse
from celebflow.inference.predictor import Predictor
from celebflow.inference.refusals import RefusalError, add_refusals, describe_refusals
from celebflow.inference.request_metrics import Metrics, RequestCounter
from celebflow.inference.rewriting import RequestRewriter
from celebflow.inference.uploads import JSON_TYPE, describe_request, read_photograph
from celebflow.report import markup

_PAGE = markup.Page(
    "predict.html.jinja", ("base.css", "predict.css"), ("predict.js",), Path(__file__).parent / "templates"
)
_RESPONSE = TypeAdapter(PredictionResponse)
_MAX_CANDIDATES = 1000


class HealthBody(BaseModel):
    """The server is up."""

    status: Literal["ok"]
    people: int
    waiting: int = Field(description="requests that wait for their responses")


def make_app(predictor: Predictor, limits: Limits, access: Access, show_training: bool, root_path: str = "") -> FastAPI:
    """Make the application that serves a model; `show_training` lets it show the workspace's photographs of train.

    A reverse proxy may serve it below `root_path`. Raises CelebflowError when the model was not trained on these.
    """
    metrics = Metrics()
    training = _load_training(predictor) if show_training else None
    batcher = Batcher(predictor, limits, training, metrics.batches.observe)
    metrics.waiting.set_function(lambda: batcher.waiting)
    # A predictor's first photograph takes longer, because it is computed twice.
    predictor.predict([Image.new("RGB", (predictor.card.transform.image_size_px,) * 2)])
    card = predictor.card
    html, policy = markup.render(
        _PAGE,
        "img-src blob: data:; connect-src 'self'",
        {},
        base=f"{root_path}/" if root_path else "",  # or relative to the page's own address
        people=len(card.class_names),
        warning=card.backbone.warning(),
        needs_token=access.token is not None,
        shows_training=show_training,
        upload_bytes=limits.upload_bytes,
        formats=list_formats(),
    )
    app = FastAPIOffline(
        title="celebflow",
        version=version("celebflow"),
        description="Who is in a photograph: names with their probabilities.",
        redirect_slashes=False,
    )
    add_refusals(app)
    app.add_middleware(HostCheck, access=access)
    app.add_middleware(RequestCounter, metrics=metrics)  # outside of that: it counts refused hosts, too
    app.add_middleware(RequestRewriter, root_path=root_path)
    token = [Depends(HTTPBearer(auto_error=False))] if access.token is not None else []  # for the OpenAPI description

    @app.get("/", include_in_schema=False)
    async def show_page() -> HTMLResponse:
        headers = {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'", "Referrer-Policy": "no-referrer"}
        return HTMLResponse(html, headers=headers)

    @app.get("/healthz", responses=describe_refusals(421))
    async def report_health() -> HealthBody:
        """Report that the server is up."""
        return HealthBody(status="ok", people=len(card.class_names), waiting=batcher.waiting)

    @app.get(
        "/metrics",
        response_class=Response,  # without a media type: refusals would be described with it, too
        responses={**describe_refusals(401, 421), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        dependencies=[*token, Depends(access.check_token)],
    )
    async def report_metrics() -> Response:
        """Report counts and times for Prometheus."""
        return Response(metrics.format(), media_type=CONTENT_TYPE_LATEST)

    @app.post(
        "/predict",
        response_model=PredictionResponse,
        responses=describe_refusals(400, 401, 403, 408, 413, 415, 421, 422, 429, 503),
        openapi_extra=describe_request(),
        dependencies=token,
    )
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, le=_MAX_CANDIDATES, description="how many candidates to return per face")] = 3,
        heat_map: Annotated[bool, Query(description="return what the network saw, and where it looked")] = False,
        nearest: Annotated[bool, Query(description="return similar photographs of train, if the owner allows")] = False,
        whole: Annotated[bool, Query(description="predict a photograph without a face as a whole")] = False,
    ) -> Response:
        """Predict who is in a photograph; its content decides its format, not its name."""
        message = f"The request took longer than {limits.seconds:g} seconds to arrive."
        late = RefusalError(408, "too_slow", message, Connection="close")
        try:
            async with asyncio.timeout(limits.seconds):
                access.check_token(request)
                if nearest and not show_training:
                    raise RefusalError(403, "not_shown", "This server does not show the photographs of train.")
                with batcher.enter_queue():
                    content = await read_photograph(request, limits.upload_bytes)
                    message = f"The prediction took longer than {limits.seconds:g} seconds."
                    late = RefusalError(503, "timed_out", message, **{"Retry-After": "5"})
                    response = await batcher.predict(PredictionRequest(content, top, heat_map, nearest, whole))
        except TimeoutError:
            raise late from None
        except PhotographError as error:
            raise RefusalError(422, "not_a_photograph", f"The file {error}.") from None
        except ClientDisconnect:
            return Response(status_code=400)  # nobody receives it
        metrics.faces.inc(len(response.faces))
        return Response(_RESPONSE.dump_json(response), headers={"Cache-Control": "no-store"}, media_type=JSON_TYPE)

    return app


def _load_training(predictor: Predictor) -> TrainingPhotographs:
    if not (paths.FEATURES / "offsets.npy").exists():
        raise CelebflowError(f"--show-training needs {paths.FEATURES}, which is missing. Run `dvc repro`.")
    return TrainingPhotographs(predictor.classifier, load_features(paths.FEATURES, paths.PHOTOS), paths.DATA)
