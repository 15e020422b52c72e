"""Import the libraries of stages and DVC once, and fork a process for each module that a client wants to run."""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress

# The project's own code comes from the repository in which a stage runs.
_LIBRARIES = (
    "dvc.api",
    "dvc.cli.parser",
    "dvc.repo.experiments.queue.workspace",
    "dvc.repo.reproduce",
    "jinja2",
    "lmdb",
    "matplotlib.pyplot",
    "mlflow",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "ncnn",
    "safetensors.torch",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.discriminant_analysis",
    "sklearn.metrics",
    "torch",
)


class _End:
    """Ends a process without deleting what the libraries made, which would take the interpreter a second."""

    status = 0

    def __call__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.status)


def main(address: str) -> None:
    """Serve clients until standard input ends."""
    end = _End()
    atexit.register(end)  # the first that is registered runs last
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    loaded = False
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        if not loaded:
            _load_libraries()
            loaded = True
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _supervise(connection, end)
            return
        connection.close()
        _reap()
    _reap()


def _load_libraries() -> None:
    gc.disable()
    for name in _LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()


def _reap() -> None:
    """Take leave of the processes that have ended, so that their processor time counts as this one's."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _supervise(connection: socket.socket, end: _End) -> None:
    """Run a client's module in a process of its own, which ends when the client does; send its exit status."""
    length, streams, _, _ = socket.recv_fds(connection, 4, 3)
    request = b""
    while len(request) < int.from_bytes(length, "big"):
        request += connection.recv(1 << 16)
    module = os.fork()
    if module == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        connection.close()
        command, folder, environment = json.loads(request)
        _run(command, folder, environment, end)
        return
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(module)
    if ended not in select.select([connection.fileno(), ended], [], [])[0]:
        os.kill(module, signal.SIGKILL)
    _, status = os.waitpid(module, 0)
    with suppress(OSError):  # the client has ended
        connection.sendall(status.to_bytes(4, "big"))
    os._exit(0)


def _run(command: list[str], folder: str, environment: dict[str, str], end: _End) -> None:
    """Do what `python -m` does, as if this process had been started for it."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    sys.path[0] = folder
    gc.enable()
    end.status = 1
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        end.status = 0
    except SystemExit as error:
        end.status = error.code if isinstance(error.code, int) else bool(error.code)
        raise


if __name__ == "__main__":
    main(sys.argv[1])
