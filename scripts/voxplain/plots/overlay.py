"""Heatmaps laid over slices of the template: what the pictures of them have in common."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from voxplain.comparison.distance import normalise
from voxplain.volumes import Grid

AXES = "xyz"
_SHOWN_FROM = 0.05  # of a colour scale: below it the template shows through


def top_of_scale(maps: Sequence[np.ndarray], mask: np.ndarray) -> float:
    """Where the colour scale of some maps ends: the 99.5th percentile of them inside the brain.

    Of the maps divided by their sums. A scale that would end at 0 ends at the maps' maximum.
    """
    shown = [m[mask] for m in map(normalise, maps) if m is not None]
    found = float(np.percentile(np.concatenate(shown), 99.5)) if shown else 0.0
    return found or max((float(values.max()) for values in shown), default=1.0) or 1.0


def top_of_greys(template: np.ndarray, mask: np.ndarray) -> float:
    """Where the template's greys end: dimmed, so that it never is as light as a heatmap's top."""
    return 1.6 * float(np.percentile(template[mask], 99.5))


def draw_slice(
    place: Axes,
    template: np.ndarray,
    overlay: np.ndarray | None,
    axis: str,
    index: int,
    grid: Grid,
    greys: float,
    cmap: str = "inferno",
) -> AxesImage | None:
    """A slice of the template with a map over it, in neurological order.

    The subject's left is on the left of coronal and axial slices and marked; sagittal ones look
    towards the left, the front on the right.

    Parameters
    ----------
    template, overlay
        ``[x, y, z]`` on ``grid``, axes along those of space. The overlay is 1 at the top of its
        colour scale; None where there is nothing to show.
    index
        The slice's place along ``axis``, which is x, y or z.
    greys
        See :func:`top_of_greys`.

    Returns
    -------
    The overlay as drawn, for a colour bar.
    """
    number = AXES.index(axis)
    others = [a for a in range(3) if a != number]
    look = {
        "origin": "lower",
        "interpolation": "nearest",
        "aspect": grid.voxel_size[others[1]] / grid.voxel_size[others[0]],
    }
    place.imshow(np.take(template, index, number).T, cmap="gray", vmin=0, vmax=greys, **look)
    image = None
    if overlay is not None:
        section = np.ma.masked_less(np.take(overlay, index, number).T, _SHOWN_FROM)
        image = place.imshow(section, cmap=cmap, vmin=0, vmax=1, alpha=0.8, **look)
    place.set_axis_off()
    if axis != "x":  # neurological order: the subject's left is on the left
        place.text(0.02, 0.5, "L", color="white", fontsize=6, transform=place.transAxes)
    return image


def draw_bar(bar: Axes, image: AxesImage | None, top: str) -> None:
    """A row's colour bar from 0 to a number told; nothing where there is no overlay."""
    if image is None:
        bar.set_axis_off()
        return
    drawn = bar.figure.colorbar(image, cax=bar, ticks=[0, 1])
    drawn.ax.set_yticklabels(["0", top], color="white", fontsize=7)
    for tick, side in zip(drawn.ax.get_yticklabels(), ("bottom", "top"), strict=True):
        tick.set_verticalalignment(side)  # inside the bar, off the next row's
    drawn.outline.set_visible(False)


def name_row(first: Axes, name: str) -> None:
    """What a row of slices shows, to the left of its first one."""
    first.text(
        -0.08,
        0.5,
        name,
        color="white",
        fontsize=8,
        va="center",
        ha="right",
        transform=first.transAxes,
    )
