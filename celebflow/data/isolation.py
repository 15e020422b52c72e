"""Decode in a process of its own, which is killed when it takes too long.

The process reads requests from its standard input and writes images to its standard output, until its input ends.
"""

import atexit
import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from math import ceil
from pathlib import Path
from threading import Timer
from typing import IO

from PIL import Image

import celebflow
from celebflow.data.formats import PhotographError
from celebflow.data.pixels import decode

MAX_SECONDS = 60.0  # a busy machine takes several times what an idle one does
_MAX_MEMORY_BYTES = 4 * 2**30
_REQUEST = struct.Struct("<8sQQQ")  # the format's name, the most pixels and seconds, and the bytes that follow
_RESPONSE = struct.Struct("<IIQ")  # width and height, 0 for a refusal, and the number of bytes that follow


class _Decoder:
    """A process that decodes one image after the other."""

    def __init__(self) -> None:
        folders = [str(Path(celebflow.__path__[0]).parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            # With -P, and without an empty folder in the path, no module of the working directory is imported.
            [sys.executable, "-P", "-m", "celebflow.data.isolation"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # where libraries warn
        )
        self._requests: IO[bytes] = self._process.stdin  # type: ignore[assignment] # they are pipes
        self._responses: IO[bytes] = self._process.stdout  # type: ignore[assignment]

    def is_alive(self) -> bool:
        """Tell whether the process still waits for requests."""
        return self._process.poll() is None

    def decode(self, content: bytes, name: str, max_pixels: int, max_seconds: float) -> Image.Image:
        """Decode an image; when that fails, the process has ended, except after a PhotographError of its own."""
        timer = Timer(max_seconds, self._process.kill)
        timer.start()
        try:
            request = _REQUEST.pack(name.encode(), max_pixels, ceil(max_seconds) + 1, len(content))
            self._requests.write(request + content)
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
    decoder = _take()
    started = time.monotonic()
    answered = False
    try:
        image = decoder.decode(content, name, max_pixels, max_seconds)
        answered = True
        return image
    except PhotographError:
        answered = True
        raise
    except (OSError, struct.error, ValueError):  # the process has ended
        late = time.monotonic() - started >= max_seconds
        reason = f"takes more than {max_seconds:g} s to decode" if late else "ends its decoder: it may be damaged"
        raise PhotographError(f"{reason}; save it again as JPEG") from None
    finally:
        # One that answered at the last moment may have been killed right after.
        if answered and time.monotonic() - started < max_seconds:
            _idle.append(decoder)
        else:
            decoder.close()


def _take() -> _Decoder:
    while _idle:
        try:
            decoder = _idle.pop()
        except IndexError:  # another thread took the last
            break
        if decoder.is_alive():
            return decoder
        decoder.close()
    return _Decoder()


@atexit.register
def _close_idle() -> None:
    while _idle:
        _idle.pop().close()


def main() -> None:
    """Answer requests until the input ends."""
    with suppress(ImportError):
        import resource  # not on Windows

        limits = [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit != resource.RLIM_INFINITY]
        most_bytes = min([_MAX_MEMORY_BYTES, *limits])  # only root may raise a limit
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends decoding at once
    while header := sys.stdin.buffer.read(_REQUEST.size):
        name, max_pixels, max_seconds, size = _REQUEST.unpack(header)
        content = sys.stdin.buffer.read(size)
        _end_after(max_seconds)  # when nobody is left to end it
        width, height = 0, 0
        try:
            image = decode(content, name.rstrip(b"\0").decode(), max_pixels)
            (width, height), body = image.size, image.tobytes()
        except PhotographError as error:
            body = str(error).encode()
        except MemoryError:
            body = b"needs too much memory to decode; save it again as JPEG"
        _end_after(0)
        sys.stdout.buffer.write(_RESPONSE.pack(width, height, len(body)) + body)
        sys.stdout.buffer.flush()


def _end_after(seconds: int) -> None:
    """Let the system end this process after so many seconds; 0 for never."""
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(seconds)


if __name__ == "__main__":
    main()
