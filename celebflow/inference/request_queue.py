"""Requests that arrive one by one → passes of a model: photographs are extracted as they come and take one together."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from celebflow.inference.refusals import RefusalError

_BATCH_SIZE = 16  # photographs in one pass of the model
_MAX_WAIT_SECONDS = 0.25  # of an extracted photograph for others

Extracted = TypeVar("Extracted")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """The limits of a request: a photograph's bytes, pixels and predicted faces, and the seconds until the response.

    `waiting` is how many requests may wait for their responses at once.
    """

    upload_bytes: int
    pixels: int
    faces: int
    seconds: float
    waiting: int


class AbandonedError(Exception):
    """A request has its response already, such as that it took too long: nobody needs what a thread still computes."""


class Patience:
    """Tells the threads that work for a request whether somebody waits for it: within a `with` block.

    No thread can be ended from outside, and a photograph of many faces takes as long as many photographs.
    """

    def __init__(self) -> None:
        self._over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def check(self) -> None:
        """Raise AbandonedError when nobody waits any more."""
        if self._over.is_set():
            raise AbandonedError


@dataclass(frozen=True, eq=False)
class _Pending(Generic[Extracted, Result]):
    """A photograph that waits for a pass of the model, and the result that the pass will give it."""

    extracted: Extracted
    result: asyncio.Future[Result]


class RequestQueue(ABC, Generic[Extracted, Result]):
    """The requests that wait for a model. Everything but `waiting` is for the tasks of one event loop.

    Each of the model's workers decodes and extracts one photograph at a time. An extracted photograph waits a moment
    for those that are being extracted, up to a batch: one pass of the model reads its weights from memory once for all
    of them.
    """

    def __init__(self, limits: Limits, workers: int, observe_batch: Callable[[int], object]) -> None:
        """Take the number of threads that extract at once; `observe_batch` gets the photographs in each pass."""
        self.waiting = 0
        self.limits = limits
        self._observe_batch = observe_batch
        self._workers = ThreadPoolExecutor(workers, "extract")
        # PyTorch keeps a pool of threads for each thread that calls it, so that one thread uses the model.
        self._model_thread = ThreadPoolExecutor(1, "model")
        self._extractions: list[asyncio.Future[Extracted]] = []
        self._pending: list[_Pending[Extracted, Result]] = []
        self._passes: asyncio.Task[None] | None = None

    @abstractmethod
    def _run_pass(self, photographs: Sequence[Extracted]) -> Sequence[Result]:
        """Return what the model makes of each of several photographs."""

    @contextmanager
    def enter_queue(self) -> Iterator[None]:
        """Take a place in the queue; raise RefusalError when there is none left."""
        if self.waiting >= self.limits.waiting:
            message = "Too many requests are waiting; try again later."
            raise RefusalError(429, "busy", message, **{"Retry-After": "1"})
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def _process(self, extract: Callable[[Patience], Extracted]) -> tuple[Extracted, Result]:
        """Extract a photograph, and return what was extracted and what a pass of the model made of it."""
        loop = asyncio.get_running_loop()
        with Patience() as patience:
            extraction = loop.run_in_executor(self._workers, extract, patience)
            self._extractions.append(extraction)
            extraction.add_done_callback(self._extractions.remove)
            extracted = await extraction
        pending = _Pending[Extracted, Result](extracted, loop.create_future())
        self._pending.append(pending)
        if self._passes is None:
            self._passes = asyncio.create_task(self._run_passes())
        return extracted, await pending.result

    async def _run_passes(self) -> None:
        while self._pending:
            others = self._extractions[: max(0, _BATCH_SIZE - len(self._pending))]
            if others:
                await asyncio.wait(others, timeout=_MAX_WAIT_SECONDS)
            batch = [pending for pending in self._pending[:_BATCH_SIZE] if not pending.result.cancelled()]
            del self._pending[:_BATCH_SIZE]
            if batch:
                await self._resolve(batch)
        self._passes = None

    async def _resolve(self, batch: Sequence[_Pending[Extracted, Result]]) -> None:
        self._observe_batch(len(batch))
        photographs = [pending.extracted for pending in batch]
        results: Sequence[Result | Exception]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._model_thread, self._run_pass, photographs)
        except Exception as error:
            results = [error] * len(batch)  # each request of the batch fails with it
        for pending, result in zip(batch, results, strict=True):
            if pending.result.cancelled():  # its client left during the pass
                continue
            if isinstance(result, Exception):
                pending.result.set_exception(result)
            else:
                pending.result.set_result(result)
