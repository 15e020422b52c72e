"""The HTTP server: a photograph in a request → who is in it. It keeps no photograph, in no file and in no log."""

import asyncio
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from PIL import Image
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    generate_latest,
)
from pydantic import BaseModel, Field, TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from celebflow import paths
from celebflow.data.decoding import PhotographError
from celebflow.errors import CelebflowError
from celebflow.features.store import load_features
from celebflow.inference.access import Access, HostCheck
from celebflow.inference.batcher import Batcher, Limits, PredictionRequest, PredictionResponse, QueueFullError
from celebflow.inference.neighbors import TrainingPhotographs
from celebflow.inference.predictor import Predictor
from celebflow.inference.refusals import RefusalError, describe_refusals
from celebflow.inference.request_metrics import MeasuredApp, Metrics
from celebflow.inference.uploads import JSON_TYPE, describe_request, read_photograph
from celebflow.report import markup

_PAGE = markup.Page(
    "predict.html.jinja", ("base.css", "predict.css"), ("predict.js",), Path(__file__).parent / "templates"
)
_ANSWERED = TypeAdapter(PredictionResponse)
_MOST_CANDIDATES = 1000


class HealthBody(BaseModel):
    """That the server answers."""

    status: Literal["ok"]
    people: int
    waiting: int = Field(description="requests that wait for their answer")


def make_app(predictor: Predictor, limits: Limits, access: Access, show_training: bool) -> FastAPI:
    """Make the application that asks a model; where the owner allows it, it also shows the workspace's photographs of
    train.

    Raises CelebflowError when these are not what the model was taught with.
    """
    metrics = Metrics()
    training = _load_training(predictor) if show_training else None
    batcher = Batcher(predictor, limits, training, metrics.batches.observe)
    metrics.waiting.set_function(lambda: batcher.waiting)
    # Its first photograph is computed twice, and takes longer.
    predictor.predict([Image.new("RGB", (predictor.card.transform.image_size_px,) * 2)])
    card = predictor.card
    html, policy = markup.render(
        _PAGE,
        "img-src blob: data:; connect-src 'self'",
        {},
        people=len(card.class_names),
        warning=card.backbone.warning(),
        wants_token=access.token is not None,
        shows_training=show_training,
        upload_bytes=limits.upload_bytes,
    )
    app = FastAPIOffline(
        title="celebflow",
        version=version("celebflow"),
        description="Who is in a photograph: names with their probabilities.",
        redirect_slashes=False,
    )
    guarded = [Depends(HTTPBearer(auto_error=False))] if access.token is not None else []  # for the documentation
    app.add_middleware(HostCheck, access=access)
    app.add_middleware(MeasuredApp, metrics=metrics)  # around the other

    @app.exception_handler(RefusalError)
    async def refuse(request: Request, refusal: RefusalError) -> JSONResponse:
        return refusal.to_response()

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        return RefusalError(error.status_code, code, f"{error.detail}.", **(error.headers or {})).to_response()

    @app.exception_handler(RequestValidationError)
    async def refuse_parameter(request: Request, invalid: RequestValidationError) -> JSONResponse:
        first = invalid.errors()[0]
        return RefusalError(422, "invalid_parameter", f"{first['loc'][-1]}: {first['msg']}.").to_response()

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> JSONResponse:
        return RefusalError(500, "failed", "The server failed; its log says why.").to_response()

    @app.get("/", include_in_schema=False)
    async def show_page() -> HTMLResponse:
        headers = {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'", "Referrer-Policy": "no-referrer"}
        return HTMLResponse(html, headers=headers)

    @app.get("/healthz", responses=describe_refusals(421))
    async def tell_health() -> HealthBody:
        """Tell that the server answers."""
        return HealthBody(status="ok", people=len(card.class_names), waiting=batcher.waiting)

    @app.get(
        "/metrics",
        response_class=Response,  # of no type, else the refusals would be described as of that type, too
        responses={**describe_refusals(401, 421), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        dependencies=[*guarded, Depends(access.check_token)],
    )
    async def tell_metrics() -> Response:
        """Tell counts and times, for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post(
        "/predict",
        response_model=PredictionResponse,
        responses=describe_refusals(400, 401, 403, 408, 413, 415, 421, 422, 429, 503),
        openapi_extra=describe_request(),
        dependencies=guarded,
    )
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, le=_MOST_CANDIDATES, description="how many names to give a face")] = 3,
        heat_map: Annotated[bool, Query(description="show what the network saw, and where it looked")] = False,
        nearest: Annotated[bool, Query(description="show photographs of train; only if the owner allows it")] = False,
    ) -> Response:
        """Name everybody in a photograph; judged by its content, whatever it is called."""
        received = False
        try:
            async with asyncio.timeout(limits.seconds):
                access.check_token(request)
                if nearest and not show_training:
                    raise RefusalError(403, "not_shown", "The photographs of train are not shown here.")
                with batcher.queue():
                    content = await read_photograph(request, limits.upload_bytes)
                    received = True
                    answered = await batcher.ask(PredictionRequest(content, top, heat_map, nearest))
        except TimeoutError:
            if received:
                message = f"There was no answer within {limits.seconds:g} seconds."
                raise RefusalError(503, "timed_out", message, **{"Retry-After": "5"}) from None
            message = f"The request took longer than {limits.seconds:g} seconds to arrive."
            raise RefusalError(408, "too_slow", message, Connection="close") from None
        except QueueFullError:
            raise RefusalError(429, "busy", "Too many are waiting; ask again later.", **{"Retry-After": "1"}) from None
        except PhotographError as error:
            raise RefusalError(422, "not_a_photograph", f"The file {error}.") from None
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody gets
        metrics.faces.inc(len(answered.faces))
        return Response(_ANSWERED.dump_json(answered), headers={"Cache-Control": "no-store"}, media_type=JSON_TYPE)

    return app


def _load_training(predictor: Predictor) -> TrainingPhotographs:
    if not (paths.FEATURES / "offsets.npy").exists():
        raise CelebflowError(f"--show-training needs {paths.FEATURES}, which is missing. Run `dvc repro`.")
    return TrainingPhotographs(predictor.classifier, load_features(paths.FEATURES, paths.PHOTOS), paths.DATA)
