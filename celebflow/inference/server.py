"""The HTTP server: photographs in a request → what its model says. It keeps no photograph, in no file and in no log."""

from importlib.metadata import version
from typing import Literal

from fastapi import Depends, FastAPI, Response
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from celebflow.data.formats import list_formats
from celebflow.inference.access import Access, HostCheck, make_page_response
from celebflow.inference.loading import Model
from celebflow.inference.refusals import RefusalError, add_refusals, describe_refusals
from celebflow.inference.request_metrics import Metrics, RequestCounter
from celebflow.inference.request_queue import Limits
from celebflow.inference.rewriting import RequestRewriter
from celebflow.inference.service import Service
from celebflow.inference.uploads import describe_request
from celebflow.params import TaskName
from celebflow.report import markup
from celebflow.tasks import TASKS, load_step


class HealthBody(BaseModel):
    """The server is up."""

    status: Literal["ok"]
    task: TaskName = Field(description="what the model was trained for")
    people: int | None = Field(description="people that the model was trained on; null for attributes")
    waiting: int = Field(description="requests that wait for their responses")


def make_app(model: Model, limits: Limits, access: Access, show_training: bool, root_path: str = "") -> FastAPI:
    """Make the application that serves a model; `show_training` lets it show the workspace's photographs of train.

    A reverse proxy may serve it below `root_path`. Raises CelebflowError when the model was not trained on these.
    """
    metrics = Metrics()
    service: Service = load_step(model.task, "service")(model, limits, show_training, metrics)
    metrics.waiting.set_function(lambda: service.queue.waiting)
    html, policy = markup.render(
        service.page,
        f"img-src {service.image_sources}; connect-src 'self'",
        {},
        base=f"{root_path}/" if root_path else "",  # or relative to the page's own address
        people=service.people,
        warning=service.warning,
        needs_token=access.token is not None,
        upload_bytes=limits.upload_bytes,
        formats=list_formats(),
        **service.page_values,
    )
    app = FastAPIOffline(
        title="celebflow",
        version=version("celebflow"),
        summary=service.summary,
        description=service.description,
        redirect_slashes=False,
    )
    add_refusals(app)
    app.add_middleware(HostCheck, access=access)
    app.add_middleware(RequestCounter, metrics=metrics)  # outside of that: it counts refused hosts, too
    app.add_middleware(RequestRewriter, root_path=root_path)
    token = [Depends(HTTPBearer(auto_error=False))] if access.token is not None else []  # for the OpenAPI description

    @app.get("/", include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return make_page_response(html, policy)

    @app.get("/healthz", responses=describe_refusals(421))
    async def report_health() -> HealthBody:
        """Report that the server is up."""
        return HealthBody(status="ok", task=service.task, people=service.people, waiting=service.queue.waiting)

    @app.get(
        "/metrics",
        response_class=Response,  # without a media type: refusals would be described with it, too
        responses={**describe_refusals(401, 421), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        dependencies=[*token, Depends(access.check_token)],
    )
    async def report_metrics() -> Response:
        """Report counts and times for Prometheus."""
        return Response(metrics.format(), media_type=CONTENT_TYPE_LATEST)

    app.post(
        TASKS[service.task].path,
        response_model=service.response_type,
        responses=describe_refusals(400, 401, 403, 408, 413, 415, 421, 422, 429, 503),
        openapi_extra=describe_request(service.fields),
        dependencies=[*token, Depends(access.check_token)],
    )(service.answer)
    for name, task in TASKS.items():
        if name != service.task:
            _refuse_task(app, task.path, service)
    return app


def _refuse_task(app: FastAPI, path: str, service: Service) -> None:
    """Say at the path of another task what this server does instead."""
    message = (
        f"This server's model was trained for {service.task}, so it does not serve {path}. Send "
        f"{' and '.join(service.fields)} to {TASKS[service.task].path}."
    )

    @app.api_route(path, methods=["GET", "POST"], include_in_schema=False)
    async def refuse() -> None:
        raise RefusalError(404, "other_task", message)
