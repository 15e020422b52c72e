"""Forks do a share of the work each; errors surface, and no fork outlives its work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from celebflow.report.forks import share_out


@pytest.mark.parametrize("count", [0, 1, 2, 5, 5000])
def test_each_item_is_done_once(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)

    def work(item: int) -> None:
        with (tmp_path / str(item)).open("x") as file:  # fails where the file exists
            file.write(str(os.getpid()))

    share_out(work, list(range(count)))
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(count))


def test_all_processors_help_and_none_waits_for_the_slowest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    deadline = time.monotonic() + 60

    def work(item: str) -> None:
        (tmp_path / f"{item} {os.getpid()}").touch()
        started: list[str] = []
        # All begin together, and one does the slow item as long as the other two do all others.
        while len({name.split()[1] for name in started}) < 3 or (item == "slow" and len(started) < 9):
            started = [path.name for path in tmp_path.iterdir()]
            assert time.monotonic() < deadline
            time.sleep(0.01)

    share_out(work, ["slow", *"abcdefgh"])
    done = [path.name.split() for path in tmp_path.iterdir()]
    assert len(done) == 9 and len({process for _, process in done}) == 3
    (slow,) = [process for item, process in done if item == "slow"]
    assert [item for item, process in done if process == slow] == ["slow"]


def test_an_error_in_a_fork_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def work(item: str) -> None:
        if item == "bad":
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        share_out(work, ["good", "bad"])


def test_what_a_killed_fork_has_not_done_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    here = os.getpid()
    done: list[int] = []

    def work(item: int) -> None:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(item)

    share_out(work, [1, 2, 3, 4])
    assert sorted(done) == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_forks_end_when_this_process_does(ending: signal.Signals, tmp_path: Path) -> None:
    program = (
        "import os, pathlib, time\n"
        "from celebflow.report.forks import share_out\n"
        "os.cpu_count = lambda: 3\n"
        "def work(item):\n"
        "    pathlib.Path(str(os.getpid())).touch()\n"
        "    time.sleep(1)\n"
        "share_out(work, list(range(300)))\n"
    )
    deadline = time.monotonic() + 60
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while len(list(tmp_path.iterdir())) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(ending)
    while any(psutil.pid_exists(int(file.name)) for file in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
