"""What the server counts for Prometheus."""

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PATHS = ("/", "/predict", "/healthz", "/metrics", "/openapi.json", "/docs", "/redoc")


class Metrics:
    """What Prometheus is told; of nobody's name, and nobody's photograph."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "celebflow_requests", "Requests that were answered.", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "celebflow_request_seconds", "From a request's head to its answer's end.", ["path"], registry=self.registry
        )
        self.faces = Counter("celebflow_faces", "Faces that were named, or found unknown.", registry=self.registry)
        self.batches = Histogram(
            "celebflow_batch_photographs",
            "Photographs in one pass of the classifier.",
            buckets=(1, 2, 4, 8, 16),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "celebflow_waiting_requests", "Requests that wait for their answer.", registry=self.registry
        )

    def note(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        known = path if path in _PATHS else "other"
        self._requests.labels(known, str(status)).inc()
        self._seconds.labels(known).observe(seconds)


class MeasuredApp:
    """Counts the requests to an application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 499  # the client left without an answer

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        except Exception:
            status = 500
            raise
        finally:
            self._metrics.note(scope["path"], status, time.perf_counter() - started)
