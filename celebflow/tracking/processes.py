"""The process that a run or an experiment belongs to, and whether it is still running."""

import platform
import re

import psutil

PROCESS_TAG = "celebflow.process"
_CLOCK_TOLERANCE_SECONDS = 5  # setting the clock shifts the time at which a process seems to have started


def name_process(number: int) -> str:
    """Return a name for a process that no other process shares, even when its number is used again."""
    return f"{number} since {psutil.Process(number).create_time():.0f} on {platform.node()}"


def may_be_running(name: str) -> bool:
    """Return whether the process of a name may be running; of processes on other machines this is unknown."""
    match = re.fullmatch(r"(\d+) since (\d+) on (.*)", name)
    if match is None or match[3] != platform.node():
        return True
    try:
        process = psutil.Process(int(match[1]))
        if process.status() == psutil.STATUS_ZOMBIE:  # it has ended, and waits for its parent to notice
            return False
        started: float = process.create_time()
    except psutil.NoSuchProcess:
        return False
    return abs(started - int(match[2])) < _CLOCK_TOLERANCE_SECONDS
