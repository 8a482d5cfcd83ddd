"""Figure of a simulated cohort: tissue loss of its areas, and volumes of areas by group."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxplain.cohort.effects import TOLERANCE, per_patient
from voxplain.plots.figures import PAGE, Picture, head, in_print

_MOST_AREAS = 14


@in_print
def plot_simulation(
    measures: pd.DataFrame, table: pd.DataFrame, reference: str, title: str
) -> Figure:
    """Figure of the achieved against the intended loss, and of volumes of areas by group.

    Parameters
    ----------
    measures, reference
        See :func:`voxplain.cohort.effects.check_table`.
    table
        The result of :func:`voxplain.cohort.effects.check_table`.
    """
    areas = table[table["part"] == "area"]
    groups = list(areas["group"].unique())
    colours = dict(zip(groups, sns.color_palette("colorblind", len(groups)), strict=True))
    shown = _areas_that_differ_most(areas)
    height = 1.8 + 0.12 * len(shown) * len(groups)
    figure = Picture(figsize=(PAGE, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    people = per_patient(measures)
    losses = ["intended_loss", "achieved_loss"]
    most = max(105 * float(people[losses].max().max()), 1.0)
    left.fill_between(
        [0, most], *([0, most * ratio] for ratio in TOLERANCE), color="0.93", label="tolerance"
    )
    left.plot([0, most], [0, most], color="0.4", lw=0.9, ls="--", label="as intended")
    for group, of_group in areas.groupby("group", sort=False):
        of_patients = people[people["group"] == group]
        left.scatter(
            *(100 * of_patients[key] for key in losses), s=6, alpha=0.4, color=colours[group]
        )
        left.plot(
            *(100 * of_group[key] for key in losses),
            "o",
            ms=5,
            mec="white",
            mew=0.6,
            color=colours[group],
            label=group,
        )
    left.set(
        xlim=(-0.03 * most, most),
        ylim=(-0.03 * most, most),
        xlabel="tissue lost, intended (%)",
        ylabel="tissue lost, achieved (%)",
    )
    left.set_title("small: an area of a patient; large: mean over patients", fontsize=8)
    left.legend(frameon=False)
    _draw_volumes(right, measures, shown, reference, colours)
    for axis in (left, right):
        sns.despine(ax=axis)
    head(figure, title)
    return figure


def _areas_that_differ_most(areas: pd.DataFrame) -> list[str]:
    """Areas with the largest effect, at most ``_MOST_AREAS``, in the order of the table."""
    order = list(areas["name"].unique())
    largest = areas.groupby("name")["cohens_d"].apply(lambda d: d.abs().max()).fillna(0)
    shown = set(largest.sort_values(ascending=False, kind="stable").index[:_MOST_AREAS])
    return [area for area in order if area in shown]


def _draw_volumes(
    axis: Axes,
    measures: pd.DataFrame,
    shown: Sequence[str],
    reference: str,
    colours: dict[str, tuple[float, ...]],
) -> None:
    people = per_patient(measures)
    usual = people[people["group"] == reference].groupby("area")["volume_ml"].mean()
    of_areas = people[people["area"].isin(shown)]
    of_areas = of_areas.assign(relative=100 * of_areas["volume_ml"] / of_areas["area"].map(usual))
    arguments = {
        "x": "relative",
        "y": "area",
        "hue": "group",
        "order": shown,
        "data": of_areas,
        "ax": axis,
    }
    sns.boxplot(
        **arguments, palette=colours, fliersize=0, linewidth=0.7, fill=False, legend=False, gap=0.15
    )
    sns.stripplot(
        **arguments, palette=colours, dodge=True, size=2.5, jitter=0.05, alpha=0.7, legend=False
    )
    axis.axvline(100, color="0.4", lw=0.8, ls="--", zorder=0)
    axis.set(xlabel=f"volume of tissue (% of the mean of {reference})", ylabel="")
    axis.set_title("each point a patient", fontsize=8)
