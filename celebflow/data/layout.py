"""Whether the folders of the data are people: other tools want other folders, and one person can have two."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from celebflow.errors import CelebflowError

# Characters that show nothing, and that folders hardly have on purpose.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
# Marks that people, keyboards and systems write in place of one another, or leave out.
_SAME_MARKS = str.maketrans(dict.fromkeys("_.-\u2010\u2011\u2012\u2013\u2014\u2212", " ") | dict.fromkeys("‘’ʼ`´", "'"))
# What systems add to the name of a copy, once the marks above are spaces.
_COPY = re.compile(r"\s+(copy(\s+\d+)?|\(\d+\)|copy\s+\(\d+\))$")
_NUMBER = re.compile(r"0*([0-9]+)(\.0+)?")  # as tables and people write it
# What programs and people write where they know nothing.
_NOBODY = {"-", "--", "?", "n/a", "#n/a", "<na>", "nan", "nil", "nobody", "none", "null", "undefined", "unknown"}
# The same in words, once marks are spaces, perhaps with a number; and what holds photographs of anybody.
_NOBODY_IN_WORDS = re.compile(
    r"(unknown|unidentified|unnamed|unlabell?ed|unsorted|untagged|noname|no name|stranger|other|misc|miscellaneous)s?"
    r"( (people|persons?|faces?|ones?|photos?|photographs?|images?|pictures?))?( [0-9]+)?"
)
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}


def check_layout(folder: Path, paths: Iterable[str]) -> None:
    """Raise CelebflowError when the files at these paths in `folder` are not in folders of people.

    That is so when all lie in `folder` itself, in the folders of splits, or in one folder that holds all people's.
    """
    folders = _list_subfolders(paths)
    if not folders:
        return
    if folders.keys() == {""}:
        raise CelebflowError(
            f"{folder} holds photographs, but no folder of a person. Move the photographs of each person into a folder "
            f"with the person's name, such as {folder}/Ada Brown."
        )
    tops = sorted(folders.keys() - {""})
    nested = all("" not in folders[top] for top in tops)
    listing = ", ".join(str(folder / top) for top in tops)
    if nested and len(tops) > 1 and {top.lower() for top in tops} <= _SPLIT_NAMES:
        raise CelebflowError(
            f"{listing} are splits, not people. celebflow splits each person's photographs itself: move all "
            f"photographs of a person into one folder of {folder}, and choose sizes by prepare.val_fraction and "
            "prepare.test_fraction."
        )
    if nested and len(tops) == 1 and len(folders[tops[0]]) > 1:
        raise CelebflowError(f"{folder} holds one folder, {listing}. Move the folders of people in it up to {folder}.")


def list_notes(paths: Iterable[str]) -> list[str]:
    """Return what may be wrong with the folders of people, for files at these paths, a sentence each."""
    folders = _list_subfolders(paths)
    notes = []
    if groups := _list_groups({top: inner for top, inner in folders.items() if not is_nobody(top)}):
        scope = "All" if len(groups) == len(folders) else "Many"
        notes.append(
            f"{scope} photographs are in folders of folders. Each of {', '.join(groups)} counts as one person, "
            "with all folders in it."
        )
    if splits := sorted(top for top in folders if top.lower() in _SPLIT_NAMES):
        notes.append(
            f"By its name, a split of other tools counts as a person: {', '.join(splits)}. celebflow splits each "
            "person's photographs itself."
        )
    if unknown := sorted(top for top, inner in folders.items() if is_nobody(top) and len(inner) > 1):
        notes.append(
            f"By its name, {unknown[0]} holds people who are not to be known, but it counts as one person. Set "
            f"prepare.unknown_folder to data/{unknown[0]}, or for the task verification, which knows nobody, move the "
            "folders in it up."
        )
    if nobody := sorted(top for top in folders if is_nobody(top) and top not in unknown):
        notes.append(
            f"By its name, this is likely no person, but it counts as one: {', '.join(nobody)}. If its photographs "
            f"show people who are not to be known, set prepare.unknown_folder to data/{nobody[0]}, or for the task "
            "verification, which knows nobody, give each of them a folder."
        )
    notes += [
        f"{names} are likely the same person: move the photographs into one folder."
        for names in join_similar_names(folders)
    ]
    return notes


def is_nobody(name: str) -> bool:
    """Tell whether a name likely says that nobody knows who it is, or that it is anybody."""
    return name.casefold() in _NOBODY or bool(_NOBODY_IN_WORDS.fullmatch(_simplify(name)))


def join_similar_names(names: Iterable[str]) -> list[str]:
    """Return the groups of list_similar_names, each as one text in which names that look the same differ."""
    joined = []
    for group in list_similar_names(names):
        distinct = len({unicodedata.normalize("NFC", _INVISIBLE.sub("", name)) for name in group}) == len(group)
        joined.append(" and ".join(group if distinct else [f"{name} ({name!a})" for name in group]))
    return joined


def list_similar_names(names: Iterable[str]) -> list[Sequence[str]]:
    """Return the groups of names that differ only in writing.

    That is case, spaces, underscores, dots, dashes, the kind of apostrophe, Unicode form, what shows nothing, what
    systems add to copies, and zeros around a number.
    """
    alike = defaultdict(list)
    for name in sorted(names):
        alike[_simplify(name)].append(name)
    return [group for group in alike.values() if len(group) > 1]


def find_similar_names(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return those of `names` that are likely a name in `known`, and which; its own, where that is known."""
    name_of: dict[str, str] = {}
    for name in sorted(known):
        name_of |= {_simplify(name): name_of.get(_simplify(name), name), name: name}
    found = {name: name_of.get(name) or name_of.get(_simplify(name)) for name in names}
    return {name: other for name, other in found.items() if other is not None}


def _simplify(name: str) -> str:
    """Return what names have in common that are likely meant to be the same."""
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", name)).casefold()
    if number := _NUMBER.fullmatch(text.strip()):
        return number[1]
    words = " ".join(text.translate(_SAME_MARKS).split())
    # Of a name that consists of marks alone, nothing would be left.
    return unicodedata.normalize("NFKC", _COPY.sub("", words) or text)


def _list_groups(folders: Mapping[str, set[str]]) -> list[str]:
    """Return the folders at the top that rather hold people than photographs of one, sorted.

    That is so where all photographs are in folders of folders, and of some, several are in one; or where several hold
    several each, and none of these the same as another does, as albums of people would be.
    """
    several = sorted(top for top, inner in folders.items() if len(inner - {""}) > 1)
    if len(folders) > 1 and several and all("" not in inner for inner in folders.values()):
        return sorted(folders)
    inner_names = [name for top in several for name in folders[top] - {""}]
    return several if len(several) > 1 and len(set(inner_names)) == len(inner_names) else []


def _list_subfolders(paths: Iterable[str]) -> dict[str, set[str]]:
    """Return for each folder at the top, or "" for none, the folders in it that hold files; "" for itself."""
    folders = defaultdict(set)
    for path in paths:
        top, *inner = path.split("/")[:-1] or [""]
        folders[top].add(inner[0] if inner else "")
    return folders
