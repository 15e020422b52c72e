"""Read the photographs from a request's body, or refuse it; nothing of it is written to disk."""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from celebflow.data.decoding import decode_base64
from celebflow.data.formats import PhotographError, list_formats
from celebflow.inference.refusals import RefusalError

JSON_TYPE = "application/json"
_FORM_TYPE = "multipart/form-data"
_ENVELOPE_BYTES = 16_384  # that a form or JSON may add to its photographs
# Of JSON per byte of a photograph: base64 takes 4/3, and an escaped line break (\r\n) every 64 digits and escaped
# slashes (\/) another tenth.
_JSON_BYTES = 1.5
_UNSPECIFIC_TYPES = ("", "application/octet-stream")  # that a form's file may have instead of image/…
_TEXTS = TypeAdapter(dict[str, str])
_QUOTES = 4  # of a field of JSON: those of its name and of its text
_COMMAS = 2  # of a field of JSON at most: the one in front of it, and that of a data URL
_MAX_DELIMITERS = 1000  # in a form, and what resembles them, which parsing takes long for; photographs have hardly any


class _InMemoryParser(MultiPartParser):
    """Starlette's parser, but uploads never go to a temporary file."""

    spool_max_size = 2**40

    def close(self) -> None:
        """Free the uploads, also those of a form that ends early."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_photographs(request: Request, fields: Sequence[str], max_bytes: int) -> list[bytes]:
    """Return the photographs in a request, one a field; raise RefusalError when one is missing or too large.

    uvicorn discards the rest of a body that is refused, so that the client gets to read the reason.
    """
    headers = request.headers
    if headers.get("content-encoding", "identity").casefold() != "identity":
        raise RefusalError(415, "encoded", "The body of a request must not be compressed.")
    too_large = RefusalError(413, "too_large", f"A photograph may have up to {max_bytes / 1e6:g} MB.")
    media_type = _parse_media_type(headers.get("content-type", ""))
    if media_type == _FORM_TYPE:
        body = await _read_body(request, len(fields) * max_bytes + _ENVELOPE_BYTES, too_large)
        contents = await asyncio.to_thread(_parse_form, headers, body, fields)
    elif media_type == JSON_TYPE:
        body = await _read_body(request, round(len(fields) * max_bytes * _JSON_BYTES) + _ENVELOPE_BYTES, too_large)
        contents = await asyncio.to_thread(_parse_json, body, fields)
    else:
        message = f"Send {' and '.join(fields)} as {_FORM_TYPE}, or in base64 as {JSON_TYPE}."
        raise RefusalError(415, "wrong_content_type", message)
    if max(map(len, contents)) > max_bytes:
        raise too_large
    return contents


async def _read_body(request: Request, max_bytes: int, too_large: RefusalError) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def describe_request(fields: Sequence[str]) -> dict[str, Any]:
    """Return the body that read_photographs takes, for the OpenAPI description."""

    def describe(**photograph: str) -> dict[str, Any]:
        properties = {field: {"type": "string", **photograph} for field in fields}
        return {"type": "object", "required": [*fields], "properties": properties, "additionalProperties": False}

    form = describe(format="binary", description=f"a {list_formats()} file")
    encoding = {field: {"contentType": "image/*, application/octet-stream"} for field in fields}
    kinds = "It may be a data URL, have line breaks, use the URL-safe alphabet, and lack its padding."
    description = f"a {list_formats()} file in base64. {kinds}"
    encoded = describe(contentEncoding="base64", format="byte", description=description)
    content = {_FORM_TYPE: {"schema": form, "encoding": encoding}, JSON_TYPE: {"schema": encoded}}
    return {"requestBody": {"required": True, "content": content}}


def _parse_media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()


def _parse_form(headers: Headers, body: bytes, fields: Sequence[str]) -> list[bytes]:
    # In an event loop of its own: the server's goes on meanwhile.
    return asyncio.run(_parse_form_in_memory(headers, body, fields))


async def _parse_form_in_memory(headers: Headers, body: bytes, fields: Sequence[str]) -> list[bytes]:
    if body.count(b"\r\n--") > _MAX_DELIMITERS:
        raise RefusalError(400, "malformed", "The form has far too many parts, or what resembles them.")

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemoryParser(headers, stream(), max_files=len(fields), max_fields=0)
    try:
        form = await parser.parse()
        return [await _read_file(field, form.get(field)) for field in fields]
    except (MultiPartException, ValueError, KeyError) as error:
        detail = error.message if isinstance(error, MultiPartException) else "it cannot be read"
        if detail.startswith("Too many fields"):  # none may be a text
            detail = f"a field holds a text, not a file (curl -F {fields[0]}=@FILE)"
        raise RefusalError(
            400, "malformed", f"This is not a form with {' and '.join(fields)}, a file each: {detail.rstrip('.')}."
        ) from None
    finally:
        parser.close()


async def _read_file(field: str, file: UploadFile | str | None) -> bytes:
    if not isinstance(file, UploadFile):
        raise RefusalError(400, "malformed", f"The form has no file in the field {field}.")
    if re.search(r"[/\\\0]", file.filename or ""):
        raise RefusalError(400, "malformed", "The file name is a path; send the name alone, or none.")
    media_type = _parse_media_type(file.content_type or "")
    if media_type not in _UNSPECIFIC_TYPES and not media_type.startswith("image/"):
        raise RefusalError(415, "wrong_content_type", "The file's Content-Type is not that of an image.")
    return await file.read()


def _parse_json(body: bytes, fields: Sequence[str]) -> list[bytes]:
    # A shell puts the lines that `base64` breaks into a string as they are, where JSON has none.
    joined = body.translate(None, b"\r\n")
    texts: dict[str, str] = {}
    # Of millions of values, pydantic would make as many errors before it says that they are not those asked for.
    if joined.count(b'"') == _QUOTES * len(fields) and joined.count(b",") <= _COMMAS * len(fields):
        with suppress(ValidationError):
            texts = _TEXTS.validate_json(joined, strict=True)
    if texts.keys() != set(fields):
        example = ", ".join(f'"{field}": "…"' for field in fields)
        raise RefusalError(400, "malformed", f"The body must be {{{example}}}, each a file in base64.")
    return [_decode_text(field, texts[field]) for field in fields]


def _decode_text(field: str, text: str) -> bytes:
    try:
        return decode_base64(text)
    except PhotographError as error:
        raise RefusalError(400, "malformed", f"{field} {error}.") from None
