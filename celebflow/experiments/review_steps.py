"""Moves of a review, each in the journal before it is done, so that a kill at any moment loses and doubles nothing."""

import os
from collections.abc import Callable
from pathlib import Path

from celebflow.experiments.review_journal import Journal, Step
from celebflow.experiments.review_moves import holds, list_free_places, move, remove_placeholder


class Steps:
    """The moves of photographs in a project; `follow` is told of each that is done."""

    def __init__(self, root: Path, journal: Journal, follow: Callable[[Step], None]) -> None:
        self._root = root
        self._journal = journal
        self._follow = follow

    def take(self, number: int, source: Path, folder: Path, name: str, back: bool) -> None:
        """Move a photograph to a free place in a folder; each step is in the journal before it is done."""
        for target in list_free_places(folder, name):
            step = Step(number, self._name(source), self._name(target), back)
            self._journal.begin(step)
            try:
                move(source, target)
            except FileExistsError:  # somebody has just made it
                self._journal.give_up()
                continue
            except BaseException:
                self.settle()
                raise
            self._finish(step)
            return

    def settle(self) -> None:
        """Find out how far an interrupted step got, by what is on the disk, and note that.

        A photograph is in one of two places at any moment, because the system renames it at once.
        """
        step = self._journal.unfinished
        if step is None:
            return
        source, target = self._root / step.source, self._root / step.target
        sha256 = self._journal.changes[step.number].suspect.sha256
        if holds(target, sha256) and not holds(source, sha256):
            self._finish(step)
        else:
            remove_placeholder(target)
            self._journal.give_up()

    def _finish(self, step: Step) -> None:
        self._journal.finish()
        self._follow(step)

    def _name(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._root)).as_posix()
