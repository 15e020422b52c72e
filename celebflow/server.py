"""The HTTP server: a photograph in a request → who is in it. It keeps no photograph, in no file and in no log."""

import asyncio
import ipaddress
import re
import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from PIL import Image
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from celebflow import markup, paths
from celebflow.answering import Answered, Answerer, Limits, Question, QueueFullError
from celebflow.errors import CelebflowError
from celebflow.features import load_features
from celebflow.images import ANY_FORMAT, PhotographError, decode_base64
from celebflow.neighbours import TrainingPhotographs
from celebflow.prediction import Predictor

_FIELD = "photograph"
_FORM, _JSON = "multipart/form-data", "application/json"
_ANSWERED = TypeAdapter(Answered)
_ENVELOPE_BYTES = 16_384  # what a form or JSON may add to its photograph
_MOST_CANDIDATES = 1000
_PATHS = ("/", "/predict", "/healthz", "/metrics", "/openapi.json", "/docs", "/redoc")
_PHOTOGRAPH_TYPES = ("", "application/octet-stream")  # that a part may have beside image/…


class RefusalError(Exception):
    """A request that is not answered; its code is for programs, its message for people."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers

    def to_response(self) -> JSONResponse:
        """Return what the client gets."""
        return JSONResponse({"code": self.code, "message": self.message}, self.status, self.headers)


class RefusalBody(BaseModel):
    """Why a request is not answered."""

    code: str = Field(description="for programs", examples=["not_a_photograph"])
    message: str = Field(description="for people")


class HealthBody(BaseModel):
    """That the server answers."""

    status: Literal["ok"]
    persons: int
    waiting: int = Field(description="requests that wait for their answer")


class _EncodedPhotograph(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    photograph: str


class Metrics:
    """What Prometheus is told; of nobody's name, and nobody's photograph."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "celebflow_requests", "Requests that were answered.", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "celebflow_request_seconds", "From a request's head to its answer's end.", ["path"], registry=self.registry
        )
        self.faces = Counter("celebflow_faces", "Faces that were named, or found unknown.", registry=self.registry)
        self.batches = Histogram(
            "celebflow_batch_photographs",
            "Photographs in one pass of the classifier.",
            buckets=(1, 2, 4, 8, 16),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "celebflow_waiting_requests", "Requests that wait for their answer.", registry=self.registry
        )

    def note(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        known = path if path in _PATHS else "other"
        self._requests.labels(known, str(status)).inc()
        self._seconds.labels(known).observe(seconds)


class _Measured:
    """Counts the requests to an application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 499  # the client left without an answer

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        except Exception:
            status = 500
            raise
        finally:
            self._metrics.note(scope["path"], status, time.perf_counter() - started)


class _FormParser(MultiPartParser):
    """Starlette's, but what is uploaded never goes to a temporary file."""

    spool_max_size = 2**40

    def close(self) -> None:
        """Drop what was uploaded, also of a form that ends early."""
        for file in self._files_to_close_on_error:
            file.close()


@dataclass(frozen=True)
class Access:
    """Who may ask: whoever knows the token, if there is one, and calls the server by one of `hosts`, if there are any.

    The names keep out pages of other sites, when somebody made a name of theirs lead here.
    """

    token: str | None
    hosts: frozenset[str] | None

    def knows(self, host: str) -> bool:
        """Tell whether the server goes by a request's header Host."""
        return self.hosts is None or re.sub(r":\d*$", "", host).lower() in self.hosts

    def check_token(self, request: Request) -> None:
        """Raise RefusalError when the token is missing or another one."""
        if self.token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.encode(), self.token.encode()):
            message = "This needs the server's token, in the header `Authorization: Bearer …`."
            raise RefusalError(401, "unauthorized", message, **{"WWW-Authenticate": "Bearer"})


