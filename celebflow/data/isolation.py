"""Decode in a process of its own, which is killed when it takes too long: for formats whose cost no header bounds.

The process reads requests from its standard input and writes images to its standard output, until its input ends.
"""

import atexit
import os
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import IO

from PIL import Image

import celebflow
from celebflow.data.formats import PhotographError
from celebflow.data.pixels import decode

MAX_SECONDS = 20.0
_MAX_MEMORY_BYTES = 4 * 2**30
_REQUEST = struct.Struct("<8sQQ")  # the format's name, the most pixels, and the number of bytes that follow
_RESPONSE = struct.Struct("<IIQ")  # width and height, 0 for a refusal, and the number of bytes that follow


class _Decoder:
    """A process that decodes one image after the other."""

    def __init__(self) -> None:
        package = Path(celebflow.__path__[0]).parent
        self._process = subprocess.Popen(
            [sys.executable, "-m", "celebflow.data.isolation"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # where libraries warn
        )
        self._requests: IO[bytes] = self._process.stdin  # type: ignore[assignment] # they are pipes
        self._responses: IO[bytes] = self._process.stdout  # type: ignore[assignment]

    def decode(self, content: bytes, name: str, max_pixels: int, max_seconds: float) -> Image.Image:
        """Decode an image; when that fails, the process has ended, except after a PhotographError of its own."""
        timer = Timer(max_seconds, self._process.kill)
        timer.start()
        try:
            self._requests.write(_REQUEST.pack(name.encode(), max_pixels, len(content)) + content)
            self._requests.flush()
            width, height, size = _RESPONSE.unpack(self._responses.read(_RESPONSE.size))
            body = self._responses.read(size)
        finally:
            timer.cancel()
        if not width:
            raise PhotographError(body.decode())
        return Image.frombytes("RGB", (width, height), body)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


_idle: list[_Decoder] = []


def decode_isolated(content: bytes, name: str, max_pixels: int, max_seconds: float) -> Image.Image:
    """Decode an image as `decode` does, in another process; several threads may call this at once.

    Raises PhotographError as `decode` does, and when it takes more than `max_seconds` or too much memory.
    """
    try:
        decoder = _idle.pop()
    except IndexError:
        decoder = _Decoder()
    try:
        image = decoder.decode(content, name, max_pixels, max_seconds)
    except PhotographError:
        _idle.append(decoder)
        raise
    except BaseException as error:  # the process has ended, or would answer too late
        decoder.close()
        if isinstance(error, OSError | struct.error | ValueError):
            raise PhotographError(f"takes more than {max_seconds:g} s to decode, or is damaged") from None
        raise
    _idle.append(decoder)
    return image


@atexit.register
def _close_idle() -> None:
    while _idle:
        _idle.pop().close()


def main() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too; the other ends it
    with suppress(ImportError):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    while header := sys.stdin.buffer.read(_REQUEST.size):
        name, max_pixels, size = _REQUEST.unpack(header)
        content = sys.stdin.buffer.read(size)
        width, height = 0, 0
        try:
            image = decode(content, name.rstrip(b"\0").decode(), max_pixels)
            (width, height), body = image.size, image.tobytes()
        except PhotographError as error:
            body = str(error).encode()
        except MemoryError:
            body = b"needs too much memory to decode"
        sys.stdout.buffer.write(_RESPONSE.pack(width, height, len(body)) + body)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
