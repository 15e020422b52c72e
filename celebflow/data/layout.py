"""Whether the folders of the data are people: other tools want other folders, and one person can have two."""

import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

from celebflow.errors import CelebflowError

_Place = tuple[str, ...]  # the folders that lead to a file, from a folder at the top on
# Characters that show nothing, and that folders hardly have on purpose.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
# Marks that people, keyboards and systems write in place of one another, or leave out: also the dots between the parts
# of names in Chinese and Japanese.
_SAME_MARKS = str.maketrans(
    dict.fromkeys("_.-\u2010\u2011\u2012\u2013\u2014\u2212·•‧∙⋅・", " ") | dict.fromkeys("‘’ʼ`´׳", "'")
)
# Marks on letters that keyboards of other languages lack, points that say how Hebrew and Arabic sound, and a stroke
# that only makes words longer. In other scripts, such marks are letters.
_LETTER_MARKS = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u0655\u0670]")
# Letters that are written without their strokes where a keyboard lacks them, and those that Arabic, Persian and Urdu
# write in place of one another.
_SAME_LETTERS = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
    | {"ى": "ي", "ی": "ي", "ک": "ك", "ة": "ه", "ہ": "ه", "ھ": "ه"}
)
# Letters of Cyrillic and Greek that look like those of Latin, perhaps in one case alone. Within a script, no two
# of them look like the same one.
_LOOKALIKES = str.maketrans(
    dict(zip("АВЕКМНОРСТУХІЈЅаеорсухіјѕ", "ABEKMHOPCTYXIJSaeopcyxijs", strict=True))
    | dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαικνορυ", "ABEZHIKMNOPTYXaikvopu", strict=True))
)
# Chinese, Japanese and Korean, in which a space between the parts of a name is a matter of style.
_SPACED_AT_WILL = re.compile(
    "(?<=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]) (?=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3])"
)
_FEW_LETTERS = 8  # shorter names can be another one without their spaces, such as Li Na and Lina
_PERCENT = re.compile("%[0-9A-Fa-f]{2}")  # as addresses of the web have it, and what is saved from there
# What systems in several languages add to the name of a copy, and clouds to those of downloads in parts and of
# conflicts, once the marks above are spaces and letters are apart from their marks.
_COPY = re.compile(
    r"\s+((copy|kopie|copie|copia|kopia|kopi|コヒ\u309aー|副本|копия)(\s+\d+|\s+\(\d+\))?|\(\d+\)"
    r"|\d{8}t\d{6}z\s+\d+(\s+\d+)?|\([^()]*(conflicted copy|selective sync conflict)[^()]*\))$"
)
_HASH_CODE = re.compile("#U([0-9a-f]{4})")  # as unzip writes letters that its terminal lacks
_ENCODINGS = ("cp1252", "latin-1", "cp437", "mac_roman")  # in which programs read names that are in UTF-8
_NUMBER = re.compile(r"0*([0-9]+)(\.0+)?")  # as tables and people write it
# What programs and people write where they know nothing.
_NOBODY = {"-", "--", "-1", "?", "n/a", "#n/a", "<na>", "nan", "nil", "nobody", "none", "null", "undefined", "unknown"}
# The same in words, once marks are spaces, perhaps with a number; and what holds photographs of anybody.
_NOBODY_IN_WORDS = re.compile(
    r"(unknown|unidentified|unnamed|unlabell?ed|unsorted|untagged|noname|no name|stranger|other|misc|miscellaneous)s?"
    r"( (people|persons?|faces?|ones?|photos?|photographs?|images?|pictures?))?( [0-9]+)?"
)
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing", "fold"}
# What tools add to the names of splits, such as train_images and Test Set.
_ADDED_WORDS = {"set", "data", "dataset", "images", "image", "imgs", "img", "photos", "pictures", "faces", "split"}
_ADDED_END = re.compile("(set|data|images?)$")
# Words of which the names of folders consist that hold copies, or whatever somebody or a program put there.
_CONTENT_WORDS = {
    *("face", "faces", "image", "images", "img", "imgs", "photo", "photos", "photographs", "pictures", "pics"),
    *("dataset", "original", "originals", "raw", "cropped", "crops", "aligned", "resized", "thumbnail"),
    *("thumbnails", "thumb", "thumbs", "preview", "previews", "new", "untitled", "folder", "trash", "deleted"),
    *("recycle", "recycled", "bin", "items", "backup", "backups", "temp", "tmp", "duplicates", "rejected"),
    *("screenshots", "downloads", "dcim", "whatsapp"),
    # The same as systems in other languages name it, what network drives make, and what programs for photographs do.
    *("papierkorb", "corbeille", "papelera", "de", "reciclaje", "cestino", "lixeira", "prullenbak", "papirkurv"),
    *("neuer", "ordner", "nouveau", "dossier", "nueva", "carpeta", "homes"),
    # What phones and exports of clouds make.
    *("camera", "roll", "recents", "favorites", "favourites", "archive", "failed", "videos"),
    *("my", "from", "von", "fotos"),
    *("lightroom", "classic", "cc", "catalog", "catalogs", "library", "iphoto", "photoslibrary", "capture", "one"),
}
# Which alone can be names.
_COMMON_WORDS = {
    *("new", "raw", "bin", "items", "de", "neuer", "nouveau", "nueva", "classic", "cc", "one"),
    *("roll", "my", "from", "von"),
}
# Folders by date, and those of cameras by the standard DCF.
_DATE_OR_CAMERA = re.compile(
    r"(19|20)\d\d[-_.](0[1-9]|1[0-2])[-_.]([0-2]\d|3[01])\b.*"
    r"|\d{3}(_pana|_fuji|andro|apple|canon|casio|gopro|media|msdcf|nikon|ncd\w\w|olymp|ricoh|samsu|_?dsc\w*)"
)


