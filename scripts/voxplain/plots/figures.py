"""What all figures have in common: size and type for print, no display, bitmap and vector."""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Inches: two columns of a journal's page (183 mm).
PAGE = 7.2
DPI = 300

# Points as printed; at least 5, as journals ask.
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
_FILES = {"pdf.fonttype": 42, "svg.fonttype": "none"}  # letters stay letters, which one can edit
_LETTERS_PER_INCH, _LINE = 13, 0.15  # of a heading
_Arguments = ParamSpec("_Arguments")


class Picture(Figure):
    """A figure that belongs to no window: a notebook shows it once, a cluster's node draws it.

    Everything of :class:`matplotlib.figure.Figure` is there, to change before it is saved.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=110)
        return stream.getvalue()


def in_print(
    draw: Callable[_Arguments, Figure],
) -> Callable[_Arguments, Figure]:
    """Make a function draw with type as in print, whatever the caller's own settings are."""

    @functools.wraps(draw)
    def drawn(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(_TYPE):
            return draw(*arguments, **named)

    return drawn


def head(figure: Figure, *lines: str) -> None:
    """Write lines above a figure, broken to its width; it grows by all of them but the first.

    For figures whose layout is constrained.
    """
    at_most = int(_LETTERS_PER_INCH * figure.get_figwidth())
    broken = [part for line in lines for part in textwrap.wrap(line, at_most)]
    figure.suptitle("\n".join(broken), parse_math=False)
    figure.set_figheight(figure.get_figheight() + _LINE * (len(broken) - 1))


def legend_beside(figure: Figure, handles: Sequence[Artist]) -> None:
    """Name lines to the right of a figure, which becomes as high as their names need."""
    needed = 0.17 * len(handles) + 0.7
    figure.set_figheight(max(figure.get_figheight(), needed))
    figure.legend(handles=handles, frameon=False, loc="outside right center")


def save(figure: Figure, paths: str | Path | Iterable[str | Path], dpi: float = DPI) -> None:
    """Write a figure to one or several files, each of the kind that its suffix says.

    A file of vectors (``.pdf``, ``.svg``) has letters that stay letters; slices of volumes are
    bitmaps in it as well, at ``dpi``, since viewers would blur a bitmap of one pixel a voxel. It is
    without the date, so that the same figure is the same file.

    Parameters
    ----------
    dpi
        Of bitmaps, at the size the figure is printed in.

    Raises
    ------
    ValueError
        The suffix is of no kind that matplotlib writes.
    """
    dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        with matplotlib.rc_context(_FILES):
            figure.savefig(path, dpi=dpi, metadata=dates.get(Path(path).suffix))
