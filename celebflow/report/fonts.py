"""Fonts for names in any script: matplotlib's own, and what else the machine has that holds the missing characters."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import matplotlib
from matplotlib.font_manager import findfont, findSystemFonts, fontManager, get_font

_FAMILY = "DejaVu Sans"  # comes with matplotlib
_UNREADABLE = (OSError, RuntimeError, NotImplementedError)  # what matplotlib raises for fonts, such as colored ones
_UNUSABLE = ("Last Resort", "cm", "STIX")  # boxes, and fonts for formulas


def choose_fonts(texts: Iterable[str]) -> str:
    """Let matplotlib draw these texts with fonts of the machine, as far as it has any for them.

    Returns which characters no font has, and what to install, as a sentence; "" when none is missing.
    """
    missing = {character for text in texts for character in text if character.isprintable() and character != " "}
    missing -= _list_characters(findfont(_FAMILY))
    families = [_FAMILY]
    if missing:
        for family, file in _list_fonts():
            if covered := missing & _list_characters(file):
                families.append(family)
                missing -= covered
            if not missing:
                break
    matplotlib.rcParams["font.family"] = families
    if not missing:
        return ""
    shown = " ".join(sorted(missing)[:20])
    return (
        f"No font here has these characters of names, so that figures show boxes: {shown}. Install one, such as Noto "
        "(Debian: sudo apt-get install fonts-noto-core fonts-noto-cjk), and run "
        "`dvc repro --force --single-item plot`."
    )


def _list_fonts() -> Iterator[tuple[str, str]]:
    """Yield the family and the file of each upright regular font, those without serifs first."""
    known = {font.fname for font in fontManager.ttflist}
    for file in findSystemFonts():  # matplotlib's list does not have what was installed since it was made
        if file not in known:
            with suppress(*_UNREADABLE):
                fontManager.addfont(file)
    fonts = [
        font for font in fontManager.ttflist if (font.style, font.weight) in (("normal", 400), ("normal", "normal"))
    ]
    for font in sorted(fonts, key=lambda font: ("Sans" not in font.name, font.name)):
        if not font.name.startswith(_UNUSABLE):
            yield font.name, font.fname


def _list_characters(file: str) -> set[str]:
    try:
        return {chr(code) for code in get_font(file).get_charmap()}
    except _UNREADABLE:  # damaged, or no longer there
        return set()


@contextmanager
def ignore_missing_glyphs() -> Iterator[None]:
    """Keep matplotlib from warning of every character without a font: choose_fonts says it once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        yield
