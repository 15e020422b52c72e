"""Run stages and DVC in forks of one process that has imported their libraries, which takes seconds less each time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

# The environment variable that holds the folder of the programs `python` and `dvc` that do so.
PROGRAMS = "CELEBFLOW_TESTS_PROGRAMS"
_PYTHON = """#!/bin/sh
case "$1 $2" in "-m stages."*) shift && exec {client} "$@" ;; esac
exec {python} "$@"
"""
_DVC = """#!/bin/sh
exec {client} dvc "$@"
"""


@contextmanager
def provide_programs() -> Iterator[None]:
    """Offer the programs while a `with` block lasts; the libraries are imported when one first runs."""
    if not hasattr(os, "pidfd_open"):  # not Linux
        yield
        return
    scripts = Path(__file__).parent
    with TemporaryDirectory(prefix="celebflow-", dir="/tmp") as folder:  # short, as a socket's address must be
        address = f"{folder}/socket"
        client = f"'{sys.executable}' -IS '{scripts / 'client.py'}' {address}"
        for name, content in (("python", _PYTHON), ("dvc", _DVC)):
            program = Path(folder) / name
            program.write_text(content.format(client=client, python=f"'{sys.executable}'"))
            program.chmod(0o755)
        command = [sys.executable, str(scripts / "server.py"), address]
        # The server ends when its standard input does, also when this process is killed.
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True):
            os.environ[PROGRAMS] = folder
            try:
                yield
            finally:
                del os.environ[PROGRAMS]
