"""Turn requests that cannot be served into JSON: a code for programs and a message for people."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from celebflow.errors import to_encodable


class RefusalError(Exception):
    """A request that is refused; its code is for programs, its message for people."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers

    def to_response(self) -> JSONResponse:
        """Return the response that the client gets; what the request holds may be text that no encoding has."""
        content = {"code": self.code, "message": to_encodable(self.message)}
        return JSONResponse(content, self.status, self.headers)


class RefusalBody(BaseModel):
    """Why a request was refused."""

    code: str = Field(description="for programs", examples=["not_a_photograph"])
    message: str = Field(description="for people")


def describe_refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the refusals of an endpoint for its OpenAPI description."""
    return {status: {"model": RefusalBody} for status in statuses}


def add_refusals(app: FastAPI) -> None:
    """Let an application refuse in JSON also unknown paths, invalid parameters, and requests on which it fails."""

    @app.exception_handler(RefusalError)
    async def refuse(request: Request, refusal: RefusalError) -> JSONResponse:
        return refusal.to_response()

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"  # see RequestRewriter
        return RefusalError(error.status_code, code, f"{error.detail}.", **headers).to_response()

    @app.exception_handler(RequestValidationError)
    async def refuse_parameter(request: Request, invalid: RequestValidationError) -> JSONResponse:
        first = invalid.errors()[0]
        return RefusalError(422, "invalid_parameter", f"{first['loc'][-1]}: {first['msg']}.").to_response()

    @app.exception_handler(Exception)
    async def report_failure(request: Request, error: Exception) -> JSONResponse:
        return RefusalError(500, "failed", "The server failed; its log says why.").to_response()
