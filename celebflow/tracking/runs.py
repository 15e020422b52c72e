"""What a stage logs, sent to a process beside it that logs it to MLflow, whose import takes as long as many a stage.

The process runs `mlflow_runs`.
"""

import os
import pickle
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess, parent_process
from pathlib import Path
from threading import Thread
from traceback import format_exception
from types import FrameType

from celebflow.backbone.source import BackboneSource
from celebflow.classifier.history import EpochResult
from celebflow.errors import CelebflowError, Terminated, defer_signals
from celebflow.features.store import Features
from celebflow.params import Params
from celebflow.tasks import load_quickly

_ANSWER = "answer"  # instead of a method, to wait until all before is done
_END = "end"  # instead of a method; with an exception, if the stage has not finished
_LAST_SECONDS = 10  # for what is left to log when the stage fails or is killed, and then for ending the run
# A closed terminal sends SIGHUP, and Ctrl-\ sends SIGQUIT, to this process as well as to the stage.
_ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


class Run:
    """A stage's MLflow run. What is logged arrives there in this order, and later; what fails there is raised later.

    Each method raises CelebflowError when the tracking store cannot be used and `tracking.required` is true.
    """

    def __init__(self, connection: Connection, process: BaseProcess) -> None:
        self._connection = connection
        self._process = process

    def wait_until_open(self) -> None:
        """Wait until the run is open, before much is computed for it."""
        self._send(_ANSWER)
        self._receive()

    def log_epoch(self, result: EpochResult) -> None:
        """Log one epoch's losses and accuracies, as train/loss and so on."""
        self._send("log_epoch", result)

    def log_final_metrics(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Log the headline figures of each split, as val/final_accuracy and so on, and describe the run with them."""
        self._send("log_final_metrics", metrics)

    def log_files(self, *files: Path) -> None:
        """Store files and folders as artifacts, at the same relative paths; they must not change until the run ends."""
        self._send("log_files", *files)

    def log_threads(self) -> None:
        """Log how many threads PyTorch computes with, on which rounding depends."""
        import torch  # which takes a second, and which the stage has imported by now

        self._send("set_tags", {"celebflow.threads": str(torch.get_num_threads())})

    def end(self) -> None:
        """End the run as FINISHED, and wait until all is logged."""
        self._send(_END)
        self._receive()

    def give_up(self, error: BaseException) -> None:
        """End the run as what an error of the stage makes it; wait for that no longer than some seconds.

        Another Ctrl-C leaves out what is left to log, and a third one does not wait for the end of the run either.
        """
        if not self._process.is_alive():
            return
        interrupted = isinstance(error, KeyboardInterrupt | Terminated)
        try:
            with suppress(OSError, KeyboardInterrupt, Terminated):  # an OSError: the process has ended
                self._connection.send((_END, (Terminated() if interrupted else _StageError(),)))
                self._process.join(_LAST_SECONDS)
            self._process.terminate()  # what takes longer is left out
            self._process.join(_LAST_SECONDS)
        finally:
            self._process.kill()

    def _send(self, method: str, *arguments: object) -> None:
        try:
            if not self._connection.poll():
                self._connection.send((method, arguments))
                return
        except OSError:  # the process has ended; what it sent last says why
            pass
        self._receive()

    def _receive(self) -> None:
        """Wait until the process answers; raise what made it end before."""
        try:
            error = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            error = CelebflowError(
                f"The process that logs to MLflow has ended with status {self._process.exitcode}. If the machine lacks "
                "memory, close other programs; then run `dvc repro` again."
            )
        if error is not None:
            raise error


@contextmanager
def start_run(params: Params, features: Features) -> Iterator[Run]:
    """Open a new MLflow run, log the params and datasets, and save its id for the stages that continue it.

    The run ends as FINISHED, as FAILED on an exception, and as KILLED on Ctrl-C, on SIGTERM and when this process is
    killed.

    Raises CelebflowError when the tracking store cannot be used and `tracking.required` is true.
    """
    counts = Counter(photo.split for photo in features.photos)
    with _open("start_run", params, features.origin.backbone, counts) as run:
        yield run
        run.log_threads()


@contextmanager
def continue_run(params: Params, source: BackboneSource) -> Iterator[Run]:
    """Open the run whose id train saved once more.

    When the store lacks the run, because the result comes from another machine, a new run continues it; this is
    reported on standard error. Raises CelebflowError when train has not ended.
    """
    with _open("continue_run", params, source) as run:
        yield run


@contextmanager
def _open(opener: str, *arguments: object) -> Iterator[Run]:
    """Open a run with a function of mlflow_runs, in a process beside this one."""
    # A fork does not start Python anew; elsewhere, libraries of the system may not be used in forks.
    context = get_context("fork") if sys.platform == "linux" else get_context("spawn")
    own, other = context.Pipe()
    process = context.Process(target=_log, args=(own, other, opener, arguments), daemon=True)
    run = Run(own, process)
    try:
        anew = context.get_start_method() == "spawn"
        with warnings.catch_warnings(), defer_signals(), _hold_interrupts(anew=anew):  # it sets handlers of its own
            # Python 3.12 warns of other threads' locks; the process takes none of them.
            warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
            process.start()
        other.close()
        yield run
        run.end()
    except BaseException as error:
        run.give_up(error)
        raise
    finally:
        own.close()
        if process.is_alive():
            process.join()


@contextmanager
def _hold_interrupts(*, anew: bool) -> Iterator[None]:
    """Let no Ctrl-C reach a process that starts in a `with` block, until it unblocks that.

    One that starts Python `anew` has no handlers for its first seconds, and would end with a traceback.
    """
    if not anew or not hasattr(signal, "pthread_sigmask"):  # Windows lacks it
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # when it is started with the process, that unblocks the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _log(theirs: Connection, connection: Connection, opener: str, arguments: tuple[object, ...]) -> None:
    """Log what the stage sends until it ends the run, or is killed; then send None, or what made the run end before."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage, which gets it as well, ends the run
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for number in _ENDING_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _raise_terminated_once)
    theirs.close()  # open in this process, it would hide that the stage is killed
    Thread(target=_end_after_the_stage, daemon=True).start()
    error: BaseException | None = None
    try:
        open_run = load_quickly(f"celebflow.tracking.mlflow_runs:{opener}")  # while the stage imports its libraries
        with open_run(*arguments) as run:
            for method, values in _receive_all(connection):
                getattr(run, method)(*values)
    except _StageError:
        pass
    except BaseException as raised:
        error = _make_sendable(raised)
    with suppress(OSError):  # the stage has been killed
        connection.send(error)


