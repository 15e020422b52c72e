"""A run belongs to a process, and a process that has ended is not running."""

import os
import subprocess
import sys
import time

import psutil

from celebflow.tracking.processes import may_be_running, name_process


def test_processes_run_until_they_end() -> None:
    assert may_be_running(name_process(os.getpid()))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        name = name_process(process.pid)
        assert may_be_running(name)
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not may_be_running(name), "it has ended, though nobody has waited for it"
        process.wait()
        assert not may_be_running(name)


def test_processes_elsewhere_may_be_running() -> None:
    assert may_be_running(f"{os.getpid()} since 0 on another machine")
    assert not may_be_running(name_process(os.getpid()).replace(" since ", " since 9"))
