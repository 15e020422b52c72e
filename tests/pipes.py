"""Pipes in the place of files that commands write."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def read_what_is_written(pipe: Path, write: Callable[[Path], object]) -> bytes:
    """Make a pipe, let `write` write to it, and return what arrived; the pipe must still be one afterwards."""
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        # Opened for writing as well, so that neither side waits for the other when nothing is written.
        keeper = os.open(pipe, os.O_RDWR)
        arrived = reader.submit(pipe.read_bytes)
        try:
            write(pipe)
        finally:
            is_pipe = pipe.is_fifo()
            os.close(keeper)
        content = arrived.result()
    assert is_pipe
    return content
