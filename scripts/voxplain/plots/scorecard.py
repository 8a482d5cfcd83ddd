"""Figure of the scorecard: how well each method finds the truth, by cohort and network."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from voxplain.comparison.scorecard import ENOUGH, exceeds_chance
from voxplain.plots.figures import Picture, head, in_print

# Range of the colour scale in times chance: from a quarter to sixteen times.
_LEAST, _MOST = 1 / 4, 16.0
_COLUMN = ["cohort", "task", "model"]


@in_print
def plot_scorecard(
    table: pd.DataFrame,
    title: str,
    baselines: Sequence[str] = (),
    enough: float = ENOUGH,
) -> Figure:
    """Figure of the average precision in times chance: a row for each method.

    A cell shows the average precision divided by chance, and below it the interval. A frame marks
    cells with at least ``enough`` times chance and an interval above chance. Methods are ordered by
    their mean (of logarithms) over columns; baselines follow in grey.

    Parameters
    ----------
    table
        See :func:`voxplain.comparison.scorecard.scorecard`; one row for each cell. A cell without a
        row stays empty; a table without rows gives a figure with a sentence.
    baselines
        The methods that do not explain a network.
    enough
        Threshold of the frame, in times chance.
    """
    columns = list(table[_COLUMN].drop_duplicates().itertuples(index=False, name=None))
    cells = {(row["method"], *(row[k] for k in _COLUMN)): row for row in table.to_dict("records")}
    methods = _order(table, baselines)
    longest = max((len(method) for method in methods), default=0)
    width = max(0.4 + 0.065 * longest + 1.0 * len(columns) + 0.8, 4.5)
    figure = Picture(figsize=(width, 0.36 * len(methods) + 1.37), layout="constrained")
    place = figure.subplots()
    if not columns:
        place.axis("off")
        place.text(0.5, 0.5, "no scan here was simulated with anything to find", ha="center")
        return figure
    values = np.full((len(methods), len(columns)), np.nan)
    for y, method in enumerate(methods):
        for x, column in enumerate(columns):
            if cell := cells.get((method, *column)):
                values[y, x] = cell["times_chance"]
    image = place.imshow(
        np.log2(np.clip(values, _LEAST, _MOST)),
        cmap="PuOr_r",
        vmin=-np.log2(_MOST),
        vmax=np.log2(_MOST),
        aspect="auto",
    )
    for y, method in enumerate(methods):
        for x, column in enumerate(columns):
            _write_cell(place, x, y, cells.get((method, *column)), enough)
    tasks = table["task"].nunique()
    names = [
        "\n".join([cohort, *([task] if tasks > 1 else []), textwrap.fill(model, 18)])
        for cohort, task, model in columns
    ]
    place.set_xticks(range(len(columns)), names, parse_math=False)
    place.set_yticks(range(len(methods)), methods)
    for tick, method in zip(place.get_yticklabels(), methods, strict=True):
        tick.set_color("0.5" if method in baselines else "black")
    place.xaxis.tick_top()
    place.tick_params(length=0)
    for edge in place.spines.values():
        edge.set_visible(False)
    bar = figure.colorbar(image, ax=place, fraction=0.03, pad=0.02)
    ticks = [1 / 4, 1, 2, 4, 16]
    bar.set_ticks(np.log2(ticks), labels=["≤ ¼", "1 (chance)", "2", "4", "≥ 16"], fontsize=7)
    bar.ax.set_ylim(np.log2(_LEAST), np.log2(_MOST))
    head(figure, title)
    return figure


def _order(table: pd.DataFrame, baselines: Sequence[str]) -> list[str]:
    """Methods from best to worst, then baselines; methods without a score come last."""
    heights = table.assign(height=np.log(np.clip(table["times_chance"].astype(float), 1e-3, None)))
    means = heights.groupby("method", sort=False)["height"].mean()
    order = list(means.sort_values(ascending=False, kind="stable").index)
    return [m for m in order if m not in baselines] + [m for m in order if m in baselines]


def _write_cell(place: Axes, x: int, y: int, cell: dict | None, enough: float) -> None:
    if cell is None:
        return
    times, low, high = (float(cell[f"times_{key}"]) for key in ("chance", "low", "high"))
    if np.isnan(times):
        place.text(x, y, "n/a", fontsize=7, color="0.5", ha="center", va="center")
        return
    ink = "white" if times > 7 else "black"
    between = "" if np.isnan(low) else f"{low:.1f} to {high:.1f}"
    above = 0.14 if between else 0
    place.text(x, y - above, f"{times:.1f} ×", fontsize=8, color=ink, ha="center", va="center")
    place.text(x, y + 0.24, between, fontsize=5.5, color=ink, ha="center", va="center")
    if exceeds_chance(cell, enough):
        place.add_patch(
            Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, edgecolor="black", lw=1.2)
        )
