"""The server's connections: listen, serve, and close those that send nothing in time or do not speak HTTP."""

import asyncio
import logging
import socket
import time
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from celebflow.errors import CelebflowError, describe_shortage
from celebflow.inference.refusals import RefusalError

_HEAD_SECONDS = 10.0  # that the head of a request may take
_REPORT_SECONDS = 60.0  # between two messages that there are too many connections
# Its warnings about a malformed form quote what the client sent.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class _AcceptFilter(logging.Filter):
    """Let asyncio say once a minute that it cannot accept connections: it would log a thousand tracebacks a second."""

    def __init__(self) -> None:
        super().__init__()
        self._reported = -_REPORT_SECONDS

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage()
        if text.startswith("Exception in callback BaseSelectorEventLoop._start_serving"):
            return False  # asyncio tries again, while the server has ended
        if error is None or not text.startswith("socket.accept() out of system resource"):
            return True
        if time.monotonic() - self._reported < _REPORT_SECONDS:
            return False
        self._reported = time.monotonic()
        record.msg, record.args, record.exc_info = (
            f"New connections wait. {describe_shortage(error) or error}",
            (),
            None,
        )
        return True


logging.getLogger("asyncio").addFilter(_AcceptFilter())


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address; raise CelebflowError when it is not available."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise CelebflowError(
            f"Cannot listen on {host}, port {port} ({error.strerror}). Choose another --port, or another host."
        ) from None
    # asyncio does this for sockets that it makes itself. Without it, a response's end waits 40 ms for a TCP ACK.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def describe_address(host: str, listening: socket.socket) -> str:
    """Return the server's address for a browser."""
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _LingeringTransport:
    """A transport that goes on reading when it is closed while the client still sends the body of its request.

    Otherwise the client would get an error from its system before it could read why the request is refused.
    """

    def __init__(self, transport: asyncio.Transport, connection: h11.Connection) -> None:
        self.lingers = False
        self._transport = transport
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        """Close the transport for writing alone while it lingers, and altogether the second time."""
        if self.lingers or self._connection.their_state is not h11.SEND_BODY:
            self._transport.close()
            return
        self.lingers = True
        try:
            self._transport.write_eof()
        except OSError:  # the client has gone, which the loop is yet to see
            self._transport.abort()
            return
        self._transport.resume_reading()


class _Protocol(H11Protocol):
    """uvicorn's protocol with a timeout for heads and refusals in JSON.

    It closes a connection on which no request arrives in time, or on which a refused one never ends.
    """

    transport: _LingeringTransport  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = _LingeringTransport(transport, self.conn)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if not self.transport.lingers:
            super().data_received(data)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._timer.cancel()
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(_HEAD_SECONDS, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if self.conn.their_state is h11.SEND_BODY:  # the body of a request that was refused
            self.transport.abort()
        elif self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._refuse(RefusalError(408, "too_slow", f"No request arrived within {_HEAD_SECONDS:g} seconds."))
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


def run(app: FastAPI, listening: socket.socket, seconds: float) -> None:
    """Serve until SIGINT or SIGTERM; requests that have arrived by then still get their responses within `seconds`."""
    uvicorn.Server(configure(app, seconds)).run(sockets=[listening])


def configure(app: FastAPI, seconds: float) -> uvicorn.Config:
    """Return how uvicorn runs the application: it logs failures alone, and no requests."""
    return uvicorn.Config(
        app,
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,  # nothing here needs the client's own address or scheme
        http=_Protocol,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=int(seconds) + 1,
    )
