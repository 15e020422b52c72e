"""Count and time requests for Prometheus."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from celebflow.tasks import TASKS

PATHS = ("/", *(task.path for task in TASKS.values()), "/healthz", "/metrics", "/openapi.json", "/docs", "/redoc")


class Metrics:
    """The server's metrics; they hold no person's name and no photograph."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._registry = registry
        self._requests = Counter(
            "celebflow_requests", "Requests that got a response.", ["path", "status"], registry=registry
        )
        seconds = "From the head of a request to the end of its response."
        self._seconds = Histogram("celebflow_request_seconds", seconds, ["path"], registry=registry)
        self.faces = Counter("celebflow_faces", "Faces that were predicted or compared.", registry=registry)
        photographs = "Photographs in one pass of the model."
        sizes = (1, 2, 4, 8, 16)
        self.batches = Histogram("celebflow_batch_photographs", photographs, buckets=sizes, registry=registry)
        self.waiting = Gauge("celebflow_waiting_requests", "Requests that wait for their responses.", registry=registry)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request; all unknown paths count as one."""
        path = path if path in PATHS else "other"
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def format(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class RequestCounter:
    """Middleware that counts and times the requests to an application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when its response ends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope["root_path"])
        started = time.perf_counter()
        status = 499  # the client left before a response

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        except Exception:
            status = 500
            raise
        finally:
            self._metrics.count_request(path, status, time.perf_counter() - started)
