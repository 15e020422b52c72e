"""Decide who may send requests to the server: those with the token, by a host name that is the server's own."""

import ipaddress
import re
import secrets
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from celebflow.errors import CelebflowError
from celebflow.inference.refusals import RefusalError


@dataclass(frozen=True)
class Access:
    """The token that a request needs, if any, and the host names that it may use, if they are limited.

    Limited host names keep out web pages of other sites whose domain name was made to point here (DNS rebinding).
    """

    token: str | None
    hosts: frozenset[str] | None

    def allows_host(self, host: str) -> bool:
        """Return whether a request with this Host header may pass."""
        return self.hosts is None or re.sub(r":\d*$", "", host).lower() in self.hosts

    def check_token(self, request: Request) -> None:
        """Raise RefusalError when a request lacks the token."""
        if self.token is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(token.encode(), self.token.encode()):
            message = "This request needs the server's token in the header `Authorization: Bearer …`."
            raise RefusalError(401, "unauthorized", message, **{"WWW-Authenticate": "Bearer"})


class HostCheck:
    """Middleware that refuses requests with a Host header that `access` does not allow."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and not self._access.allows_host(Headers(scope=scope).get("host", "")):
            refusal = RefusalError(421, "wrong_host", "This server has another name; call it by its address.")
            await refusal.to_response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def make_access(host: str, token: str | None) -> Access:
    """Return who may send requests to a server that listens on `host`.

    Raises CelebflowError when anyone could, or when the token is not valid.
    """
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise CelebflowError("The token must consist of ASCII letters, digits and punctuation, without spaces.")
    if _is_loopback(host):
        return Access(token, frozenset({"localhost", "127.0.0.1", "[::1]", host.lower()}))
    if token is None:
        raise CelebflowError(
            f"Other machines can reach {host}: set a --token that requests need (or CELEBFLOW_TOKEN), or listen on "
            "127.0.0.1."
        )
    return Access(token, None)


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