def check_layout(folder: Path, paths: Iterable[str]) -> None:
    """Raise CelebflowError when the files at these paths in `folder` are not in folders of people.

    That is so when all lie in `folder` itself, in the folders of splits, or in one folder that holds all people's.
    """
    folders = _list_folders(paths)
    if not folders:
        return
    if folders.keys() == {""}:
        raise CelebflowError(
            f"{folder} holds photographs, but no folder of a person. Move the photographs of each person into a folder "
            f"with the person's name, such as {folder}/Ada Brown."
        )
    tops = sorted(folders.keys() - {""})
    nested = all(() not in folders[top] for top in tops)
    listing = ", ".join(str(folder / top) for top in tops)
    if nested and len(tops) > 1 and all(map(_is_split, tops)):
        raise CelebflowError(
            f"{listing} are splits, not people. celebflow splits each person's photographs itself: move all "
            f"photographs of a person into one folder of {folder}, and choose sizes by prepare.val_fraction and "
            "prepare.test_fraction."
        )
    if nested and len(tops) == 1:
        wrapper, places = _unwrap(folders[tops[0]])
        if len(_list_inner(places)) > 1:
            raise CelebflowError(
                f"{folder} holds one folder, {Path(folder, tops[0], *wrapper)}. Move the folders of people in it up to "
                f"{folder}."
            )


