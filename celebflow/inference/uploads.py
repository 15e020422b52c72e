"""Read the photograph in a request, or refuse it."""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from celebflow.data.decoding import ANY_FORMAT, PhotographError, decode_base64
from celebflow.inference.refusals import RefusalError

_FIELD = "photograph"
_FORM, JSON_TYPE = "multipart/form-data", "application/json"
_ENVELOPE_BYTES = 16_384  # what a form or JSON may add to its photograph
_PHOTOGRAPH_TYPES = ("", "application/octet-stream")  # that a part may have beside image/…


class _EncodedPhotograph(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    photograph: str


class _FormParser(MultiPartParser):
    """Starlette's, but what is uploaded never goes to a temporary file."""

    spool_max_size = 2**40

    def close(self) -> None:
        """Drop what was uploaded, also of a form that ends early."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_photograph(request: Request, most_bytes: int) -> bytes:
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
    elif kind == JSON_TYPE:
        body = await _read_body(request, most_bytes * 4 // 3 + _ENVELOPE_BYTES, too_large)
        content = await asyncio.to_thread(_parse_json, body)
    else:
        raise RefusalError(415, "wrong_content_type", f"A photograph comes as {_FORM}, or in base64 as {JSON_TYPE}.")
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


def describe_request() -> dict[str, Any]:
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
    return {"requestBody": {"required": True, "content": {_FORM: form, JSON_TYPE: encoded}}}


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
