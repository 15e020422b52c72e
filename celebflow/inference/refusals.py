"""Refused requests, as JSON."""

from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field


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


def describe_refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": RefusalBody} for status in statuses}
