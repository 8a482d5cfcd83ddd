"""Shared code of figures with heatmaps on slices of the template."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from voxplain.comparison.distance import normalise
from voxplain.plots.figures import PAGE, Picture
from voxplain.plots.slices import AXES, PLANES, mark_sides
from voxplain.volumes import Grid

NOTHING = "0 everywhere"
_ASIDE_MM = 12.0  # around the brain, for the letters
_SHOWN_FROM = 0.05  # of a colour scale: below it the template shows through


def top_of_scale(maps: Sequence[np.ndarray], mask: np.ndarray) -> float:
    """End of the colour scale of some maps: their 99.5th percentile inside the brain.

    It applies to the maps divided by their sums. If the percentile is 0, the scale ends at the
    maximum of the maps.
    """
    shown = [m[mask] for m in map(normalise, maps) if m is not None]
    top = float(np.percentile(np.concatenate(shown), 99.5)) if shown else 0.0
    return top or max((float(values.max()) for values in shown), default=1.0) or 1.0


def top_of_greys(template: np.ndarray, mask: np.ndarray) -> float:
    """End of the grey scale of the template, dimmed so that it stays darker than the heatmap."""
    return 1.6 * float(np.percentile(template[mask], 99.5))


class SliceTable:
    """Figure of template slices, as wide as a page, with a row for each overlaid map.

    All planes have the same scale: the brain sets the width of a panel and the height of a row. In
    neurological order the subject's left is on the left of coronal and axial slices. In
    radiological order it is on the right, as seen from the front or the feet of the subject.
    Sagittal slices have the front on the right in both orders.

    Attributes
    ----------
    figure
        The matplotlib figure.

    Parameters
    ----------
    names
        Of the rows.
    slices
        Axis (x, y or z) and voxel index along it, from left to right.
    heading
        Lines above the slices; lines wider than the page are wrapped.
    template, mask
        ``[x, y, z]`` on ``grid``, axes along those of space.
    """

    def __init__(
        self,
        names: Sequence[str],
        slices: Sequence[tuple[str, int]],
        heading: Sequence[str],
        template: np.ndarray,
        mask: np.ndarray,
        grid: Grid,
        radiological: bool = False,
    ) -> None:
        self._names, self._slices, self._template, self._grid = names, slices, template, grid
        self._greys, self._radiological = top_of_greys(template, mask), radiological
        self._first, self._last = bounds(mask)
        for number in (0, 1):
            aside = round(_ASIDE_MM / grid.voxel_size[number])
            self._first[number] -= aside
            self._last[number] += aside
        sizes = (self._last - self._first) * np.array(grid.voxel_size)
        widths = [float(sizes[1 if axis == "x" else 0]) for axis, _ in slices]
        written = [f"({NOTHING})", *(line for name in names for line in name.split("\n"))]
        left = 0.25 + 0.065 * max(map(len, written))
        inches = min((PAGE - left - 0.6) / (1.05 * sum(widths)), 0.01)  # for a millimetre
        lines = [part for line in heading for part in textwrap.wrap(line, int(15 * PAGE))]
        above = 0.42 + 0.14 * len(lines)
        height = above + 1.05 * inches * float(sizes[1:].max()) * len(names) + 0.05
        self.figure = Picture(figsize=(PAGE, height), facecolor="black")
        self._axes = self.figure.subplots(
            len(names),
            len(slices) + 1,
            squeeze=False,
            gridspec_kw={
                "width_ratios": [*(inches * width for width in widths), 0.09],
                "left": left / PAGE,
                "right": 1 - 0.5 / PAGE,
                "top": 1 - above / height,
                "bottom": 0.05 / height,
                "wspace": 0.05,
                "hspace": 0.05,
            },
        )
        for place, (axis, index) in zip(self._axes[0], slices, strict=False):
            cell = place.get_position(original=True)
            at = grid.matrix[AXES.index(axis), 3] + index * grid.voxel_size[AXES.index(axis)]
            self.figure.text(
                (cell.x0 + cell.x1) / 2,
                cell.y1 + 0.05 / height,
                f"{PLANES[axis]}\n{axis} = {round(float(at)):d} mm",
                color="white",
                fontsize=6,
                ha="center",
            )
        self.figure.suptitle(
            "\n".join(lines), y=1 - 0.08 / height, color="white", fontsize=8, parse_math=False
        )

    def draw_row(
        self, row: int, overlay: np.ndarray | None, ends_at: str, cmap: str = "inferno"
    ) -> list[Axes]:
        """Draw a row: name, slices with the overlaid map, and colour bar of the map.

        Parameters
        ----------
        row
            Counted from the top, from 0.
        overlay
            ``[x, y, z]``, 1 at the top of its colour scale; None if the map is 0 everywhere, which
            is then written below the name.
        ends_at
            Label at the top of the colour bar; the bottom label is 0.

        Returns
        -------
        The axes of the slices, with voxels as units.
        """
        places, image = list(self._axes[row, :-1]), None
        for place, (axis, index) in zip(places, self._slices, strict=True):
            number = AXES.index(axis)
            across, up = (a for a in range(3) if a != number)
            sizes = self._grid.voxel_size
            options = {
                "origin": "lower",
                "interpolation": "nearest",
                "aspect": sizes[up] / sizes[across],
            }
            under = np.take(self._template, index, number).T
            place.imshow(under, cmap="gray", vmin=0, vmax=self._greys, **options)
            if overlay is not None:
                section = np.ma.masked_less(np.take(overlay, index, number).T, _SHOWN_FROM)
                image = place.imshow(section, cmap=cmap, vmin=0, vmax=1, alpha=0.8, **options)
            place.set(
                xlim=(self._first[across] - 0.5, self._last[across] - 0.5),
                ylim=(self._first[up] - 0.5, self._last[up] - 0.5),
                autoscale_on=False,
            )
            place.set_axis_off()
            mark_sides(place, axis, self._radiological)
        name = self._names[row] if overlay is not None else f"{self._names[row]}\n({NOTHING})"
        name_row(places[0], name)
        draw_bar(self._axes[row, -1], image, ends_at)
        return places


def bounds(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounding box of a mask: the first voxel along each axis, and the one after the last."""
    places = np.argwhere(mask)
    return places.min(axis=0), places.max(axis=0) + 1


def draw_bar(bar: Axes, image: AxesImage | None, top: str) -> None:
    """Draw the colour bar of a row from 0 to ``top``; leave it empty without an image."""
    if image is None:
        bar.set_axis_off()
        return
    drawn = bar.figure.colorbar(image, cax=bar, ticks=[0, 1])
    drawn.ax.set_yticklabels(["0", top], color="white", fontsize=6)
    for tick, side in zip(drawn.ax.get_yticklabels(), ("bottom", "top"), strict=True):
        tick.set_verticalalignment(side)  # inside the bar, away from the next row's
    drawn.outline.set_visible(False)


def name_row(first: Axes, name: str) -> None:
    """Write the name of a row to the left of its first slice."""
    first.text(
        -0.08,
        0.5,
        name,
        color="white",
        fontsize=7,
        va="center",
        ha="right",
        transform=first.transAxes,
    )
