"""Scores of all methods over all cohorts and networks of a run, and sentences about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from voxplain.comparison.localisation import summarise
from voxplain.comparison.models import CROSS_VALIDATION, NETWORK
from voxplain.faults import SetupFault

# A method finds the truth if its score is at least this many times chance.
ENOUGH = 2.0
KEYS = ["cohort", "task", "model", "method"]


def scorecard(
    scores: pd.DataFrame,
    region: str = "truth",
    smoothing_mm: float = 0.0,
    measure: str = "average_precision",
    draws: int = 1000,
) -> pd.DataFrame:
    """Table of one measure for each method, network and cohort, over all splits and seeds.

    A patient counts once, with the mean over their scans, splits and seeds. Intervals come from a
    bootstrap over patients (:func:`voxplain.comparison.localisation.summarise`). They therefore
    hold for these networks, not for networks that are trained again.

    Parameters
    ----------
    scores
        One row a scan, split, seed and measure: ``cohort``, ``task``, ``model``, ``method``,
        ``patient``, ``region``, ``smoothing_mm``, ``measure``, ``value``, ``chance``.
    region, smoothing_mm, measure
        The region, smoothing and measure to select.

    Returns
    -------
    One row for each cohort, task, model and method, in order of first appearance: ``mean``,
    ``low``, ``high``, ``chance``, ``times_chance``, ``times_low`` and ``times_high`` (the interval
    divided by the mean chance), ``patients``. There is no row if no scan has the region.

    Raises
    ------
    SetupFault
        A column is missing.
    """
    missing = {*KEYS, "region", "smoothing_mm"}.difference(scores.columns)
    if missing:
        raise SetupFault(f"scores without the columns {', '.join(sorted(missing))}")
    chosen = scores[
        (scores["region"] == region)
        & np.isclose(scores["smoothing_mm"].astype(float), smoothing_mm)
        & (scores["measure"] == measure)
    ]
    card = summarise(chosen, KEYS, draws)
    card = card[card["patients"] > 0].reset_index(drop=True)
    for end in ("low", "high"):
        card[f"times_{end}"] = card[end] / card["chance"]
    columns = ["mean", "low", "high", "chance", "times_chance", "times_low", "times_high"]
    return card[[*KEYS, *columns, "patients"]]


def exceeds_chance(row: Mapping[str, float], enough: float = ENOUGH) -> bool:
    """Whether a method finds the truth: ``enough`` times chance, and the interval above chance."""
    return row["times_chance"] >= enough and row["times_low"] > 1


def findings(
    card: pd.DataFrame,
    networks: pd.DataFrame,
    effects: Mapping[str, Sequence[str] | None],
    baselines: Sequence[str] = (),
    enough: float = ENOUGH,
) -> Iterator[str]:
    """Sentences with the main result, one for each cohort and network.

    Parameters
    ----------
    card
        See :func:`scorecard`.
    networks
        ``cohort``, ``task``, ``model``, ``kind``, ``evaluation``, ``roc_auc``, ``roc_auc_low`` and
        ``roc_auc_high`` on patients that the network was not trained on. One row for each network
        and for each baseline that predicts without a network (``kind``, see
        :data:`voxplain.comparison.models.KINDS`).
    effects
        Cohort to the simulated differences between its classes: ``disease``, ``shortcut``, both,
        or an empty list; None for scans of real people.
    baselines
        The methods that do not explain a network.
    enough
        A method finds the truth if its score is at least this many times chance.
    """
    for network in networks[networks["kind"] == NETWORK].to_dict("records"):
        of_network = card[(card[["cohort", "task", "model"]] == _of(network)).all(axis=1)]
        methods = of_network[~of_network["method"].isin(baselines)].sort_values(
            "times_chance", ascending=False, kind="stable"
        )
        sentence = f"{network['cohort']}, {network['task']}, {network['model']}: ROC AUC "
        sentence += (
            f"{network['roc_auc']:.2f}{_between(network['roc_auc_low'], network['roc_auc_high'])}"
        )
        sentence += _meaning(network, effects.get(network["cohort"]))
        of_task = networks[(networks[KEYS[:2]] == _of(network)[:2]).all(axis=1)]
        for row in of_task[of_task["kind"] != NETWORK].to_dict("records"):
            sentence += f"; {row['model']} {row['roc_auc']:.2f}"
        if len(methods):
            successful = [row for row in methods.to_dict("records") if exceeds_chance(row, enough)]
            sentence += (
                f". {len(successful)} of {len(methods)} methods find the truth at {enough:g} times "
            )
            sentence += "chance or better"
            if methods["times_low"].isna().all():
                sentence += " (of one patient there is no interval, without which none can)"
            if successful:
                names = (f"{row['method']} ({row['times_chance']:.1f})" for row in successful)
                sentence += f": {', '.join(names)}"
            for row in of_network[of_network["method"].isin(baselines)].to_dict("records"):
                sentence += f"; {row['method']}, without a network: {row['times_chance']:.1f}"
        yield f"{sentence}."


def _of(network: Mapping[str, object]) -> list[object]:
    return [network[key] for key in ("cohort", "task", "model")]


def _between(low: float, high: float) -> str:
    return "" if np.isnan(low) or np.isnan(high) else f" ({low:.2f} to {high:.2f})"


def _meaning(network: Mapping[str, Any], effects: Sequence[str] | None) -> str:
    low, high = network["roc_auc_low"], network["roc_auc_high"]
    if effects is not None and not effects:
        if np.isnan(low):
            return ", of labels that mean nothing"
        if low <= 0.5 <= high:
            return ": at chance, as labels that mean nothing must be"
        if high < 0.5:
            return ": below chance, by chance; nothing tells the classes apart"
        if network["evaluation"] == CROSS_VALIDATION:
            return (
                ": above chance, though the labels mean nothing; over folds the interval is too "
                "narrow, an external test can tell whether something leaks"
            )
        return ": above chance, though the labels mean nothing, so that something leaks"
    if effects == ["shortcut"]:
        text = ", without any disease: the shortcut alone"
        return f"{text}, which the network does not see" if low <= 0.5 else text
    nothing = ": the network tells nothing apart" if low <= 0.5 else ""
    return (
        f", with a shortcut beside the disease{nothing}"
        if effects and "shortcut" in effects
        else nothing
    )
