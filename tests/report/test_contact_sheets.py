"""Contact sheets show every photograph, with captions that neither overlap nor leave the figure."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from celebflow.data.duplicates import DuplicateGroup
from celebflow.data.photos import Photo
from celebflow.report.contact_sheets import Tile, draw_contact_sheet, draw_duplicates
from celebflow.report.style import BLUE, ORANGE
from tests.images import hash_photos
from tests.results import find_overlaps

WARNING = "A warning that stands above everything else and that takes more than one line in a figure of this width."


def _tile(caption: str, width: int = 20, color: str = BLUE) -> Tile:
    return Tile(np.full((20, width, 3), 128, np.uint8), caption, color)


def _boxes(figure: Figure) -> NDArray[np.float64]:
    """Return left, right, top and bottom of each picture, in inches from the upper left corner."""
    boxes = [image.get_extent() for image in figure.axes[0].images]
    return np.array([(left, right, top, bottom) for left, right, bottom, top in boxes])


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.slow
def test_sheets_import_no_torch() -> None:
    code = "import celebflow.report.contact_sheets, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "caption",
    [
        "",
        "Ada Brown\npredicted: Björn Dahl, 97.1%",
        "Maria Wilhelmina Esperanza van Hohenzollern-Sigmaringen y de los Santos\npredicted: Ann, 12.0%",
        "W" * 300,
        r"Ke$ha_^ and \frac A$AP_Rocky",
    ],
)
@pytest.mark.parametrize("count", [1, 3, 14])
def test_captions_and_headings_do_not_overlap(caption: str, count: int) -> None:
    tiles = [_tile(caption) for _ in range(count)]
    wide = [_tile(caption, 40) for _ in range(count)]
    rows = [(caption, tiles), ("", wide), (f"A heading {caption}", tiles[:1]), (caption, []), (caption, wide[:2])]
    figure = draw_contact_sheet(f"A title {caption}", rows, WARNING)
    assert len(figure.axes[0].images) == 2 * count + 1 + min(count, 2)
    assert find_overlaps(figure) == []
    boxes = _boxes(figure)
    width, height = figure.get_size_inches()
    assert boxes[:, :2].min() >= 0 and boxes[:, 1].max() <= width and boxes[:, 3].max() <= height


def test_pictures_keep_their_aspect_ratio_and_wrap_without_overlap() -> None:
    figure = draw_contact_sheet("Title", [("", [_tile("a", 20 + 10 * (n % 3)) for n in range(30)])], "")
    boxes = _boxes(figure)
    widths, heights = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    assert widths / heights == pytest.approx([(20 + 10 * (n % 3)) / 20 for n in range(30)])
    assert len(np.unique(boxes[:, 2])) > 1, "30 tiles take more than one line"
    for one, other in pairwise(boxes):
        assert one[1] < other[0] or one[3] < other[2]


def test_captions_are_verbatim_and_frames_have_their_colors() -> None:
    figure = draw_contact_sheet("A_title $1$", [("Head", [_tile("Ann\n$5_a$"), _tile("Bo", color=ORANGE)])], "")
    assert _texts(figure) == ["A_title $1$", "Head", "Ann", "$5_a$", "Bo"]
    frames = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert [to_hex(frame.get_edgecolor()).upper() for frame in frames] == [BLUE, ORANGE]


def test_caption_that_is_too_wide_keeps_its_beginning_and_end() -> None:
    caption = "Ann_Brown_at_the_seaside_with_her_dog_0017.jpg"
    _, shortened = _texts(draw_contact_sheet("T", [("", [_tile(caption)])], ""))
    assert shortened.startswith("Ann_Brown") and shortened.endswith("_0017.jpg") and "…" in shortened


def test_a_sheet_without_rows_shows_its_title_and_warning() -> None:
    figure = draw_contact_sheet("No errors", [], WARNING)
    assert _texts(figure) == ["No errors"]
    assert figure.get_suptitle().replace("\n", " ") == WARNING
    assert find_overlaps(figure) == []


def _group(folder: Path, number: int, *people: str) -> DuplicateGroup:
    photos = [Photo(f"{person}/{number}_{n}.png", person, "train", "", str(number)) for n, person in enumerate(people)]
    for photo in photos:
        (folder / photo.person).mkdir(exist_ok=True)
        Image.new("RGB", (12, 12), (number, 0, 0)).save(folder / photo.path)
    return DuplicateGroup(tuple(hash_photos(photos, folder)))


def test_groups_keep_their_order_and_those_with_several_people_are_orange(tmp_path: Path) -> None:
    groups = [_group(tmp_path, 0, "Ann_B", "Ann_B", "Ann_B"), _group(tmp_path, 1, "Ann_B", "Cy")]
    figure = draw_duplicates(groups, tmp_path)
    text = " ".join(_texts(figure))
    assert text.startswith("2 groups of near-duplicates")
    assert "Orange: 1 with several people" in text
    assert text.endswith("Ann B: 3 0_0.png 0_1.png 0_2.png Ann B and Cy: 2 Ann B 1_0.png Cy 1_1.png")
    colors = [to_hex(frame.get_edgecolor()).upper() for frame in figure.axes[0].patches]
    assert colors == [BLUE] * 3 + [ORANGE] * 2


@pytest.mark.slow
def test_many_and_large_groups_are_cut_and_counted(tmp_path: Path) -> None:
    groups = [_group(tmp_path, 0, *["Ann"] * 11), *(_group(tmp_path, n, "Bo", "Bo") for n in range(1, 43))]
    figure = draw_duplicates(groups, tmp_path)
    text = " ".join(_texts(figure))
    assert text.startswith("43 groups of near-duplicates. The first 40; duplicates.csv lists all")
    assert "Ann: 11, 8 of them shown" in text
    assert len(figure.axes[0].images) == 8 + 39 * 2
    assert find_overlaps(figure) == []


def test_many_large_groups_stay_on_one_sheet(tmp_path: Path) -> None:
    figure = draw_duplicates([_group(tmp_path, number, *["Ann"] * 8) for number in range(20)], tmp_path)
    assert "20 groups of near-duplicates. The first 12; duplicates.csv lists all" in " ".join(_texts(figure))
    assert max(figure.get_size_inches()) <= 27, "about 4,000 pixels in the default resolution"


def test_names_that_are_not_utf_8_are_drawn_escaped(tmp_path: Path) -> None:
    figure = draw_contact_sheet("A\udce9", [("B\udce9", [_tile("x\udce9.jpg")])], "")
    figure.savefig(tmp_path / "sheet.png")
    assert _texts(figure) == ["A\\udce9", "B\\udce9", "x\\udce9.jpg"]
