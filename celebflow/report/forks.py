"""Work shared by forks of this process: one for each processor, to which nothing has to be sent."""

import mmap
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import TypeVar

_Item = TypeVar("_Item")
_TICKET_BYTES = 2
_MAX_TICKETS = 2048  # 4 KB: what any pipe holds; this process does what comes after them


def share_out(work: Callable[[_Item], object], items: Sequence[_Item]) -> None:
    """Call `work` with each item: on Linux, forks of this process help. Only files that it writes are kept.

    Each process takes the next item when it is done with one. What a fork does not finish is done again in this
    process, which so raises its errors. Elsewhere, where libraries of the system may not be used in forks, this process
    does all.
    """
    count = min(len(items), os.cpu_count() or 1) if sys.platform == "linux" else 1
    if count < 2:
        for item in items:
            work(item)
        return
    done = mmap.mmap(-1, len(items))  # a byte for each item, which forks share with this process
    tickets = _issue_tickets(min(len(items), _MAX_TICKETS))
    arguments = work, items, tickets, done
    forks = []
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of other threads' locks; what works here takes none of them.
            warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
            for _ in range(count - 1):
                forks.append(get_context("fork").Process(target=_help, args=(*arguments, os.getpid())))
                forks[-1].start()
        _work(*arguments)
        for fork in forks:
            fork.join()
        for number, item in enumerate(items):
            if not done[number]:
                work(item)
    finally:
        os.close(tickets)
        for fork in forks:
            if fork.pid is not None:
                fork.kill()
                fork.join()


def _issue_tickets(count: int) -> int:
    """Return the end of a pipe that holds the numbers below `count`, of which each process takes the next."""
    tickets, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        for number in range(count):
            file.write(number.to_bytes(_TICKET_BYTES, "big"))
    return tickets


def _work(
    work: Callable[[_Item], object], items: Sequence[_Item], tickets: int, done: mmap.mmap, parent: int | None = None
) -> None:
    """Do one item after the other, as long as there are tickets and the parent lives."""
    while ticket := os.read(tickets, _TICKET_BYTES):
        if parent is not None and os.getppid() != parent:
            return
        number = int.from_bytes(ticket, "big")
        work(items[number])
        done[number] = 1


def _help(work: Callable[[_Item], object], items: Sequence[_Item], tickets: int, done: mmap.mmap, parent: int) -> None:
    """Work in a fork, quietly, and end when the parent has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its forks
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        _work(work, items, tickets, done, parent)
    except BaseException:
        os._exit(1)
