"""Contact sheets show every photograph, with captions that neither overlap nor run out of the figure."""

import io
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from celebflow.data.duplicates import DuplicateGroup
from celebflow.data.photos import Photo
from celebflow.features.transform import Transform
from celebflow.params import FaceParams
from celebflow.report.contact_sheets import Tile, draw_contact_sheet, draw_duplicates
from celebflow.report.style import BLUE, ORANGE
from celebflow.report.thumbnails import load_thumbnail
from tests.results import find_overlaps

WARNING = "A warning that stands above everything else and that takes more than one line in a figure of this width."


def _tile(caption: str, width: int = 20, color: str = BLUE) -> Tile:
    return Tile(np.full((20, width, 3), 128, np.uint8), caption, color)


def _boxes(figure: Figure) -> np.ndarray:
    """Return left, right, top and bottom of each picture, in inches from the upper left corner."""
    boxes = [image.get_extent() for image in figure.axes[0].images]
    return np.array([(left, right, top, bottom) for left, right, bottom, top in boxes])


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_sheets_import_no_torch() -> None:
    code = "import celebflow.report.contact_sheets, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "Ada Brown\nnamed Björn Dahl, 97.1%",
        "Maria Wilhelmina Esperanza van Hohenzollern-Sigmaringen y de los Santos\nnamed Ann, 12.0%",
        "W" * 300,
        r"Ke$ha_^ and \frac A$AP_Rocky",
    ],
)
@pytest.mark.parametrize("count", [1, 3, 40])
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
    figure.savefig(io.BytesIO(), dpi=40)


def test_pictures_keep_their_shape_and_wrap_without_overlap() -> None:
    figure = draw_contact_sheet("Title", [("", [_tile("a", 20 + 10 * (n % 3)) for n in range(30)])], "")
    boxes = _boxes(figure)
    widths, heights = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    assert widths / heights == pytest.approx([(20 + 10 * (n % 3)) / 20 for n in range(30)])
    assert len(np.unique(boxes[:, 2])) > 1, "30 do not stand side by side"
    for one, other in pairwise(boxes):
        assert one[1] < other[0] or one[3] < other[2]


def test_captions_are_verbatim_and_frames_have_their_colors() -> None:
    figure = draw_contact_sheet("A_title $1$", [("Head", [_tile("Ann\n$5_a$"), _tile("Bo", color=ORANGE)])], "")
    assert _texts(figure) == ["A_title $1$", "Head", "Ann", "$5_a$", "Bo"]
    frames = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert [to_hex(frame.get_edgecolor()).upper() for frame in frames] == [BLUE, ORANGE]


def test_what_is_too_wide_keeps_its_beginning_and_its_end() -> None:
    shortened = _texts(draw_contact_sheet("T", [("", [_tile("Ann_Brown_at_the_seaside_with_her_dog_0017.jpg")])], ""))[
        1
    ]
    assert shortened.startswith("Ann_Brown") and shortened.endswith("_0017.jpg") and "…" in shortened


def test_a_sheet_without_rows_shows_its_title_and_warning() -> None:
    figure = draw_contact_sheet("No mistakes", [], WARNING)
    assert _texts(figure) == ["No mistakes"]
    assert figure.get_suptitle().replace("\n", " ") == WARNING
    assert find_overlaps(figure) == []


def test_thumbnail_is_the_center_square(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200, 100, 50
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    thumbnail = load_thumbnail(tmp_path / "wide.png")
    assert (thumbnail.shape, thumbnail.dtype) == ((160, 160, 3), np.uint8)
    assert np.abs(thumbnail[:, 20:-20].astype(int) - (200, 100, 50)).max() < 5


def test_thumbnail_shows_what_the_network_sees(tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[5:15, 5:15] = 200, 100, 50
    Image.fromarray(pixels).save(tmp_path / "square.png")
    center = FaceParams(crop="center", center_fraction=0.5, margin=0.0, align=False)
    thumbnail = load_thumbnail(tmp_path / "square.png", Transform(224, center))
    assert (thumbnail == (200, 100, 50)).all()


def _group(folder: Path, number: int, *people: str) -> DuplicateGroup:
    photos = [Photo(f"{person}/{number}_{n}.png", person, "train", "", str(number)) for n, person in enumerate(people)]
    for photo in photos:
        (folder / photo.person).mkdir(exist_ok=True)
        Image.new("RGB", (12, 12), (number, 0, 0)).save(folder / photo.path)
    return DuplicateGroup(tuple(photos), 0)


def test_groups_keep_their_order_and_likely_wrong_labels_have_a_color_of_their_own(tmp_path: Path) -> None:
    groups = [_group(tmp_path, 0, "Ann_B", "Ann_B", "Ann_B"), _group(tmp_path, 1, "Ann_B", "Cy")]
    figure = draw_duplicates(groups, tmp_path)
    title, rest, *texts = _texts(figure)
    assert f"{title} {rest}" == "2 groups of near-duplicates; 1 spans people: a label is likely wrong (in orange)"
    assert texts == [
        "3 of Ann B",
        *(f"0_{n}.png" for n in range(3)),
        "2 of Ann B and Cy",
        "Ann B",
        "1_0.png",
        "Cy",
        "1_1.png",
    ]
    colors = [to_hex(frame.get_edgecolor()).upper() for frame in figure.axes[0].patches]
    assert colors == [BLUE] * 3 + [ORANGE] * 2


def test_many_and_large_groups_are_cut_and_told(tmp_path: Path) -> None:
    groups = [_group(tmp_path, 0, *["Ann"] * 11), *(_group(tmp_path, n, "Bo", "Bo") for n in range(1, 43))]
    figure = draw_duplicates(groups, tmp_path)
    text = " ".join(_texts(figure))
    assert text.startswith("43 groups of near-duplicates. 3 groups are not shown: all stand in duplicates.csv")
    assert "11 of Ann (8 shown)" in text
    assert len(figure.axes[0].images) == 8 + 39 * 2
    assert find_overlaps(figure) == []


def test_no_duplicates_are_told(tmp_path: Path) -> None:
    assert _texts(draw_duplicates([], tmp_path)) == ["No near-duplicates"]
