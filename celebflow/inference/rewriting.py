"""Rewrite requests for the application: HEAD becomes GET, and every path begins with that of a reverse proxy."""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from celebflow.errors import CelebflowError
from celebflow.inference.request_metrics import PATHS


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
    """Middleware after which no request is HEAD, and every path begins with `root_path`.

    A reverse proxy may have removed that path or not. The HTTP server sends no body to a client that sent HEAD.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on as rewritten."""
        if scope["type"] == "http":
            path = scope["path"]
            if f"{path}/".startswith(f"{self._root_path}/"):
                path = path.removeprefix(self._root_path) or "/"
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "method": method, "root_path": self._root_path, "path": self._root_path + path}
        await self._app(scope, receive, send)
