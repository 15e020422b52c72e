"""Decide who may send requests to the server: those with the token, by a host name that is the server's own."""

import ipaddress
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import HTMLResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from celebflow.errors import CelebflowError
from celebflow.inference.refusals import RefusalError


@dataclass(frozen=True)
class Access:
    """The token that a request needs, if any, and the host names that it may use, if they are limited.

    Limited host names keep out web pages of other sites whose domain name was made to point here (DNS rebinding). They
    are as _normalize returns them.
    """

    token: str | None
    hosts: frozenset[str] | None

    def allows_host(self, header: str) -> bool:
        """Return whether a request with this Host header may pass."""
        return self.hosts is None or _normalize(re.sub(r":\d*$", "", header)) in self.hosts

    def matches(self, token: str) -> bool:
        """Return whether a text is the token; how long that takes says nothing about it."""
        return self.token is not None and secrets.compare_digest(token.encode(), self.token.encode())

    def check_token(self, request: Request) -> None:
        """Raise RefusalError when a request lacks the token."""
        if self.token is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.matches(token):
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
            message = "This server has another name: call it by its address, or start it with --allow-host."
            refusal = RefusalError(421, "wrong_host", message)
            await refusal.to_response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class OriginCheck:
    """Middleware that refuses what changes something unless a page of this server itself asks for it.

    Browsers say in the header Origin which page sends a request that is not GET.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        reads = scope["type"] != "http" or scope["method"] in ("GET", "HEAD")
        if reads or headers.getlist("origin") == [f"{scope['scheme']}://{headers.get('host', '')}"]:
            await self._app(scope, receive, send)
        else:
            refusal = RefusalError(403, "wrong_origin", "Only a page of this server can ask for that.")
            await refusal.to_response()(scope, receive, send)


class TokenPath:
    """Middleware that serves the application below /TOKEN/ alone, and nothing without the token of `access`.

    The address alone thus opens a page, whose relative addresses have the token, too.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with the rest of its path, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token, slash, rest = scope["path"].removeprefix("/").partition("/")
        if slash and self._access.matches(token):
            await self._app({**scope, "path": f"/{rest}"}, receive, send)
        else:
            message = "This address lacks the token. Open the whole address that the command has printed."
            await RefusalError(401, "unauthorized", message).to_response()(scope, receive, send)


def make_page_response(html: str, policy: str) -> HTMLResponse:
    """Return the response with a page: no other page can frame it, and none learns its address."""
    headers = {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'", "Referrer-Policy": "no-referrer"}
    return HTMLResponse(html, headers=headers)


def make_access(host: str, token: str | None, allowed_hosts: Iterable[str] = ()) -> Access:
    """Return who may send requests to a server that listens on `host`, also by the names `allowed_hosts`.

    Raises CelebflowError when anyone could, or when the token or a name is not valid.
    """
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise CelebflowError("The token must consist of ASCII letters, digits and punctuation, without spaces.")
    names = {_parse_host(name) for name in allowed_hosts}
    if _is_loopback(host):
        return Access(token, frozenset({"localhost", "127.0.0.1", "::1", _normalize(host), *names}))
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


def _parse_host(name: str) -> str:
    host = _normalize(name)
    if not (re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", host) or _is_ipv6(host)):
        raise CelebflowError(
            f"--allow-host is {name!r}, which is not a host name. Give the name alone, without scheme, port and path, "
            "such as faces.example (in ASCII: xn--… for other letters)."
        )
    return host


def _normalize(host: str) -> str:
    """Return a host in lower case, without the root's dot and the brackets of an address, the address in short."""
    name = host.lower().removesuffix(".")
    address = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    return str(ipaddress.ip_address(address)) if _is_ipv6(address) else name


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
