"""What the server does with its model: an endpoint and a page, and what every request with photographs goes through."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from fastapi import Request, Response
from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect

from celebflow.data.formats import PhotographError
from celebflow.inference.refusals import RefusalError
from celebflow.inference.request_queue import RequestQueue
from celebflow.inference.uploads import JSON_TYPE, read_photographs
from celebflow.params import TaskName
from celebflow.report.markup import Page

Body = TypeVar("Body")


class Service(Protocol):
    """A model at work in the server.

    `summary` is a headline such as "Recognizing 31 people", and `people` how many the model was trained on, or None
    where that says nothing. The page gets `page_values` beside what all pages get, and shows images of `image_sources`,
    as a Content-Security-Policy writes them. `answer` is the endpoint for photographs in `fields`; it makes a
    `response_type`.
    """

    task: TaskName
    fields: tuple[str, ...]
    summary: str
    description: str
    people: int | None
    warning: str
    page: Page
    image_sources: str
    page_values: dict[str, object]
    queue: RequestQueue[Any, Any]
    response_type: type
    answer: Callable[..., Awaitable[Response]]


def make_page(name: str, *shared: str) -> Page:
    """Return the page of a service; its style sheet, script and template add to those that the pages share.

    `shared` are those that only some pages share.
    """
    folder = Path(__file__).parent / "templates"
    names = ("upload", *shared, name)
    styles = ("base.css", *(f"{each}.css" for each in names))
    scripts = ("names.js", *(f"{each}.js" for each in names))
    return Page(f"{name}.html.jinja", styles, scripts, folder)


class Gate(Generic[Body]):
    """Give a request a place in the queue and a time limit, read its photographs, and turn failures into refusals."""

    def __init__(self, fields: tuple[str, ...], queue: RequestQueue[Any, Any], response_type: type[Body]) -> None:
        self._fields = fields
        self._queue = queue
        self._response = TypeAdapter(response_type)

    async def serve(self, request: Request, answer: Callable[[list[bytes]], Coroutine[Any, Any, Body]]) -> Response:
        """Return what `answer` makes of the photographs in a request; raise RefusalError when there is no response."""
        limits = self._queue.limits
        message = f"The request took longer than {limits.seconds:g} seconds to arrive."
        late = RefusalError(408, "too_slow", message, Connection="close")
        try:
            async with asyncio.timeout(limits.seconds):
                with self._queue.enter_queue():
                    contents = await read_photographs(request, self._fields, limits.upload_bytes)
                    message = f"The response took longer than {limits.seconds:g} seconds."
                    late = RefusalError(503, "timed_out", message, **{"Retry-After": "5"})
                    body = await _unless_client_leaves(request, answer(contents))
        except TimeoutError:
            raise late from None
        except PhotographError as error:
            raise refuse_file(error) from None
        except ClientDisconnect:
            return Response(status_code=400)  # nobody receives it
        return Response(self._response.dump_json(body), headers={"Cache-Control": "no-store"}, media_type=JSON_TYPE)


async def _unless_client_leaves(request: Request, answer: Coroutine[Any, Any, Body]) -> Body:
    """Return a response; when the client leaves before it is there, cancel it and raise ClientDisconnect.

    Otherwise the workers would be busy for nobody while others wait.
    """
    answering = asyncio.create_task(answer)
    leaving = asyncio.create_task(_wait_until_client_leaves(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


async def _wait_until_client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refuse_file(error: PhotographError, which: str = "") -> RefusalError:
    """Return the refusal of a file that is not a photograph; of several files, `which` says the first or second."""
    return RefusalError(422, "not_a_photograph", f"The {which}{' ' if which else ''}file {error}.")
