"""Moves of a review, each in the journal before it is done, so that a kill at any moment loses and doubles nothing."""

import os
from collections.abc import Callable
from pathlib import Path

from celebflow.errors import CelebflowError
from celebflow.experiments.review_journal import Journal, Step
from celebflow.experiments.review_moves import list_free_places, look_for, move, remove_placeholder


class Steps:
    """The moves of photographs in a project; `follow` is told of each that is done."""

    def __init__(self, root: Path, journal: Journal, follow: Callable[[Step], None]) -> None:
        self._root = root
        self._journal = journal
        self._follow = follow

    def take(self, number: int, source: Path, folder: Path, name: str, back: bool) -> None:
        """Move a photograph to a free place in a folder; each step is in the journal before it is done.

        Raises OSError and CelebflowError as move and settle do; the photograph is where the journal says then, too.
        """
        self.settle()  # a full disk may have kept the step before from being noted
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

        A photograph is in one of two places at any moment, because the system renames it at once. Raises CelebflowError
        when neither of them can be read, and OSError when the journal cannot be written; the step stays unfinished.
        """
        step = self._journal.unfinished
        if step is None:
            return
        source, target = self._root / step.source, self._root / step.target
        sha256 = self._journal.changes[step.number].suspect.sha256
        at_source, at_target = look_for(source, sha256), look_for(target, sha256)
        if at_source or at_target is False:
            remove_placeholder(target)
            self._journal.give_up()
        elif at_target or at_source is False:
            self._finish(step)
        else:
            raise CelebflowError(
                f"A move of {source} to {target} was interrupted, and neither of them can be read to see how far it "
                "got. Make both folders readable, then try again."
            )

    def _finish(self, step: Step) -> None:
        self._journal.finish()
        self._follow(step)

    def _name(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._root)).as_posix()
