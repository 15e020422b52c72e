"""What all figures share: colors, a blank figure with its warning, and names as labels."""

from collections.abc import Sequence
from textwrap import wrap
from unicodedata import bidirectional

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette (2008), which people with color-blindness can tell apart.
BLUE, ORANGE, GREEN, PURPLE, SKY, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#999999"
WARNING_SIZE = 8  # points


def new_figure(width_inches: float, height_inches: float, warning: str) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes."""
    figure = new_blank_figure(width_inches, height_inches, warning)
    return figure, figure.add_subplot()


def new_blank_figure(width_inches: float, height_inches: float, warning: str) -> Figure:
    """Return a figure without axes, laid out so that nothing overlaps the warning above."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    write_warning(figure, wrap_warning(warning, width_inches))
    return figure


def wrap_warning(warning: str, width_inches: float) -> list[str]:
    """Break a warning into lines, none if there is no warning."""
    return wrap(warning, int(width_inches * 13))


def write_warning(figure: Figure, lines: Sequence[str], top: float | None = None) -> None:
    """Write a warning at the top of a figure, or below `top`, a fraction of its height, where there is no layout."""
    if lines:
        figure.suptitle("\n".join(lines), y=top, color="#B00000", fontsize=WARNING_SIZE, fontweight="bold")


def spell(name: str) -> str:
    """Return a person's name as text, with spaces in the place of underscores.

    A name that is written from right to left is isolated, so that it does not reorder the text around it.
    """
    spelled = name.replace("_", " ")
    isolated = any(bidirectional(character) in ("R", "AL") for character in spelled)
    return f"\u2068{spelled}\u2069" if isolated else spelled


def plain(name: str) -> str:
    """Return a person's name as a matplotlib label, in which a dollar sign starts no formula."""
    return spell(name).replace("$", r"\$")
