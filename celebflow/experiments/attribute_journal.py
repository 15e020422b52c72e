"""The journal of a review of attributes: what was decided and changed, a line each, on the disk before it is done."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from celebflow.evaluation.attribute_suspects import AttributeSuspect
from celebflow.experiments.review_log import Log

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


class AttributeJournal(Log):
    """The file, and what follows from its lines.

    `changes` are the decisions that hold, by number and the first to the last. `unfinished` are edits that were begun
    at once, and neither finished nor given up; `is_back` tells whether they take decisions back. `untold` are the
    changes since somebody was last told what to run.
    """

    def __init__(self, path: Path) -> None:
        """Read the lines; raise CelebflowError when the file is damaged, but for a last line that a kill cut short."""
        self.changes: dict[int, AttributeChange] = {}
        self.unfinished: list[Edit] = []
        self.is_back = False
        self.untold: dict[int, AttributeAction] = {}
        self._last = 0
        super().__init__(path)

    def decide(self, action: AttributeAction, suspect: AttributeSuspect) -> AttributeChange:
        """Note a decision, and return it."""
        number = self._last + 1
        self._append({"event": "decide", "number": number, "action": action, "suspect": asdict(suspect)})
        return self.changes[number]

    def take_back(self, number: int) -> None:
        """Note that a decision no longer holds, of which nothing was changed."""
        self._append({"event": "take_back", "number": number})

    def begin(self, edits: Sequence[Edit], *, is_back: bool) -> None:
        """Note edits before they are made, all at once."""
        self._append({"event": "begin", "edits": [asdict(each) for each in edits], "back": is_back})

    def finish(self, numbers: Collection[int]) -> None:
        """Note which of the unfinished edits are made; the others are not."""
        self._append({"event": "finish", "numbers": sorted(numbers)})

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
                change = AttributeChange(**{**event, "suspect": AttributeSuspect(**event["suspect"])})
                if change.action not in get_args(AttributeAction):
                    raise ValueError(change.action)
                self.changes[change.number] = change
                self._last = max(self._last, change.number)
                self._note_untold(change, change.action == "keep")
            case "take_back":
                change = self.changes.pop(event["number"])
                self._note_untold(change, change.action == "keep")
            case "begin":
                edits = [Edit(**each) for each in event["edits"]]
                for each in edits:
                    self.changes[each.number]  # or KeyError: no such change
                self.unfinished, self.is_back = edits, bool(event["back"])
            case "finish":
                self._finish(set(event["numbers"]))
            case "tell":
                self.untold = {}
            case other:
                raise ValueError(other)

    def _finish(self, numbers: set[int]) -> None:
        edits, self.unfinished = self.unfinished, []
        if not numbers <= {each.number for each in edits}:
            raise ValueError("nothing has begun")
        for edit in edits:
            if edit.number not in numbers:
                continue
            change = self.changes[edit.number]
            self._note_untold(change, True)
            if self.is_back:
                del self.changes[edit.number]
            else:
                self.changes[edit.number] = replace(change, before=edit.before, after=edit.after, is_done=True)

    def _note_untold(self, change: AttributeChange, counts: bool) -> None:
        """Note that a change was made, or that it was undone before somebody was told of it."""
        if counts and self.untold.pop(change.number, None) is None:
            self.untold[change.number] = change.action
