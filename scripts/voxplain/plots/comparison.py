"""Figures that compare heatmaps: average maps, distances, relevance by area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from voxplain.comparison.distance import normalise
from voxplain.plots.figures import PAGE, Picture, head, in_print
from voxplain.plots.overlay import AXES, SliceTable, top_of_scale
from voxplain.volumes import Grid

# Slices in template space, mm: through hippocampus, temporal lobe and ventricles.
SLICES = (("x", -28), ("y", -36), ("y", -16), ("z", -26), ("z", -14), ("z", 8), ("z", 34))


@in_print
def plot_mean_maps(
    maps: Mapping[str, Mapping[str, np.ndarray]],
    counts: Mapping[str, int],
    template: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    title: str,
    radiological: bool = False,
) -> Figure:
    """Figure of average heatmaps on slices of the template: a row for each method and class.

    Each map is divided by its sum, as for the distance table. The classes of a method share one
    colour scale, up to the 99.5th percentile of their values inside the brain.

    Parameters
    ----------
    maps
        Class to method to average map ``[x, y, z]``.
    counts
        Class to the number of scans averaged.
    template, mask
        ``[x, y, z]`` on ``grid``, axes along those of space.
    radiological
        The subject's left is on the right of coronal and axial slices.
    """
    classes, methods = list(maps), list(next(iter(maps.values())))
    rows = [(method, group) for method in methods for group in classes]
    names = [f"{method}\n{group}, n = {counts[group]}" for method, group in rows]
    slices = []
    for axis, mm in SLICES:
        number = AXES.index(axis)
        index = round((mm - grid.matrix[number, 3]) / grid.voxel_size[number])
        slices.append((axis, min(max(index, 0), grid.shape[number] - 1)))
    subtitle = (
        "average heatmaps, each divided by its sum; scale in 1e-4, the same for the classes of "
    )
    heading = [title, f"{subtitle}a method"]
    table = SliceTable(names, slices, heading, template, mask, grid, radiological)
    scales = {
        method: top_of_scale([maps[group][method] for group in classes], mask) for method in methods
    }
    for row, (method, group) in enumerate(rows):
        shown = normalise(maps[group][method])
        overlay = None if shown is None else shown / scales[method]
        table.draw_row(row, overlay, f"{scales[method] * 1e4:.2g}")
    return table.figure


@in_print
def plot_distances(distances: pd.DataFrame, title: str) -> Figure:
    """Figure of the distance table as a matrix; each cell lists the distances in 1e-4 by class.

    Parameters
    ----------
    distances
        Columns ``class``, ``method_a``, ``method_b``, ``distance``.
    """
    classes = list(dict.fromkeys(distances["class"]))
    methods = list(dict.fromkeys(distances["method_a"]))
    of_class = {
        group: rows.pivot(index="method_a", columns="method_b", values="distance")
        .reindex(index=methods, columns=methods)
        .astype(float)
        * 1e4
        for group, rows in distances.groupby("class")
    }
    text = [
        [
            " / ".join(
                "n/a" if np.isnan(v) else f"{v:.2f}"
                for v in (of_class[group].loc[a, b] for group in classes)
            )
            for b in methods
        ]
        for a in methods
    ]
    values = np.ma.masked_invalid([of_class[group].to_numpy() for group in classes])
    mean = values.mean(axis=0).filled(np.nan)
    side = 1.2 + max(0.85, 0.45 * len(classes)) * len(methods)
    # At least as wide as the heading.
    size = (max(side + 0.8, 5.5), max(0.5 * side, 2.4))
    figure = Picture(figsize=size, layout="constrained")
    place = figure.subplots()
    sns.heatmap(
        mean,
        annot=np.array(text),
        annot_kws={"size": 6},
        fmt="",
        cmap="viridis",
        vmin=0,
        vmax=float(np.nanmax(mean, initial=0)) or 1.0,
        xticklabels=methods,
        yticklabels=methods,
        linewidths=0.5,
        cbar_kws={"label": "mean over classes, 1e-4"},
        ax=place,
    )
    for row, column in np.argwhere(np.isnan(mean)):  # seaborn leaves these cells blank
        place.text(column + 0.5, row + 0.5, text[row][column], ha="center", va="center")
    head(figure, title, f"Euclidean distance of average maps, {' / '.join(classes)} in 1e-4")
    place.tick_params(axis="y", rotation=0)
    place.tick_params(axis="x", rotation=20)
    return figure


@in_print
def plot_spread(spread: pd.DataFrame, title: str) -> Figure:
    """Figure of the distance table with its spread over networks: a panel for each class.

    A cell shows mean ± SD in 1e-4. Its colour is the mean divided by the noise of retraining. Cells
    within that noise are grey, hatched and marked ``~``. The diagonal shows the floor of each
    method.

    Parameters
    ----------
    spread
        Columns ``class`` and those of :func:`voxplain.comparison.retraining.spread_rows`.
    """
    classes = list(dict.fromkeys(spread["class"]))
    methods = list(dict.fromkeys(spread["method_a"]))
    # With many methods the panels are stacked, so that the text stays readable.
    columns = len(classes) if len(methods) * len(classes) <= 6 else 1
    rows = len(classes) // columns
    side = 0.9 * len(methods)
    figure = Picture(
        figsize=(max(columns * (side + 0.2) + 1.9, PAGE), rows * (0.36 * side + 0.4) + 1.3),
        layout="constrained",
    )
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    times = spread["times_floor"].replace(np.inf, np.nan).astype(float)
    colours = matplotlib.colormaps["Blues"]
    scale = matplotlib.colors.LogNorm(1, max(float(np.nanmax([*times, 2.0])), 2.0))
    place_of = {method: place for place, method in enumerate(methods)}
    for place, group in zip(axes.flat, classes, strict=True):
        for row in spread[spread["class"] == group].to_dict("records"):
            column, line = place_of[row["method_b"]], place_of[row["method_a"]]
            diagonal, noisy = column == line, row["within_noise"] is True
            above = not diagonal and np.isfinite(row["times_floor"])
            face = colours(scale(max(row["times_floor"], 1))) if above else "white"
            style = {"facecolor": face, "edgecolor": "0.8", "lw": 0.5}
            if noisy:
                style |= {"facecolor": "0.9", "edgecolor": "0.55", "hatch": "///"}
            place.add_patch(Rectangle((column, line), 1, 1, **style))
            text = "n/a"
            if np.isfinite(row["distance_mean"]):
                sd = "" if np.isnan(row["distance_sd"]) else f" ± {row['distance_sd'] * 1e4:.2f}"
                text = f"{'~ ' * noisy}{row['distance_mean'] * 1e4:.2f}{sd}"
            place.text(
                column + 0.5,
                line + 0.5,
                text,
                ha="center",
                va="center",
                fontsize=7,
                style="italic" if diagonal else "normal",
                color="white" if above and np.mean(face[:3]) < 0.5 else "black",
                bbox={"facecolor": "0.9", "lw": 0, "pad": 1.5} if noisy else None,
            )
        place.set(xlim=(0, len(methods)), ylim=(len(methods), 0), title=group)
        place.set_xticks(np.arange(len(methods)) + 0.5, methods, rotation=20, ha="right")
        place.set_yticks(np.arange(len(methods)) + 0.5, methods)
        place.tick_params(length=0)
    steps = [step for step in (1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500) if step <= scale.vmax]
    bar = figure.colorbar(
        matplotlib.cm.ScalarMappable(scale, colours), ax=axes, label="mean, times the noise floor"
    )
    bar.set_ticks(steps, labels=[f"{step:g}" for step in steps])
    bar.minorticks_off()
    head(
        figure,
        title,
        "Euclidean distance of average maps, mean ± SD over networks in 1e-4; diagonal: a method's "
        "own noise floor (mean distance of its maps of two networks); hatched, ~: within the "
        "larger floor of the two methods",
    )
    return figure


@in_print
def plot_area_distribution(
    shares: pd.DataFrame,
    areas: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    title: str,
) -> Figure:
    """Figure of the relevance of areas, one point a patient: a panel for each method.

    Parameters
    ----------
    shares
        Columns ``method``, ``class``, ``patient``, ``area``, ``share``; one row a patient and area.
    areas
        Method to the areas to show, from top to bottom.
    classes
        In the order to show.
    """
    methods = list(areas)
    palette = dict(zip(classes, sns.color_palette("colorblind", len(classes)), strict=True))
    rows = (len(methods) + 1) // 2
    most = max(len(shown) for shown in areas.values())
    figure = Picture(figsize=(PAGE, max(0.3 * most + 0.9, 1.5) * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, min(len(methods), 2), squeeze=False)
    with_legend = None
    for place, method in zip(axes.flat, methods, strict=False):
        chosen = shares[(shares["method"] == method) & shares["area"].isin(list(areas[method]))]
        chosen = chosen.assign(percent=100 * chosen["share"].astype(float)).dropna(subset="percent")
        arguments = {
            "data": chosen,
            "x": "percent",
            "y": "area",
            "hue": "class",
            "order": list(areas[method]),
            "hue_order": classes,
            "palette": palette,
            "ax": place,
        }
        if len(chosen):
            sns.boxplot(
                **arguments, fliersize=0, linewidth=0.6, boxprops={"alpha": 0.35}, legend=False
            )
            with_legend = with_legend or place
            sns.stripplot(**arguments, dodge=True, size=2.5, legend=place is with_legend)
        else:
            place.text(0.5, 0.5, "0 everywhere", ha="center", transform=place.transAxes)
            place.set(xticks=[], yticks=[])
        place.set(xlabel="share of the relevance in the brain, %", ylabel="", title=method)
        sns.despine(ax=place)
    for place in list(axes.flat)[len(methods) :]:
        place.set_axis_off()
    head(figure, f"{title}: each point is a patient")
    return figure
