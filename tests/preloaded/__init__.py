"""Run stages, DVC and celebflow in forks of one process with their libraries, which takes seconds less each time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

# The environment variable that holds the folder of the programs `python`, `dvc` and `celebflow` that do so.
PROGRAMS = "CELEBFLOW_TESTS_PROGRAMS"
_PYTHON = """#!/bin/sh
case "$1 $2" in "-m stages."*) shift && exec {client} "$@" ;; esac
exec {python} "$@"
"""
_PROGRAM = """#!/bin/sh
exec {client} {module} "$@"
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
        programs = {
            "python": _PYTHON.format(client=client, python=f"'{sys.executable}'"),
            "dvc": _PROGRAM.format(client=client, module="dvc"),
            "celebflow": _PROGRAM.format(client=client, module="celebflow.cli"),
        }
        for name, content in programs.items():
            program = Path(folder) / name
            program.write_text(content)
            program.chmod(0o755)
        command = [sys.executable, str(scripts / "server.py"), address]
        # The server ends when its standard input does, also when this process is killed.
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True):
            os.environ[PROGRAMS] = folder
            try:
                yield
            finally:
                del os.environ[PROGRAMS]
