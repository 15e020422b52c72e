"""Let the server run a module with this process's streams, folder and environment, and end as the module ends."""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path


def main(address: str, *command: str) -> None:
    """Send a module's name and its arguments, and wait for the exit status."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        request = json.dumps([command, str(Path.cwd()), dict(os.environ)], allow_nan=False).encode()
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(request)
        answer = connection.recv(4)
    if not answer:
        sys.exit("The server of tests/preloaded has ended.")
    status = os.waitstatus_to_exitcode(int.from_bytes(answer, "big"))
    if status < 0:
        with suppress(OSError):  # SIGKILL has no other
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
