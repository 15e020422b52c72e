"""The journal of a review: what was decided and moved, a line each, on the disk before anything is done."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from celebflow.evaluation.suspects import Suspect
from celebflow.experiments.review_log import Log

Action = Literal["keep", "move", "delete", "skip"]


@dataclass(frozen=True)
class Change:
    """What was decided about a suspect: that its label is right, or that it moves to the folder of `to`, or away.

    A suspect that is skipped is asked about again the next time, so that the journal need not know of it. `place` is
    where the photograph is since then, relative to the project; it is empty until it is moved.
    """

    number: int
    action: Action
    suspect: Suspect
    to: str = ""
    place: str = ""


@dataclass(frozen=True)
class Step:
    """A move of a photograph that has begun: of one that changes places, or, `back`, of one that returns.

    Paths are relative to the project.
    """

    number: int
    source: str
    target: str
    back: bool


class Journal(Log):
    """The file, and what follows from its lines.

    `changes` are the decisions that hold, by number and the first to the last. `unfinished` is a step that was neither
    finished nor given up, because the process was killed. `untold` are the changes since somebody was last told what to
    run.
    """

    def __init__(self, path: Path) -> None:
        """Read the lines; raise CelebflowError when the file is damaged, but for a last line that a kill cut short."""
        self.changes: dict[int, Change] = {}
        self.unfinished: Step | None = None
        self.untold: dict[int, Action] = {}
        self._last = 0
        super().__init__(path)

    def decide(self, action: Action, suspect: Suspect, to: str = "") -> Change:
        """Note a decision, and return it."""
        number = self._last + 1
        self._append({"event": "decide", "number": number, "action": action, "suspect": asdict(suspect), "to": to})
        return self.changes[number]

    def take_back(self, number: int) -> None:
        """Note that a decision no longer holds, of which nothing was moved."""
        self._append({"event": "take_back", "number": number})

    def begin(self, step: Step) -> None:
        """Note a step before it is done."""
        self._append({"event": "begin", **asdict(step)})

    def finish(self) -> None:
        """Note that the unfinished step is done."""
        self._append({"event": "finish"})

    def give_up(self) -> None:
        """Note that the unfinished step is not done."""
        self._append({"event": "give_up"})

    def tell(self) -> None:
        """Note that somebody was told what to run after the changes until now."""
        self._append({"event": "tell"})

    def take_number(self) -> int:
        """Return a number for what is in the order of the changes, but is not to be remembered."""
        self._last += 1
        return self._last

    def _follow(self, event: dict[str, Any]) -> None:
        match event.pop("event"):
            case "decide":
                change = Change(**{**event, "suspect": Suspect(**event["suspect"])})
                if change.action not in get_args(Action):
                    raise ValueError(change.action)
                self.changes[change.number] = change
                self._last = max(self._last, change.number)
                self._note_untold(change, change.action == "keep")
            case "take_back":
                change = self.changes.pop(event["number"])
                self._note_untold(change, change.action == "keep")
            case "begin":
                self.unfinished = Step(**event)
                self.changes[self.unfinished.number]  # or KeyError: no such change
            case "finish":
                self._finish()
            case "give_up":
                self.unfinished = None
            case "tell":
                self.untold = {}
            case other:
                raise ValueError(other)

    def _finish(self) -> None:
        step, self.unfinished = self.unfinished, None
        if step is None:
            raise ValueError("nothing has begun")
        change = self.changes[step.number]
        self._note_untold(change, True)
        if step.back:
            del self.changes[step.number]
        else:
            self.changes[step.number] = replace(change, place=step.target)

    def _note_untold(self, change: Change, counts: bool) -> None:
        """Note that a change was made, or that it was undone before somebody was told of it."""
        if counts and self.untold.pop(change.number, None) is None:
            self.untold[change.number] = change.action
