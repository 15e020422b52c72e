"""Sheets of small photographs with captions; imports no torch, because stage prepare draws duplicates."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from celebflow.data.duplicates import DuplicateGroup
from celebflow.errors import to_encodable
from celebflow.report.fonts import ignore_missing_glyphs
from celebflow.report.style import BLUE, ORANGE, WARNING_SIZE, spell, wrap_warning, write_warning
from celebflow.report.thumbnails import load_thumbnail

# In inches.
_MAX_LINE_WIDTH = 13.0
_MIN_LINE_WIDTH = 5.5
_TILE_HEIGHT = 1.15
_TILE_GAP = 0.14
_ROW_GAP = 0.32
_MARGIN = 0.2
_POINT = 1 / 72

_MAX_GROUPS = 40
_MAX_PHOTOS_PER_GROUP = 8
_MAX_PHOTOS = 100  # in all groups: a group of eight takes a line of its own


@dataclass(frozen=True)
class Tile:
    """A picture (H, W, 3), its caption, which may have several lines, and the color of its frame."""

    image: NDArray[np.uint8]
    caption: str
    color: str

    @property
    def width(self) -> float:
        """Return the width in inches, for the height that all tiles share."""
        height, width, _ = self.image.shape
        return min(_TILE_HEIGHT * float(width / height), _MAX_LINE_WIDTH)

    def draw(self, axes: Axes, x: float, y: float) -> None:
        """Draw the picture in its frame, without the caption."""
        axes.imshow(self.image, extent=(x, x + self.width, y + _TILE_HEIGHT, y), aspect="auto")
        axes.add_patch(Rectangle((x, y), self.width, _TILE_HEIGHT, fill=False, edgecolor=self.color, linewidth=2))


def draw_contact_sheet(title: str, rows: Sequence[tuple[str, Sequence[Tile]]], warning: str) -> Figure:
    """Draw rows of tiles, each below its heading, which may be empty.

    A long row continues below; short rows share a line. Texts are drawn verbatim, without mathematical notation.
    """
    blocks = [_arrange(heading, tiles) for heading, tiles in rows]
    corners, width, height = _flow([block.size for block in blocks], _ROW_GAP)
    width = max(width, _MIN_LINE_WIDTH)
    titles = _Lines.wrap(title, width, _TITLE, 3)
    warning_lines = wrap_warning(warning, width + 2 * _MARGIN)
    top = _MARGIN + len(warning_lines) * _WARNING.line_height
    total = top + titles.height + _TILE_GAP + height + _MARGIN
    figure = Figure(figsize=(width + 2 * _MARGIN, total))
    write_warning(figure, warning_lines, 1 - _MARGIN / 2 / total)
    # One inch of the figure is one unit of these axes, from the upper left corner.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width + 2 * _MARGIN), ylim=(total, 0), autoscale_on=False)
    axes.set_axis_off()
    titles.draw(axes, _MARGIN, top)
    for block, (x, y) in zip(blocks, corners, strict=True):
        for part, left, below in block.parts:
            part.draw(axes, _MARGIN + x + left, top + titles.height + _TILE_GAP + y + below)
    return figure


def draw_duplicates(groups: Sequence[DuplicateGroup], folder: Path) -> Figure:
    """Draw the first groups of near-duplicates among the photographs in `folder`."""
    mixed = sum(len(group.people) > 1 for group in groups)
    title = f"{len(groups)} groups of near-duplicates"
    if mixed:
        title += f". Orange: {mixed} with several people, so a label is likely wrong"
    rows: list[tuple[str, list[Tile]]] = []
    photo_count = 0
    for group in groups[:_MAX_GROUPS]:
        photo_count += min(len(group.photos), _MAX_PHOTOS_PER_GROUP)
        if photo_count > _MAX_PHOTOS:
            break
        rows.append(_show_group(group, folder))
    if len(rows) < len(groups):
        title += f". The first {len(rows)}; duplicates.csv lists all"
    return draw_contact_sheet(title, rows, "")


def _show_group(group: DuplicateGroup, folder: Path) -> tuple[str, list[Tile]]:
    mixed = len(group.people) > 1
    shown = group.photos[:_MAX_PHOTOS_PER_GROUP]
    known = [spell(person) for person in group.people if person]  # of attributes, nobody may be known
    heading = f"{' and '.join(known) or 'Photographs'}: {len(group.photos)}"
    if len(shown) < len(group.photos):
        heading += f", {len(shown)} of them shown"
    tiles = []
    for photo in shown:
        file = photo.path.removeprefix(f"{photo.person}/")
        caption = f"{spell(photo.person)}\n{file}" if mixed else file
        tiles.append(Tile(load_thumbnail(folder / photo.path, photo.sha256), caption, ORANGE if mixed else BLUE))
    return heading, tiles


@dataclass(frozen=True)
class TextStyle:
    """How a text is written."""

    size: float  # points
    weight: str = "normal"

    @property
    def line_height(self) -> float:
        """Return the distance of two lines in inches."""
        return 1.3 * self.size * _POINT

    @lru_cache(10_000)  # noqa: B019 - the few styles live as long as the process
    def measure(self, text: str) -> float:
        """Return the width of a text in inches."""
        font = FontProperties(size=self.size, weight=self.weight)
        with ignore_missing_glyphs():
            width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
        return width * _POINT


_TITLE, _HEADING, _CAPTION = TextStyle(11, "bold"), TextStyle(8.5, "bold"), TextStyle(7)
_WARNING = TextStyle(WARNING_SIZE)


@dataclass(frozen=True)
class _Lines:
    lines: list[str]
    style: TextStyle

    @classmethod
    def wrap(cls, text: str, width: float, style: TextStyle, max_lines: int) -> "_Lines":
        """Break a text into at most `max_lines` lines, and shorten those that are still too wide."""
        lines: list[str] = []
        for paragraph in to_encodable(text).split("\n") if text else []:
            line = ""
            for word in paragraph.split():
                longer = f"{line} {word}".lstrip()
                if line and style.measure(longer) > width:
                    lines.append(line)
                    longer = word
                line = longer
            lines.append(line)
        if len(lines) > max_lines:
            lines[max_lines - 1 :] = [" ".join(lines[max_lines - 1 :])]
        return cls([shorten(line, width, style) for line in lines], style)

    @property
    def height(self) -> float:
        return len(self.lines) * self.style.line_height

    def draw(self, axes: Axes, x: float, y: float) -> None:
        for number, line in enumerate(self.lines):
            baseline = y + (number + 0.78) * self.style.line_height
            font = {"fontsize": self.style.size, "fontweight": self.style.weight}
            axes.text(x, baseline, line, font, parse_math=False)


def shorten(line: str, width: float, style: TextStyle) -> str:
    """Shorten a line that is wider than `width` in inches in its middle.

    Names differ at the beginning, file names at the end.
    """
    if style.measure(line) <= width:
        return line

    def keep(kept: int) -> str:
        return f"{line[: (kept + 1) // 2]}…{line[len(line) - kept // 2 :]}"

    too_many = bisect(range(len(line)), width, key=lambda kept: style.measure(keep(kept)))
    return keep(max(0, too_many - 1))


@dataclass(frozen=True)
class _Block:
    """A row of tiles below its heading, laid out: each part with its place from the upper left corner."""

    parts: list[tuple[_Lines | Tile, float, float]]
    size: tuple[float, float]


def _arrange(heading: str, tiles: Sequence[Tile]) -> _Block:
    captions = [_Lines.wrap(tile.caption, tile.width, _CAPTION, 3) for tile in tiles]
    below_picture = _TILE_HEIGHT + 2 * _POINT
    sizes = [(tile.width, below_picture + caption.height) for tile, caption in zip(tiles, captions, strict=True)]
    corners, width, height = _flow(sizes, _TILE_GAP)
    width = max(width, 2 * _TILE_HEIGHT)
    lines = _Lines.wrap(heading, width, _HEADING, 2)
    top = lines.height + (2 * _POINT if lines.lines else 0)
    parts: list[tuple[_Lines | Tile, float, float]] = [(lines, 0, 0)]
    for tile, caption, (x, y) in zip(tiles, captions, corners, strict=True):
        parts += [(tile, x, y + top), (caption, x, y + top + below_picture)]
    return _Block(parts, (width, height + top))


def _flow(sizes: Sequence[tuple[float, float]], gap: float) -> tuple[list[tuple[float, float]], float, float]:
    """Place boxes of these widths and heights in lines; return their upper left corners and the total size."""
    corners = []
    x = y = line_height = used = 0.0
    for width, height in sizes:
        if x + width > _MAX_LINE_WIDTH and x > 0:
            x, y, line_height = 0.0, y + line_height + gap, 0.0
        corners.append((x, y))
        used, line_height = max(used, x + width), max(line_height, height)
        x += width + gap
    return corners, used, y + line_height
