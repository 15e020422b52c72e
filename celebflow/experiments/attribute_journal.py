"""The journal of a review of attributes: what was decided and changed, a line each, on the disk before it is done."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from celebflow.evaluation.attribute_suspects import AttributeSuspect
from celebflow.experiments.review_log import DecisionLog

AttributeAction = Literal["keep", "flip", "blank", "skip"]


@dataclass(frozen=True)
class AttributeChange:
    """What was decided about a label: that it is right, that the other answer is, or that nobody can tell.

    `before` and `after` are the texts of its cell once it was changed; until then, `is_done` is false.
    """

    number: int
    action: AttributeAction
    suspect: AttributeSuspect
    before: str = ""
    after: str = ""
    is_done: bool = False


@dataclass(frozen=True)
class Edit:
    """A change of a cell that has begun, from one text to another; `number` is that of the decision."""

    number: int
    before: str
    after: str


class AttributeJournal(DecisionLog[AttributeChange]):
    """The file, and what follows from its lines.

    `unfinished` are edits that were begun at once, and neither finished nor given up; `is_back` tells whether they take
    decisions back.
    """

    def __init__(self, path: Path) -> None:
        """Read the lines as DecisionLog does."""
        self.unfinished: list[Edit] = []
        self.is_back = False
        super().__init__(path)

    def decide(self, action: AttributeAction, suspect: AttributeSuspect) -> AttributeChange:
        """Note a decision, and return it."""
        return self._note_decision({"action": action, "suspect": asdict(suspect)})

    def begin(self, edits: Sequence[Edit], *, is_back: bool) -> None:
        """Note edits before they are made, all at once."""
        self._append({"event": "begin", "edits": [asdict(each) for each in edits], "back": is_back})

    def finish(self, numbers: Collection[int]) -> None:
        """Note which of the unfinished edits are made; the others are not."""
        self._append({"event": "finish", "numbers": sorted(numbers)})

    def _read(self, event: dict[str, Any]) -> AttributeChange:
        change = AttributeChange(**{**event, "suspect": AttributeSuspect(**event["suspect"])})
        if change.action not in get_args(AttributeAction):
            raise ValueError(change.action)
        return change

    def _follow_step(self, kind: str, event: dict[str, Any]) -> None:
        match kind:
            case "begin":
                edits = [Edit(**each) for each in event["edits"]]
                for each in edits:
                    self.changes[each.number]  # or KeyError: no such change
                self.unfinished, self.is_back = edits, bool(event["back"])
            case "finish":
                self._finish(set(event["numbers"]))
            case other:
                raise ValueError(other)

    def _finish(self, numbers: set[int]) -> None:
        edits, self.unfinished = self.unfinished, []
        if not numbers <= {each.number for each in edits}:
            raise ValueError("nothing has begun")
        for edit in edits:
            if edit.number in numbers:
                change = self.changes[edit.number]
                done = replace(change, before=edit.before, after=edit.after, is_done=True)
                self._settle(edit.number, None if self.is_back else done)
