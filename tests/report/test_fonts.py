"""Names in any script are drawn with fonts of the machine, and what is missing is said once."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from celebflow.report import fonts
from celebflow.report.figures import save_figures
from celebflow.report.fonts import choose_fonts
from celebflow.report.style import spell


@pytest.fixture(autouse=True)
def restore_fonts() -> Iterator[None]:
    """Leave matplotlib's fonts as they were."""
    with matplotlib.rc_context():
        yield


def _hide_fonts(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, str]) -> None:
    monkeypatch.setattr(fonts, "_list_fonts", lambda: iter(found))


def test_matplotlib_s_own_font_is_enough_for_latin_greek_cyrillic_arabic_and_hebrew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise AssertionError("no other font is needed")

    monkeypatch.setattr(fonts, "_list_fonts", refuse)
    assert choose_fonts(["Ada Brown", "Ngô Bảo Châu", "Ελένη", "Иван", "محمد", "דוד", spell("محمد_علي")]) == ""
    assert matplotlib.rcParams["font.family"] == ["DejaVu Sans"]


def test_fonts_that_have_missing_characters_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    characters = {"cjk.ttf": set("李小龍"), "thai.ttf": set("สมชาย"), "none.ttf": set("abc")}
    own = fonts._list_characters
    monkeypatch.setattr(fonts, "_list_characters", lambda file: characters.get(file) or own(file))
    _hide_fonts(monkeypatch, ("None", "none.ttf"), ("CJK", "cjk.ttf"), ("Thai", "thai.ttf"))
    assert choose_fonts(["Ann", "李 小龍"]) == ""
    assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "CJK"]
    hint = choose_fonts(["李 小龍", "ஆ"])
    assert "ஆ" in hint and "李" not in hint
    assert "apt-get install" in hint and "--single-item plot" in hint


def test_characters_without_a_font_raise_no_warning_for_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _hide_fonts(monkeypatch)
    assert "李" in choose_fonts(["李"])
    figure = Figure((1, 1))
    figure.text(0.5, 0.5, "李 小龍")
    save_figures({"name": figure}, 30, tmp_path)


def test_names_from_right_to_left_are_isolated_and_others_are_not() -> None:
    assert spell("דוד_כהן") == "\u2068דוד כהן\u2069"
    assert spell("Ada_Brown") == "Ada Brown"


def test_fonts_that_cannot_be_read_are_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "damaged.ttf").write_bytes(b"nothing")
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: [str(tmp_path / "damaged.ttf")])
    assert list(fonts._list_fonts())
    _hide_fonts(monkeypatch, ("Damaged", str(tmp_path / "damaged.ttf")), ("Gone", str(tmp_path / "gone.ttf")))
    assert "李" in choose_fonts(["李"])
