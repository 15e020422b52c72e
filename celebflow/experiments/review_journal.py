"""The journal of a review: what was decided and moved, a line each, on the disk before anything is done."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from celebflow.evaluation.suspects import Suspect
from celebflow.experiments.review_log import DecisionLog

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


class Journal(DecisionLog[Change]):
    """The file, and what follows from its lines.

    `unfinished` is a step that was neither finished nor given up, because the process was killed.
    """

    def __init__(self, path: Path) -> None:
        """Read the lines as DecisionLog does."""
        self.unfinished: Step | None = None
        super().__init__(path)

    def decide(self, action: Action, suspect: Suspect, to: str = "") -> Change:
        """Note a decision, and return it."""
        return self._note_decision({"action": action, "suspect": asdict(suspect), "to": to})

    def begin(self, step: Step) -> None:
        """Note a step before it is done."""
        self._append({"event": "begin", **asdict(step)})

    def finish(self) -> None:
        """Note that the unfinished step is done."""
        self._append({"event": "finish"})

    def give_up(self) -> None:
        """Note that the unfinished step is not done."""
        self._append({"event": "give_up"})

    def _read(self, event: dict[str, Any]) -> Change:
        change = Change(**{**event, "suspect": Suspect(**event["suspect"])})
        if change.action not in get_args(Action):
            raise ValueError(change.action)
        return change

    def _follow_step(self, kind: str, event: dict[str, Any]) -> None:
        match kind:
            case "begin":
                self.unfinished = Step(**event)
                self.changes[self.unfinished.number]  # or KeyError: no such change
            case "finish":
                self._finish()
            case "give_up":
                self.unfinished = None
            case other:
                raise ValueError(other)

    def _finish(self) -> None:
        step, self.unfinished = self.unfinished, None
        if step is None:
            raise ValueError("nothing has begun")
        self._settle(step.number, None if step.back else replace(self.changes[step.number], place=step.target))
