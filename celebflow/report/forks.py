"""Work shared by forks of this process: one for each processor, to which nothing has to be sent."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import TypeVar

_Item = TypeVar("_Item")


def share_out(work: Callable[[_Item], object], items: Sequence[_Item]) -> None:
    """Call `work` with each item: on Linux, forks of this process take a share. Only files that it writes are kept.

    What a fork does not finish is done again in this process, which so raises its errors. Elsewhere, where libraries of
    the system may not be used in forks, this process does all.
    """
    count = max(1, min(len(items), os.cpu_count() or 1)) if sys.platform == "linux" else 1
    own, *others = (items[start::count] for start in range(count))
    with warnings.catch_warnings():
        # Python 3.12 warns of other threads' locks; what works here takes none of them.
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        forks = [get_context("fork").Process(target=_work, args=(work, share, os.getpid())) for share in others]
        for fork in forks:
            fork.start()
    try:
        for item in own:
            work(item)
        for fork, share in zip(forks, others, strict=True):
            fork.join()
            for item in share if fork.exitcode else ():
                work(item)
    finally:
        for fork in forks:
            fork.kill()
            fork.join()


def _work(work: Callable[[_Item], object], share: Sequence[_Item], parent: int) -> None:
    """Do a share of the work, quietly, and end when the parent has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its forks
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        for item in share:
            if os.getppid() != parent:
                break
            work(item)
    except BaseException:
        os._exit(1)
