"""The record of a search: what its trials share, and what came of them, so that an interrupted search continues."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from celebflow import paths
from celebflow.errors import CelebflowError

# What Optuna proposes: for each param a number, or the position of a choice.
Proposal = dict[str, int | float]


@dataclass(frozen=True)
class RecordedTrial:
    """What Optuna proposed, and the metric, None when the experiment failed."""

    proposal: Proposal
    metric: float | None


@dataclass(frozen=True)
class RunningTrial:
    """A trial without a result: what Optuna proposed, and the name of its process, empty when it has ended."""

    proposal: Proposal
    process: str


@dataclass
class SearchRecord:
    """A search as .celebflow keeps it.

    `settings` are what all trials share, and what a continued search must have, too. `start_params` (informative and
    flat) and `start_commit` are where the search started.
    """

    file: Path
    settings: dict[str, object]
    start_params: dict[str, object]
    start_commit: str
    parent_run_id: str = ""
    trials: list[RecordedTrial] = field(default_factory=list)
    running: RunningTrial | None = None

    def save(self) -> None:
        """Write the file, whole or not at all."""
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps({**asdict(self), "file": None}, indent=2, allow_nan=False), encoding="utf-8")
        part.replace(self.file)


@contextmanager
def open_record(
    name: str, settings: Mapping[str, object], start_params: Mapping[str, object], start_commit: str
) -> Iterator[SearchRecord]:
    """Open the record of the search of this name, or a new one, and keep others from it.

    Raises CelebflowError when another process runs the search, when its trials have other settings, and when the file
    is damaged.
    """
    paths.searches().mkdir(parents=True, exist_ok=True)
    file = paths.searches() / f"{name}.json"
    try:
        with FileLock(file.with_suffix(".lock"), timeout=0):
            record = _load(file)
            if record is None or (record.settings != settings and not record.trials):
                record = SearchRecord(file, dict(settings), dict(start_params), start_commit)
            _require_settings(name, record.settings, settings)
            yield record
    except Timeout:
        raise CelebflowError(f"The search {name} is running. Wait until it ends, or choose another --name.") from None


def _load(file: Path) -> SearchRecord | None:
    """Read what save wrote; return None when there is no file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        content["trials"] = [RecordedTrial(**trial) for trial in content["trials"]]
        content["running"] = content["running"] and RunningTrial(**content["running"])
        record = SearchRecord(**{**content, "file": file})
        if not isinstance(record.settings, dict) or not isinstance(record.start_params, dict):
            raise TypeError("its settings are not a table")
        for trial in record.trials:
            if not isinstance(trial.metric, int | float | None):
                raise TypeError(f"a metric is {trial.metric!r}")
        return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CelebflowError(
            f"{file}, by which the search continues, cannot be read ({error}). Choose another --name."
        ) from None


def _require_settings(name: str, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    differences = []
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            differences.append(f"  {key}: {before.get(key, 'not set')}, now {now.get(key, 'not set')}")
    if differences:
        lines = "\n".join(differences)
        raise CelebflowError(
            f"The search {name} has trials with other settings:\n{lines}\n"
            "Restore these to continue it, or choose another --name."
        )
