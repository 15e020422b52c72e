"""What changed in the photographs, and the tables beside them, since a commit, for the name of a run."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from celebflow import paths
from celebflow.data.given_tables import TABLES
from celebflow.tracking.git import run_git


@dataclass(frozen=True)
class _Record:
    """What data.dvc says of the photographs: their md5 in DVC's cache, and their number."""

    md5: str
    count: int


def describe_data_change(commit: str, *, folders_are_people: bool = True) -> str:
    """Return what changed in the photographs since a commit, such as "data changed (+15 photographs, +1 person)".

    Tables such as attributes.csv are named. `folders_are_people` tells whether people are counted.

    Returns an empty string when nothing did, or when nothing is recorded. Without DVC's lists of the photographs, only
    the difference of the numbers of files is known.
    """
    before = _parse_record(run_git("show", f"{commit}:./{paths.DATA_RECORD}"))
    after = _read_record()
    if before is None or after is None or before.md5 == after.md5:
        return ""
    changes = _list_changes(before.md5, after.md5, folders_are_people)
    if changes is None:
        changes = [_count(after.count - before.count, "photograph", "photographs")]
    return _join_changes(changes)


def describe_data_difference(before_md5: str, after_md5: str, *, folders_are_people: bool = True) -> str:
    """Return what changed from the photographs with one md5 in DVC's cache to those with another, likewise.

    Returns an empty string when nothing did, or when one of them is not known and empty.
    """
    if not before_md5 or not after_md5 or before_md5 == after_md5:
        return ""
    return _join_changes(_list_changes(before_md5, after_md5, folders_are_people) or [])


def _join_changes(changes: Sequence[str]) -> str:
    listing = ", ".join(filter(None, changes))
    return f"data changed ({listing})" if listing else "data changed"


def _list_changes(before_md5: str, after_md5: str, folders_are_people: bool) -> list[str] | None:
    """Return the changes from the photographs with one md5 to those with another; None without DVC's lists of them."""
    cache = _find_cache()
    old, new = _list_files(cache, before_md5), _list_files(cache, after_md5)
    if old is None or new is None:
        return None
    changed_tables = [_describe_table(name, old.pop(name, ""), new.pop(name, "")) for name in TABLES]
    changes = [
        _count(len(new.keys() - old), "photograph", "photographs"),
        _count(-len(old.keys() - new), "photograph", "photographs"),
    ]
    replaced = sum(new[path] != md5 for path, md5 in old.items() if path in new)
    changes.append(f"{replaced} replaced" if replaced else "")
    if folders_are_people:
        people = [{path.partition("/")[0] for path in each if "/" in path} for each in (old, new)]
        changes.append(_count(len(people[1] - people[0]), "person", "people"))
        changes.append(_count(-len(people[0] - people[1]), "person", "people"))
    return changes + changed_tables


def read_data_md5() -> str:
    """Return the md5 of the photographs that data.dvc records, or an empty string when it does not record any."""
    record = _read_record()
    return "" if record is None else record.md5


def _read_record() -> _Record | None:
    return _parse_record(paths.DATA_RECORD.read_text(errors="replace") if paths.DATA_RECORD.exists() else "")


def _count(number: int, one: str, many: str) -> str:
    return f"{number:+} {one if abs(number) == 1 else many}" if number else ""


def _describe_table(name: str, before: str, after: str) -> str:
    """Return what happened to a table with these md5s, empty where there is none."""
    if before == after:
        return ""
    return f"+{name}" if not before else f"-{name}" if not after else f"other {name}"


def _parse_record(text: str) -> _Record | None:
    try:
        out = YAML(typ="safe", pure=True).load(text)["outs"][0]
        return _Record(str(out["md5"]), int(out.get("nfiles", 0)))
    except (YAMLError, TypeError, KeyError, IndexError, ValueError, AttributeError):
        return None


def _find_cache() -> Path:
    """Ask DVC for the folder of its cache; only it knows every place where this can be configured."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    result = subprocess.run(command, cwd=paths.project(), capture_output=True, text=True)  # noqa: S603
    return Path(result.stdout.strip() or ".dvc/cache")


def _list_files(cache: Path, md5: str) -> dict[str, str] | None:
    """Return the md5 of each file in a folder that DVC records, or None when the cache lacks the list."""
    try:
        entries = json.loads((cache / "files" / "md5" / md5[:2] / md5[2:]).read_text(encoding="utf-8"))
        return {entry["relpath"]: entry["md5"] for entry in entries}
    except (OSError, ValueError, TypeError, KeyError):
        return None
