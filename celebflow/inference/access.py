"""Who may send requests to the server."""

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


class HostCheck:
    """Lets through to an application only who calls the server by a name that it goes by."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._access.knows(Headers(scope=scope).get("host", "")):
            message = "This server does not answer to that name; call it by its address."
            await RefusalError(421, "wrong_host", message).to_response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)


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
