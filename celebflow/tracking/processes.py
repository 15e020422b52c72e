"""Which process a run belongs to, and whether it is still alive."""

import platform
import re

import psutil
from mlflow.entities import Run as MlflowRun

PROCESS_TAG = "celebflow.process"
_CLOCK_TOLERANCE_SECONDS = 5  # a process seems to have started otherwise when the clock is set


def name_process(number: int) -> str:
    return f"{number} since {psutil.Process(number).create_time():.0f} on {platform.node()}"


def may_be_running(run: MlflowRun) -> bool:
    """Tell whether the process that a run stands in is there; of another machine's, nobody here knows."""
    match = re.fullmatch(r"(\d+) since (\d+) on (.*)", run.data.tags.get(PROCESS_TAG, ""))
    if match is None or match[3] != platform.node():
        return True
    try:
        started: float = psutil.Process(int(match[1])).create_time()
    except psutil.NoSuchProcess:
        return False
    return abs(started - int(match[2])) < _CLOCK_TOLERANCE_SECONDS