def list_notes(paths: Iterable[str]) -> list[str]:
    """Return what may be wrong with the folders of people, for files at these paths, a sentence each."""
    folders = _list_folders(paths)
    notes = []
    if groups := _list_groups({top: places for top, places in folders.items() if not is_nobody(top)}):
        scope = "All" if len(groups) == len(folders) else "Many"
        notes.append(
            f"{scope} photographs are in folders of folders. Each of {', '.join(groups)} counts as one person, "
            "with all folders in it."
        )
    if splits := sorted(filter(_is_split, folders)):
        notes.append(
            f"By its name, a split of other tools counts as a person: {', '.join(splits)}. celebflow splits each "
            "person's photographs itself."
        )
    if unknown := sorted(top for top, places in folders.items() if is_nobody(top) and len(_list_inner(places)) > 1):
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
    if contents := sorted(top for top in folders if _is_content(top) and top not in splits):
        notes.append(
            f"By its name, this is likely no person, but it counts as one: {', '.join(contents)}. Move its photographs "
            "into the folders of their people, or remove it."
        )
    people = {top: places for top, places in folders.items() if top not in splits + contents and not is_nobody(top)}
    notes += [
        f"{place} counts as {top}, but has the name of {other}: if it shows {other}, move it up."
        for place, top, other in _list_misplaced(people)
    ]
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
        distinct = len({_write_as_latin(_INVISIBLE.sub("", name)) for name in group}) == len(group)
        joined.append(" and ".join(group if distinct else [f"{name} ({name!a})" for name in group]))
    return joined


def list_similar_names(names: Iterable[str]) -> list[Sequence[str]]:
    """Return the groups of names that differ only in writing.

    That is case, spaces, underscores, dots, dashes, the kind of apostrophe, Unicode form, marks on letters, what shows
    nothing, what systems add to copies, percent signs for characters, a last name before a comma, zeros around a
    number, letters of Cyrillic or Greek that look like those of Latin, and missing spaces.
    """
    keys_of = {name: _list_keys(name) for name in names}
    alike: dict[str, list[str]] = {}
    for name in sorted(keys_of):
        group = sorted({name}.union(*(alike.get(key, ()) for key in keys_of[name])))
        alike |= {key: group for each in group for key in keys_of[each]}
    groups = [(name, alike[keys_of[name][0]]) for name in sorted(keys_of)]
    return [group for name, group in groups if name == group[0] and len(group) > 1]


