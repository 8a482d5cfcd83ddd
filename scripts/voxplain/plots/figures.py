"""Shared code of the figures: size and fonts for print, no display, bitmap and vector files."""

from __future__ import annotations

import contextlib
import functools
import io
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Inches: two columns of a journal's page (183 mm).
PAGE = 7.2
DPI = 300

# Points as printed; journals require at least 5.
_TYPE = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 9,
    "axes.linewidth": 0.6,
}
# Text stays text, so that it can be edited; names inside an SVG do not change from file to file.
_FILES = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "voxplain"}
_LETTERS_PER_INCH, _LINE = 13, 0.15  # of the heading; _LINE in inches
_Arguments = ParamSpec("_Arguments")


class Picture(Figure):
    """A figure without a window: a notebook shows it once, and it works on a cluster node.

    It is a :class:`matplotlib.figure.Figure` and can be changed before it is saved.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=110)
        return stream.getvalue()


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Context with a fixed seed of numpy's global generator, which seaborn uses."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def in_print(
    draw: Callable[_Arguments, Figure],
) -> Callable[_Arguments, Figure]:
    """Decorator for a drawing function: fonts as in print, whatever the caller's settings are.

    Points that are scattered at random (seaborn's strip plots) lie at the same places each time.
    """

    @functools.wraps(draw)
    def drawn(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(_TYPE), _seeded():
            return draw(*arguments, **named)

    return drawn


def head(figure: Figure, *lines: str) -> None:
    """Write wrapped lines above a figure; each line after the first adds to its height.

    For figures with a constrained layout.
    """
    at_most = int(_LETTERS_PER_INCH * figure.get_figwidth())
    broken = [part for line in lines for part in textwrap.wrap(line, at_most)]
    figure.suptitle("\n".join(broken), parse_math=False)
    figure.set_figheight(figure.get_figheight() + _LINE * (len(broken) - 1))


def legend_beside(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend to the right of a figure, and make the figure high enough for it."""
    needed = 0.17 * len(handles) + 0.7
    figure.set_figheight(max(figure.get_figheight(), needed))
    figure.legend(handles=handles, frameon=False, loc="outside right center")


def save(figure: Figure, paths: str | Path | Iterable[str | Path], dpi: float = DPI) -> None:
    """Write a figure to one or several files; the suffix gives the format.

    A vector file (``.pdf``, ``.svg``) keeps text as text. Slices of volumes are bitmaps in it as
    well, at ``dpi``, since viewers would blur a bitmap of one pixel per voxel. It contains no date,
    so the same figure gives the same file.

    Parameters
    ----------
    dpi
        Resolution of bitmaps at the printed size of the figure.

    Raises
    ------
    ValueError
        Matplotlib does not write the format of the suffix.
    """
    dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        with matplotlib.rc_context(_FILES):
            figure.savefig(path, dpi=dpi, metadata=dates.get(Path(path).suffix))