class _Called:
    """Lets through to an application only who calls the server by a name that it goes by."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._access.knows(Headers(scope=scope).get("host", "")):
            message = "This server does not answer to that name; call it by its address."
            await RefusalError(421, "wrong_host", message).to_response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _read_photograph(request: Request, most_bytes: int) -> bytes:
    """Return the photograph in a request; raise RefusalError when there is none, or it is too large.

    What is left of a body that is refused, uvicorn throws away, so that the client comes to read why.
    """
    headers, too_large = request.headers, f"A photograph may have {most_bytes / 1e6:g} MB at most."
    if headers.get("content-encoding", "identity") != "identity":
        raise RefusalError(415, "encoded", "A request's body must not be compressed.")
    kind = _media_type(headers.get("content-type", ""))
    if kind == _FORM:
        body = await _read_body(request, most_bytes + _ENVELOPE_BYTES, too_large)
        content = await asyncio.to_thread(_parse_form, headers, body)
    elif kind == _JSON:
        body = await _read_body(request, most_bytes * 4 // 3 + _ENVELOPE_BYTES, too_large)
        content = await asyncio.to_thread(_parse_json, body)
    else:
        raise RefusalError(415, "wrong_content_type", f"A photograph comes as {_FORM}, or in base64 as {_JSON}.")
    if len(content) > most_bytes:
        raise RefusalError(413, "too_large", too_large)
    return content


async def _read_body(request: Request, most_bytes: int, too_large: str) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most_bytes:
        raise RefusalError(413, "too_large", too_large)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise RefusalError(413, "too_large", too_large)
    return bytes(body)


def make_access(host: str, token: str | None) -> Access:
    """Return who may ask a server that listens on `host`.

    Raises CelebflowError when that is anybody, or the token is none.
    """
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise CelebflowError("The token must be letters, digits and signs of ASCII, without spaces.")
    if _is_loopback(host):
        return Access(token, frozenset({"localhost", "127.0.0.1", "[::1]", host.lower()}))
    if token is None:
        raise CelebflowError(
            f"Others can reach {host}: give a --token that they need (or set CELEBFLOW_TOKEN), or listen on 127.0.0.1."
        )
    return Access(token, None)


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_app(predictor: Predictor, limits: Limits, access: Access, show_training: bool) -> FastAPI:
    """Make the application that asks a model; where the owner allows it, it also shows the workspace's photographs of
    train.

    Raises CelebflowError when these are not what the model was taught with.
    """
    metrics = Metrics()
    training = _load_training(predictor) if show_training else None
    answerer = Answerer(predictor, limits, training, metrics.batches.observe)
    metrics.waiting.set_function(lambda: answerer.waiting)
    # Its first photograph is computed twice, and takes longer.
    predictor.predict([Image.new("RGB", (predictor.card.transform.image_size_px,) * 2)])
    card = predictor.card
    html, policy = markup.render(
        "ask",
        "img-src blob: data:; connect-src 'self'",
        {},
        persons=len(card.class_names),
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
    app.add_middleware(_Called, access=access)
    app.add_middleware(_Measured, metrics=metrics)  # around the other

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

    @app.get("/healthz", responses=_describe_refusals(421))
    async def tell_health() -> HealthBody:
        """Tell that the server answers."""
        return HealthBody(status="ok", persons=len(card.class_names), waiting=answerer.waiting)

    @app.get(
        "/metrics",
        response_class=Response,  # of no type, else the refusals would be described as of that type, too
        responses={**_describe_refusals(401, 421), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        dependencies=[*guarded, Depends(access.check_token)],
    )
    async def tell_metrics() -> Response:
        """Tell counts and times, for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post(
        "/predict",
        response_model=Answered,
        responses=_describe_refusals(400, 401, 403, 408, 413, 415, 421, 422, 429, 503),
        openapi_extra=_describe_request(),
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
                with answerer.queue():
                    content = await _read_photograph(request, limits.upload_bytes)
                    received = True
                    answered = await answerer.ask(Question(content, top, heat_map, nearest))
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
        return Response(_ANSWERED.dump_json(answered), headers={"Cache-Control": "no-store"}, media_type=_JSON)

    return app


def _describe_refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": RefusalBody} for status in statuses}


def _describe_request() -> dict[str, Any]:
    def describe(**photograph: str) -> dict[str, Any]:
        return {
            "schema": {
                "type": "object",
                "required": [_FIELD],
                "properties": {_FIELD: {"type": "string", **photograph}},
                "additionalProperties": False,
            }
        }

    form = describe(format="binary", description=f"a {ANY_FORMAT} file")
    form["encoding"] = {_FIELD: {"contentType": "image/*, application/octet-stream"}}
    encoded = describe(contentEncoding="base64", format="byte", description=f"a {ANY_FORMAT} file in base64")
    return {"requestBody": {"required": True, "content": {_FORM: form, _JSON: encoded}}}


def _media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()


def _parse_form(headers: Headers, body: bytes) -> bytes:
    # In a loop of its own, for a form of nothing but boundaries takes seconds.
    return asyncio.run(_parse_form_in_memory(headers, body))


async def _parse_form_in_memory(headers: Headers, body: bytes) -> bytes:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _FormParser(headers, stream(), max_files=1, max_fields=0)
    try:
        form = await parser.parse()
        return await _read_file(form.get(_FIELD))
    except (MultiPartException, ValueError, KeyError) as error:
        detail = error.message if isinstance(error, MultiPartException) else "it cannot be read"
        raise RefusalError(400, "malformed", f"That is no form with one file: {detail.rstrip('.')}.") from None
    finally:
        parser.close()


async def _read_file(file: UploadFile | str | None) -> bytes:
    if not isinstance(file, UploadFile):
        raise RefusalError(400, "malformed", f"The form has no file called {_FIELD}.")
    if re.search(r"[/\\\0]", file.filename or ""):
        raise RefusalError(400, "malformed", "The file's name is a path; send it by its own name, or without one.")
    kind = _media_type(file.content_type or "")
    if kind not in _PHOTOGRAPH_TYPES and not kind.startswith("image/"):
        raise RefusalError(415, "wrong_content_type", "The file says of itself that it is no image.")
    return await file.read()


def _parse_json(body: bytes) -> bytes:
    try:
        return decode_base64(_EncodedPhotograph.model_validate_json(body).photograph)
    except ValidationError:
        message = f'That is not {{"{_FIELD}": "…"}} with a file in base64.'
    except PhotographError as error:
        message = f"{_FIELD} {error}."
    raise RefusalError(400, "malformed", message)


def _load_training(predictor: Predictor) -> TrainingPhotographs:
    if not (paths.FEATURES / "offsets.npy").exists():
        raise CelebflowError(f"--show-training needs {paths.FEATURES}, which is missing. Run `dvc repro`.")
    return TrainingPhotographs(predictor.classifier, load_features(paths.FEATURES, paths.PHOTOS), paths.DATA)
