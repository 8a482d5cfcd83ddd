"""What all figures have in common: size and type for print, no display, bitmap and vector."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Inches: two columns of a journal's page (183 mm), and the width of one (89 mm).
PAGE, COLUMN = 7.2, 3.5
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


def save(figure: Figure, paths: str | Path | Iterable[str | Path], dpi: float = DPI) -> None:
    """Write a figure to one or several files, each of the kind that its suffix says.

    A file of vectors (``.pdf``, ``.svg``) has letters that stay letters, and slices of volumes as
    bitmaps of one pixel a voxel in it; without the date, so that the same figure is the same file.

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
