"""Rewrite requests for the application, so that all of a kind look alike, whoever sends them."""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from celebflow.errors import CelebflowError
from celebflow.inference.request_metrics import PATHS

_ADDRESS = re.compile("https?://(?P<host>[^/]*)(?P<path>.*)", re.IGNORECASE | re.DOTALL)


def parse_root_path(path: str) -> str:
    """Return the path below which a reverse proxy serves the application, without a slash at its end.

    Raises CelebflowError when it is not a path, or is one of the application's own.
    """
    root_path = path.removesuffix("/")
    if not re.fullmatch(r"(/(?!\.+(/|$))[A-Za-z0-9._~-]+)*", root_path):
        raise CelebflowError(
            f"--root-path is {path!r}. Give a path such as /faces: it begins with / and consists of ASCII letters, "
            "digits and -._~/."
        )
    if root_path in PATHS:
        raise CelebflowError(f"--root-path is {path!r}, which is a path of the server itself. Choose another one.")
    return root_path


class RequestRewriter:
    """Middleware after which no request is HEAD or names a whole address, and every path begins with `root_path`.

    A reverse proxy may have removed that path or not. The HTTP server sends no body to a client that sent HEAD. Who
    takes the server for a proxy sends `GET http://host/path`, in which the host counts, and not the header (RFC 9112).
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on as rewritten."""
        if scope["type"] == "http":
            path, headers = scope["path"], scope["headers"]
            if address := _ADDRESS.fullmatch(path):
                path = address["path"] or "/"
                headers = [header for header in headers if header[0] != b"host"]
                headers.append((b"host", address["host"].encode()))
            if f"{path}/".startswith(f"{self._root_path}/"):
                path = path.removeprefix(self._root_path) or "/"
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            path = self._root_path + path
            scope = {**scope, "method": method, "headers": headers, "root_path": self._root_path, "path": path}
        await self._app(scope, receive, send)
