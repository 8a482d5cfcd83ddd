"""Figures of faithfulness: deletion and insertion curves, and randomisation of layers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from voxplain.comparison.faithfulness import DIRECTIONS, RANDOM
from voxplain.plots.figures import PAGE, Picture, head, in_print, legend_beside
from voxplain.plots.lines import line_styles

_AT_RANDOM = {"color": "0.3", "lw": 1.2, "ls": ":"}
_X_LABELS = {
    "deletion": "share of the brain deleted",
    "insertion": "share of the brain inserted",
}


@in_print
def plot_faithfulness(curves: pd.DataFrame, methods: Sequence[str], title: str) -> Figure:
    """Figure of mean curves of all methods: a row for each class, deletion left, insertion right.

    Random orders are a dotted line with a band from the lowest to the highest draw.

    Parameters
    ----------
    curves
        From :func:`voxplain.comparison.faithfulness_tables.mean_curves`.
    methods
        In the order of the legend.
    """
    classes = list(curves["class"].unique())
    rows = max(len(classes), 1)
    figure = Picture(figsize=(PAGE, 2.1 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False, sharex=True, sharey=True)
    styles = line_styles(methods)
    for places, group in zip(axes, classes or [None], strict=True):
        for place, direction in zip(places, DIRECTIONS, strict=True):
            in_panel = curves[(curves["class"] == group) & (curves["direction"] == direction)]
            drawn = in_panel[in_panel["method"] == RANDOM].groupby("fraction")["probability"]
            if drawn.ngroups:
                mean = drawn.mean()
                lowest, highest = drawn.min(), drawn.max()
                place.fill_between(mean.index, lowest, highest, color="0.85", lw=0, zorder=0)
                place.plot(mean.index, mean, **_AT_RANDOM)
            for method, style in styles.items():
                curve = in_panel[in_panel["method"] == method]
                place.plot(curve["fraction"], curve["probability"], lw=1.2, **style)
            place.set(xlim=(0, 1))
            place.set_title(f"{direction}, {group} scans" if group else direction)
            sns.despine(ax=place)
        places[0].set_ylabel("probability of the target")
    for place, direction in zip(axes[-1], DIRECTIONS, strict=True):
        place.set_xlabel(_X_LABELS[direction])
    handles = [Line2D([], [], label=method, **style) for method, style in styles.items()]
    handles.append(Line2D([], [], label="random orders", **_AT_RANDOM))
    legend_beside(figure, handles)
    head(figure, title)
    return figure


@in_print
def plot_randomisation(table: pd.DataFrame, title: str) -> Figure:
    """Figure of the rank correlation with the original heatmaps over the randomised layers.

    There is one line for each method.

    Parameters
    ----------
    table
        From :func:`voxplain.comparison.faithfulness_tables.summarise_correlations`; the line has
        a gap where ``mean`` is nan.
    """
    methods = list(table["method"].unique())
    names = table.drop_duplicates("step").set_index("step")["layer"].sort_index()
    width = max(5.5, 2.2 + 0.2 * len(names))
    figure = Picture(figsize=(width, 3.2), layout="constrained")
    place = figure.subplots()
    styles = line_styles(methods)
    for method, style in styles.items():
        of_method = table[table["method"] == method].sort_values("step")
        # Before any layer is randomised, the map equals the original.
        place.plot(
            [0, *of_method["step"]], [1.0, *of_method["mean"]], lw=1.2, marker="o", ms=3, **style
        )
    place.axhline(0, color="0.3", lw=0.9, ls=":")
    place.set_xticks([0, *names.index], ["none", *names], rotation=60, ha="right")
    place.set(ylim=(min(-0.1, table["mean"].min() - 0.05), 1.05))
    # Label of the whole figure: beside a legend the axes may be narrower than the text.
    figure.supxlabel(
        "layers given random weights (names in the network), from the output up to this one",
        fontsize=8,
    )
    place.set_ylabel("rank correlation with the original")
    sns.despine(ax=place)
    handles = [Line2D([], [], label=method, **style) for method, style in styles.items()]
    legend_beside(figure, handles)
    head(figure, title)
    return figure
