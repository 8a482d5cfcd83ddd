"""Figures of heatmaps and the truth: lost tissue, and how well methods find it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from voxplain.comparison.distance import normalise
from voxplain.plots.figures import Picture, head, in_print, legend_beside
from voxplain.plots.lines import line_styles
from voxplain.plots.overlay import AXES, SliceTable, bounds, top_of_scale
from voxplain.volumes import Grid

MEASURES = {
    "average_precision": "average precision",
    "mass": "mass: share of\nrelevance inside",
    "rank": "rank: share of the\nhighest voxels inside",
    "pointing": "pointing: hottest\nvoxel inside",
}
_APART_MM = 10.0  # two slices of one plane
_BORDER = "#4fc3f7"  # legible on grey and on a heatmap, and to colour-blind eyes
_LEFT = "#ff8a3d"  # of the residual, legible on viridis
_TRUTH, _RESIDUAL = "truth", "what is left"
_GREY = "0.5"  # baselines
_MARKERS = ("o", "s", "^", "D")


@in_print
def plot_truth(
    rows: Mapping[str, np.ndarray],
    truth: np.ndarray,
    template: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    title: str,
    threshold: float,
    residual: np.ndarray | None = None,
    residual_threshold: float | None = None,
    radiological: bool = False,
) -> Figure:
    """Figure of the truth and heatmaps of a scan on slices through the truth, a row each method.

    Each heatmap is divided by its sum and has a separate colour scale up to the 99.5th percentile
    inside the brain. The scale of the truth ends at its maximum, that of the residual at its 99.5th
    percentile. The border of the truth is drawn on all rows.

    Parameters
    ----------
    rows
        Method to heatmap ``[x, y, z]``, no value below 0.
    truth
        ``[x, y, z]``, the simulated loss as a fraction, 0 to 1.
    template, mask
        ``[x, y, z]`` on ``grid``, axes along those of space.
    threshold
        The border of the truth surrounds voxels with a larger loss.
    residual
        ``[x, y, z]``, difference of the scan from its healthy twin, 0 or more, shown in a row below
        the truth. None if it was not measured.
    residual_threshold
        The border of the residual, on its row, surrounds voxels with a larger difference.
    radiological
        The subject's left is on the right of coronal and axial slices.
    """
    region = truth > threshold
    residual_region = None if residual is None else residual > residual_threshold
    slices = _slices_of(np.where(region, truth, 0) if region.any() else truth, mask, grid)
    subtitle = (
        f"line: changed by more than {_percent(threshold)}; each heatmap divided by its "
        "sum, scales in 1e-4"
    )
    if residual is not None:
        subtitle += (
            "; what is left: difference from the healthy twin, white matter near 1, orange line: "
            f"more than {residual_threshold:.3g}"
        )
    names = [_TRUTH, *([] if residual is None else [_RESIDUAL]), *rows]
    table = SliceTable(names, slices, [title, subtitle], template, mask, grid, radiological)
    layers = _layers(rows, truth, residual, mask)
    for number, (name, overlay, cmap, ends_at) in enumerate(layers):
        borders = [(residual_region, _LEFT)] if name == _RESIDUAL else []
        places = table.draw_row(number, overlay, ends_at, cmap)
        for place, (axis, index) in zip(places, slices, strict=True):
            for volume, colour in [*borders, (region, _BORDER)]:
                inside = np.take(volume, index, AXES.index(axis)).T
                if inside.any() and not inside.all():
                    place.contour(inside, [0.5], colors=colour, linewidths=0.7)
    return table.figure


def _layers(
    rows: Mapping[str, np.ndarray],
    truth: np.ndarray,
    residual: np.ndarray | None,
    mask: np.ndarray,
) -> Iterator[tuple[str, np.ndarray | None, str, str]]:
    """Name, map from 0 to 1 (None if it is 0 everywhere), colour map and end of the scale."""
    most = float(truth.max())
    yield _TRUTH, truth / most if most > 0 else None, "viridis", _percent(most)
    if residual is not None:
        top = float(np.percentile(residual[mask], 99.5)) or float(residual.max())
        yield _RESIDUAL, residual / top if top > 0 else None, "viridis", f"{top:.2g}"
    for method, heatmap in rows.items():
        shown, top = normalise(heatmap), top_of_scale([heatmap], mask)
        overlay = None if shown is None else shown / top
        yield method, overlay, "inferno", f"{top * 1e4:.2g}"


def _slices_of(truth: np.ndarray, mask: np.ndarray, grid: Grid) -> list[tuple[str, int]]:
    """For each axis the two slices with the most truth that are at least 10 mm apart, in order.

    One slice if the truth is thinner than that; the middle of the brain if there is no truth.
    """
    first, last = bounds(mask)
    slices = []
    for number, axis in enumerate(AXES):
        amount = truth.sum(axis=tuple(a for a in range(3) if a != number), dtype=np.float64)
        step = int(np.ceil(_APART_MM / grid.voxel_size[number] - 1e-6))
        filled = np.flatnonzero(amount)
        if not filled.size:
            chosen = [int(first[number] + last[number]) // 2]
        elif np.ptp(filled) < step:
            chosen = [int(amount.argmax())]
        else:
            pairs = [(a, b) for a in filled for b in filled if b - a >= step]
            chosen = list(map(int, max(pairs, key=lambda pair: amount[list(pair)].sum())))
        slices += [(axis, index) for index in chosen]
    return slices


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


@in_print
def plot_localisation(table: pd.DataFrame, title: str, baselines: Sequence[str] = ()) -> Figure:
    """Figure of localisation scores: a panel for each region and measure, a line for each method.

    Methods are ordered by their average precision in the first region; baselines follow in grey.

    Parameters
    ----------
    table
        Columns ``region``, ``smoothing_mm``, ``method``, ``measure``, ``mean``, ``low``, ``high``,
        ``chance``, ``times_chance``, ``scans``, ``patients``. A bar reaches from ``low`` to
        ``high``, which may be NaN; a ``mean`` of NaN is shown as n/a.
    baselines
        The methods that do not explain a network.
    """
    regions, smoothings = (list(table[key].unique()) for key in ("region", "smoothing_mm"))
    present = set(table["measure"])
    measures = [m for m in MEASURES if m in present] + sorted(present.difference(MEASURES))
    lines = _lines_of_methods(table, baselines)
    colours = sns.color_palette("colorblind", len(smoothings))
    styles = dict(zip(smoothings, zip(colours, _MARKERS, strict=False), strict=False))
    width = max(0.4 + 0.065 * max(map(len, lines)) + 1.35 * len(measures), 5.2)
    panel = 0.19 * (1 + max(lines.values())) + 0.85
    figure = Picture(figsize=(width, panel * len(regions) + 0.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08)
    parts = figure.subfigures(len(regions), 1, squeeze=False)[:, 0]
    for part, region in zip(parts, regions, strict=True):
        of_region = table[table["region"] == region]
        people = (
            f"{of_region['scans'].max():.0f} scans of {of_region['patients'].max():.0f} patients"
        )
        part.suptitle(f"{region}, {people}", fontsize=9, fontweight="bold", parse_math=False)
        axes = part.subplots(1, len(measures), squeeze=False)[0]
        for place, measure in zip(axes, measures, strict=True):
            _draw_measure(
                place, of_region[of_region["measure"] == measure], lines, styles, baselines
            )
            place.set_title(MEASURES.get(measure, measure), fontsize=8)
            place.tick_params(labelleft=place is axes[0])
    figure.legend(
        handles=_legend(styles, any(method in baselines for method in lines)),
        frameon=False,
        fontsize=8,
        loc="outside lower center",
        ncols=4,
    )
    head(
        figure,
        title,
        "points are means, bars their intervals; more is better where the region is the truth: "
        "other regions are there to compare, and a good heatmap need not find them",
    )
    return figure


@in_print
def plot_precision_recall(curves: pd.DataFrame, chances: Mapping[str, float], title: str) -> Figure:
    """Figure of precision over recall, a panel for each region, as Yang et al. 2018, figure 3.

    Parameters
    ----------
    curves
        Columns ``method``, ``region``, ``recall`` and ``precision`` (means over patients).
    chances
        Region to the precision at chance.
    """
    regions, methods = list(curves["region"].unique()), list(curves["method"].unique())
    columns = min(len(regions), 2) or 1
    rows = -(-max(len(regions), 1) // columns)
    figure = Picture(figsize=(2.8 * columns + 1.6, 2.3 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    styles = line_styles(methods)
    for place in axes.flat[len(regions) :]:
        place.axis("off")
    for place, region in zip(axes.flat, regions, strict=False):
        of_region = curves[curves["region"] == region].dropna(subset="precision")
        for method, curve in of_region.groupby("method", sort=False):
            place.plot(curve["recall"], curve["precision"], lw=1.2, **styles[method])
        if region in chances:
            place.axhline(chances[region], color="0.3", lw=0.9, ls=":")
        place.set(xlim=(0, 1), ylim=(0, None), xlabel="recall", ylabel="precision")
        place.set_title(region, fontsize=9)
        place.tick_params(labelsize=7)
        sns.despine(ax=place)
    handles = [Line2D([], [], label=method, **style) for method, style in styles.items()]
    handles.append(Line2D([], [], color="0.3", lw=0.9, ls=":", label="chance"))
    legend_beside(figure, handles)
    head(figure, title)
    return figure


def _lines_of_methods(table: pd.DataFrame, baselines: Sequence[str]) -> dict[str, float]:
    """Line number of each method from the top: the best first, baselines below a gap."""
    first = table[
        (table["region"] == table["region"].iloc[0])
        & (table["smoothing_mm"] == table["smoothing_mm"].iloc[0])
        & (table["measure"] == "average_precision")
    ]
    means = first.set_index("method")["mean"].astype(float).reindex(table["method"].unique())
    order = list(means.sort_values(ascending=False, kind="stable").index)  # n/a last
    above = [method for method in order if method not in baselines]
    gap = 0.5 if above else 0.0
    below = [method for method in order if method in baselines]
    return {method: line for line, method in enumerate(above)} | {
        method: len(above) + gap + line for line, method in enumerate(below)
    }


def _draw_measure(
    place: Axes,
    table: pd.DataFrame,
    lines: Mapping[str, float],
    styles: Mapping[float, tuple[tuple[float, ...], str]],
    baselines: Sequence[str],
) -> None:
    """Draw the points and bars of one region and measure, and the chance level."""
    with_mean = set(table.dropna(subset="mean")["method"])
    for method, line in lines.items():
        if method not in with_mean:
            _write_not_available(place, line, _GREY)
    chances = {}
    for number, (smoothing, (colour, marker)) in enumerate(styles.items()):
        of_smoothing = table[table["smoothing_mm"] == smoothing]
        aside = 0.44 * ((number + 0.5) / len(styles) - 0.5)
        for row in of_smoothing[of_smoothing["method"].isin(with_mean)].to_dict("records"):
            line = lines[row["method"]] + aside
            tint = _GREY if row["method"] in baselines else colour
            if np.isnan(row["mean"]):
                _write_not_available(place, line, tint)
                continue
            place.plot([row["low"], row["high"]], [line, line], color=tint, lw=1.2)
            place.plot(row["mean"], line, marker=marker, color=tint, markersize=4)
        if of_smoothing["chance"].notna().any():
            chances[colour] = float(of_smoothing["chance"].median())
    if len(chances) > 1 and np.isclose(min(chances.values()), max(chances.values()), rtol=1e-3):
        chances = dict([next(iter(chances.items()))])
    for colour, chance in chances.items():
        place.axvline(
            chance, color="0.3" if len(chances) == 1 else colour, lw=0.9, ls="--", zorder=1
        )
    values = table[["mean", "low", "high", "chance"]].to_numpy(np.float64)
    low, high = np.nanmin(values, initial=0), np.nanmax(values, initial=0) or 1.0
    place.set(
        xlim=(low - 0.04 * (high - low), high + 0.06 * (high - low)),
        ylim=(max(lines.values()) + 0.6, -0.6),
    )
    place.locator_params(axis="x", nbins=4)
    place.tick_params(labelsize=7)
    place.set_yticks(list(lines.values()), list(lines), fontsize=7)
    for tick, method in zip(place.get_yticklabels(), lines, strict=True):
        tick.set_color(_GREY if method in baselines else "black")
    place.grid(axis="y", color="0.92", lw=0.6)
    place.set_axisbelow(True)
    sns.despine(ax=place)


def _write_not_available(place: Axes, line: float, colour: str | tuple[float, ...]) -> None:
    place.text(
        0.02,
        line,
        "n/a",
        color=colour,
        fontsize=5.5,
        va="center",
        transform=place.get_yaxis_transform(),
    )


def _legend(
    styles: Mapping[float, tuple[tuple[float, ...], str]], with_baselines: bool
) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            markersize=4,
            lw=1.2,
            label=f"smoothed by {smoothing:g} mm" if smoothing else "not smoothed",
        )
        for smoothing, (colour, marker) in styles.items()
    ]
    if with_baselines:
        handles.append(Line2D([], [], color=_GREY, lw=3, label="baseline"))
    handles.append(Line2D([], [], color="0.3", lw=0.9, ls="--", label="chance"))
    return handles
