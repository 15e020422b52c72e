"""A stage in a fork of the process with the libraries runs and ends as one in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.preloaded import PROGRAMS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAMS not in os.environ, reason="it needs Linux")]


def _start(folder: Path, code: str, *arguments: str, preloaded: bool = True) -> subprocess.Popen[str]:
    (folder / "stages").mkdir(exist_ok=True)
    (folder / "stages" / "__init__.py").touch()
    (folder / "stages" / "odd.py").write_text(code)
    python = f"{os.environ[PROGRAMS]}/python" if preloaded else sys.executable
    return subprocess.Popen(
        [python, "-m", "stages.odd", *arguments],
        cwd=folder,
        env={**os.environ, "ODD": "Zoë"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit(7)",
        "sys.exit('a text')",
        "raise ValueError(1)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "atexit.register(print, 'at last')",
        "threading.Thread(target=lambda: time.sleep(0.1) or print('thread')).start()",
    ],
)
def test_output_and_exit_status_are_the_same(tmp_path: Path, end: str) -> None:
    code = "import atexit, os, signal, sys, threading, time\n"
    code += f"print(sys.argv, __name__, os.getcwd(), os.environ['ODD'], input(), sys.path[0], flush=True)\n{end}\n"
    results = []
    for preloaded in (True, False):
        process = _start(tmp_path, code, "one", "two words", preloaded=preloaded)
        output, _ = process.communicate("typed\n")
        assert "typed" in output
        # Frames of runpy differ.
        results.append((process.returncode, output.replace("\n", " ").split()[0], output.split()[-2:]))
    assert results[0] == results[1]


def test_a_stage_ends_with_the_program_that_stands_for_it(tmp_path: Path) -> None:
    process = _start(tmp_path, "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(100)\n")
    assert process.stdout is not None
    stage = psutil.Process(int(process.stdout.readline()))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while stage.is_running() and stage.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
