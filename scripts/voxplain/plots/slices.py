"""Figures of volumes in slices, and a figure of text for a missing picture."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from voxplain.plots.figures import PAGE, Picture, in_print
from voxplain.volumes import Grid

AXES = "xyz"
PLANES = dict(zip(AXES, ("sagittal", "coronal", "axial"), strict=True))
_OUTLINE, _INNER = "#ff9d00", "#4fc3f7"  # legible on grey, and to colour-blind eyes


@in_print
def plot_outline(
    volume: np.ndarray,
    outline: np.ndarray,
    grid: Grid,
    title: str,
    inner: np.ndarray | None = None,
    radiological: bool = False,
) -> Figure:
    """Figure of a volume in slices of three planes, with the outline of a mask.

    Parameters
    ----------
    volume
        ``[x, y, z]``, RAS+; shown in grey up to its 99.5th percentile.
    outline
        ``[x, y, z]`` bool on the same grid; slices are spread over its extent.
    title
        One line above.
    inner
        ``[x, y, z]`` bool, outlined by a thinner line in a second colour.
    radiological
        The subject's left is on the right of coronal and axial slices.
    """
    sizes = grid.voxel_size
    top = float(np.percentile(volume[volume > volume.min()], 99.5)) if volume.any() else 1.0
    figure = Picture(figsize=(PAGE, 4.6), facecolor="black")
    axes = figure.subplots(3, 5)
    for axis, row in enumerate(axes):
        in_plane = tuple(a for a in range(3) if a != axis)
        aspect = sizes[in_plane[1]] / sizes[in_plane[0]]
        for place, index in zip(row, _slices_through(outline, axis, len(row)), strict=True):
            section = np.take(volume, index, axis).T
            place.imshow(
                section,
                origin="lower",
                cmap="gray",
                vmin=0,
                vmax=top,
                aspect=aspect,
                interpolation="nearest",
            )
            for mask, colour, width in ((outline, _OUTLINE, 0.9), (inner, _INNER, 0.5)):
                inside = None if mask is None else np.take(mask, index, axis).T
                if inside is not None and inside.any() and not inside.all():
                    place.contour(inside, [0.5], colors=colour, linewidths=width)
            place.set_axis_off()
            mark_sides(place, AXES[axis], radiological)
        row[0].set_title(PLANES[AXES[axis]], color="white", fontsize=6, loc="left", pad=2)
    figure.suptitle(title, color="white", fontsize=7, parse_math=False)
    figure.tight_layout(pad=0.4)
    return figure


def _slices_through(mask: np.ndarray, axis: int, count: int) -> list[int]:
    """Indices of evenly spaced slices through the middle 80 % of a mask along an axis."""
    in_plane = tuple(a for a in range(3) if a != axis)
    filled = np.flatnonzero(mask.any(axis=in_plane))
    first, last = (filled[0], filled[-1]) if filled.size else (0, mask.shape[axis] - 1)
    margin = 0.1 * (last - first)
    return [round(float(i)) for i in np.linspace(first + margin, last - margin, count)]


@in_print
def plot_text(*lines: str) -> Figure:
    """Figure with lines of text, for example the reason why a picture is missing."""
    figure = Picture(figsize=(PAGE, 1.8), facecolor="black")
    text = "\n".join(textwrap.fill(line, 110) for line in lines)
    figure.text(0.03, 0.5, text, color="white", va="center", parse_math=False)
    return figure


def mark_sides(place: Axes, axis: str, radiological: bool) -> None:
    """Flip a RAS+ slice for radiological display if needed, and label its sides.

    Parameters
    ----------
    axis
        The axis perpendicular to the slice: x, y or z.
    """
    sides = "PA" if axis == "x" else "LR"
    if radiological and axis != "x":
        place.invert_xaxis()
        sides = sides[::-1]
    for at, letter, align in zip((0.02, 0.98), sides, ("left", "right"), strict=True):
        place.text(
            at,
            0.5,
            letter,
            color="white",
            fontsize=5,
            ha=align,
            transform=place.transAxes,
            path_effects=[withStroke(linewidth=1.5, foreground="black")],
        )
