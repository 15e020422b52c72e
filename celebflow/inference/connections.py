"""The server's connections: where it listens, and what becomes of those who say nothing, or nothing of HTTP."""

import asyncio
import logging
import socket

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from celebflow.errors import CelebflowError
from celebflow.inference.batcher import Limits
from celebflow.inference.refusals import RefusalError

_HEAD_SECONDS = 10.0  # that the head of a request may take
# It tells what is wrong with a form, in the words of whoever sent it.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address; raise CelebflowError when it cannot be had."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise CelebflowError(
            f"{host}, port {port} cannot be listened on ({error.strerror}). Choose another --host or --port."
        ) from None
    # asyncio does this for sockets that it makes itself: else the end of an answer waits 40 ms for an acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def describe_address(host: str, listening: socket.socket) -> str:
    """Return where a browser finds the server."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


class _Protocol(H11Protocol):
    """uvicorn's, but a connection on which no request comes in time is ended, or on which a refused one never ends; and
    what is no HTTP is refused in JSON.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watching.cancel()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watching.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._watching = self.loop.call_later(_HEAD_SECONDS, self._end_if_silent)

    def _end_if_silent(self) -> None:
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            return
        if self.conn.their_state is h11.IDLE:
            self._refuse(RefusalError(408, "too_slow", f"No request came within {_HEAD_SECONDS:g} seconds."))
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(RefusalError(400, "malformed", msg))

    def _refuse(self, refusal: RefusalError) -> None:
        response = refusal.to_response()
        headers = [*response.raw_headers, (b"connection", b"close")]
        head = h11.Response(status_code=refusal.status, headers=headers)
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def run(app: FastAPI, listening: socket.socket, limits: Limits) -> None:
    """Answer until SIGINT or SIGTERM; what has been asked by then is answered first."""
    uvicorn.Server(configure(app, limits)).run(sockets=[listening])


def configure(app: FastAPI, limits: Limits) -> uvicorn.Config:
    """Say how uvicorn is to run the application: it logs no request, only failures."""
    return uvicorn.Config(
        app,
        access_log=False,
        log_level="error",
        server_header=False,
        http=_Protocol,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=int(limits.seconds) + 1,
    )