def find_similar_names(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return those of `names` that are likely a name in `known`, and which; its own, where that is known."""
    own = set(known)
    name_of: dict[str, str] = {}
    for name in sorted(own):
        name_of = dict.fromkeys(_list_keys(name), name) | name_of
    found = {
        name: name if name in own else next((name_of[key] for key in _list_keys(name) if key in name_of), None)
        for name in names
    }
    return {name: other for name, other in found.items() if other is not None}


def _list_keys(name: str) -> list[str]:
    """Return what a name has in common with those that are likely meant to be the same; one key in common suffices."""
    written = unicodedata.normalize("NFKC", _INVISIBLE.sub("", unquote(name) if _PERCENT.search(name) else name))
    # A capital within a word begins another one, as in AdaBrown.
    separate = "".join(
        f" {character}" if character.isupper() and before.islower() else character
        for before, character in zip(f" {written}", written, strict=False)
    )
    forms = [name, separate, _write_as_latin(written), _write_as_latin(separate), _repair(name)]
    keys = [*dict.fromkeys(map(_simplify, forms))]
    return [*dict.fromkeys([*keys, *map(_join_words, keys)])]


def _repair(name: str) -> str:
    """Return a name as it was before archives, downloads or a page of the web wrote it in their way."""
    plain = _HASH_CODE.sub(lambda code: chr(int(code[1], 16)), html.unescape(name))
    if " " not in plain:
        plain = plain.replace("+", " ")
    for encoding in _ENCODINGS:
        try:
            return plain.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
    return plain


def _write_as_latin(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).translate(_LOOKALIKES))


def _join_words(simplified: str) -> str:
    """Return a simplified name without spaces, where it is long enough to be the same name."""
    words = _SPACED_AT_WILL.sub("", simplified).split(" ")
    joined = "".join(words)
    alone = len(words) < 2 or len(joined) < _FEW_LETTERS or not joined.isalpha() or min(map(len, words)) < 2
    return " ".join(words) if alone else joined


def _simplify(name: str) -> str:
    """Return what names have in common that are likely meant to be the same."""
    plain = unquote(name) if _PERCENT.search(name) else name
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", plain)).casefold()
    if number := _NUMBER.fullmatch(text.strip()):
        return number[1]
    if text.count(",") == 1:  # as in lists that are sorted by last name
        last, _, first = text.partition(",")
        text = f"{first} {last}"
    letters = _LETTER_MARKS.sub("", unicodedata.normalize("NFD", text)).translate(_SAME_LETTERS)
    words = " ".join(letters.translate(_SAME_MARKS).split())
    # Of a name that consists of marks alone, nothing would be left.
    return unicodedata.normalize("NFKC", _COPY.sub("", words) or text)


def _is_split(name: str) -> bool:
    """Tell whether a folder's name is that of a split, perhaps with a number and what tools add."""
    words = [_ADDED_END.sub("", word) for word in re.findall("[^\\W\\d]+", _simplify(name)) if word not in _ADDED_WORDS]
    return bool(words) and _SPLIT_NAMES.issuperset(words)


def _is_content(name: str) -> bool:
    """Tell whether a folder's name says what it holds, instead of whom."""
    words = set(re.findall("[^\\W\\d]+", _simplify(name)))
    is_content = bool(words - _COMMON_WORDS) and words <= _CONTENT_WORDS
    return is_content or _DATE_OR_CAMERA.fullmatch(name.casefold()) is not None


def _list_groups(folders: Mapping[str, Set[_Place]]) -> list[str]:
    """Return the folders at the top that rather hold people than photographs of one, sorted.

    That is so where all photographs are in folders of folders, and of some, several are in one, or each is the first
    letter of those in it; or where several hold several each, and none of these the same as another does, as albums of
    people would be.
    """
    inner_of = {top: _list_inner(_unwrap(places)[1]) - {""} for top, places in folders.items()}
    several = sorted(top for top, inner in inner_of.items() if len(inner) > 1)
    if len(folders) > 1 and all(() not in places for places in folders.values()):
        names = [(top, name) for top, places in folders.items() for name in _list_inner(places)]
        by_letter = all(len(top) == 1 < len(name) and name.casefold().startswith(top.casefold()) for top, name in names)
        if several or by_letter:
            return sorted(folders)
    inner_names = [name for top in several for name in inner_of[top]]
    return several if len(several) > 1 and len(set(inner_names)) == len(inner_names) else []


def _list_misplaced(folders: Mapping[str, Set[_Place]]) -> list[tuple[str, str, str]]:
    """Return the folders in a person's that have the name of somebody else who has one, with both names, sorted."""
    within = {
        (top, *place[: depth + 1]) for top, places in folders.items() for place in places for depth in range(len(place))
    }
    other_of = find_similar_names({parts[-1] for parts in within}, folders.keys() - {""})
    found = ((parts, other_of.get(parts[-1])) for parts in sorted(within))
    return [
        ("/".join(parts), parts[0], other)
        for parts, other in found
        if other is not None and other != find_similar_names([parts[0]], [other]).get(parts[0])
    ]


def _list_folders(paths: Iterable[str]) -> dict[str, set[_Place]]:
    """Return for each folder at the top, or "" for none, the places in it that hold files; () for itself."""
    folders = defaultdict(set)
    for path in paths:
        top, *place = path.split("/")[:-1] or [""]
        folders[top].add(tuple(place))
    return folders


def _list_inner(places: Iterable[_Place]) -> set[str]:
    """Return the folders that lead to these places, and "" where one is the folder itself."""
    return {place[0] if place else "" for place in places}


def _unwrap(places: Set[_Place]) -> tuple[_Place, set[_Place]]:
    """Return the deepest place that holds all others, and these from there on.

    Archives are often unpacked into a folder of their name, in which there is another one.
    """
    first, last = min(places), max(places)
    depth = len([*takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))])
    return first[:depth], {place[depth:] for place in places}