def _raise_terminated_once(signal_number: int, frame: FrameType | None) -> None:
    """Raise Terminated, and let nothing but a kill interrupt what then ends the run."""
    _ignore_ending_signals()
    raise Terminated


def _ignore_ending_signals() -> None:
    for number in _ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end_after_the_stage() -> None:
    """When the stage is killed, end this process some seconds later, whichever answer of a store it waits for."""
    stage = parent_process()
    if stage is None:  # the type's, not this process's
        return
    stage.join()
    for number in (signal.SIGTERM, signal.SIGKILL):
        time.sleep(_LAST_SECONDS)
        os.kill(os.getpid(), number)


class _StageError(Exception):
    """The stage has failed, and says why itself."""


def _receive_all(connection: Connection) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield what the stage sends until it ends the run; raise Terminated or _StageError when it does not finish."""
    with suppress(EOFError, ConnectionError):  # the stage has been killed
        while True:
            method, values = connection.recv()
            if method == _ANSWER:
                connection.send(None)
            elif method != _END:
                yield method, values
            elif values:
                _ignore_ending_signals()
                raise values[0]
            else:
                return
    _ignore_ending_signals()
    raise Terminated


def _make_sendable(error: BaseException) -> BaseException:
    """Return an error that can be sent to the stage, with the traceback unless its text is for the user."""
    if isinstance(error, CelebflowError):
        return error
    text = "".join(format_exception(error))
    try:
        sendable: BaseException = pickle.loads(pickle.dumps(error))  # noqa: S301 - made in this process
    except Exception:
        return RuntimeError(text)
    sendable.add_note(f"In the process that logs to MLflow:\n{text}")
    return sendable
