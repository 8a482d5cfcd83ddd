"""Which method finds what is there, over all cohorts and networks of a run; and that in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from voxplain.comparison.localisation import summarise
from voxplain.comparison.models import CROSS_VALIDATION, NETWORK
from voxplain.faults import SetupFault

# Times chance from which a method is said to find the truth.
ENOUGH = 2.0
KEYS = ["cohort", "task", "model", "method"]


def scorecard(
    scores: pd.DataFrame,
    region: str = "truth",
    smoothing_mm: float = 0.0,
    measure: str = "average_precision",
    draws: int = 1000,
) -> pd.DataFrame:
    """One measure of every method on every network of every cohort, over all splits and seeds.

    A patient counts once, with the mean of their scans, splits and seeds; intervals are of a
    bootstrap over patients (:func:`voxplain.comparison.localisation.summarise`), so that they hold
    for these networks and not for others that could be trained.

    Parameters
    ----------
    scores
        One row a scan, split, seed and measure: ``cohort``, ``task``, ``model``, ``method``,
        ``patient``, ``region``, ``smoothing_mm``, ``measure``, ``value``, ``chance``.
    region, smoothing_mm, measure
        Which of them.

    Returns
    -------
    One row for each cohort, task, model and method in the order in which they come first: ``mean``,
    ``low``, ``high``, ``chance``, ``times_chance``, ``times_low`` and ``times_high`` (the interval
    over the mean chance), ``patients``. None where no scan has such a region.

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


def finds(row: Mapping[str, float], enough: float = ENOUGH) -> bool:
    """Whether a method finds the truth: ``enough`` times chance, its interval above chance."""
    return row["times_chance"] >= enough and row["times_low"] > 1


def findings(
    card: pd.DataFrame,
    networks: pd.DataFrame,
    effects: Mapping[str, Sequence[str] | None],
    baselines: Sequence[str] = (),
    enough: float = ENOUGH,
) -> Iterator[str]:
    """What a run says, in a sentence for each cohort and network.

    Parameters
    ----------
    card
        See :func:`scorecard`.
    networks
        ``cohort``, ``task``, ``model``, ``kind``, ``evaluation``, ``roc_auc``, ``roc_auc_low`` and
        ``roc_auc_high`` on patients that the network was not trained on; a row for each network,
        and for each baseline that predicts without one (``kind``, see
        :data:`voxplain.comparison.models.KINDS`).
    effects
        Cohort to what was simulated that can tell its classes apart: ``disease``, ``shortcut``,
        both, or nothing; None for scans of real people.
    baselines
        Those of the methods that explain no network.
    enough
        Times chance from which a method is said to find the truth.
    """
    for network in networks[networks["kind"] == NETWORK].to_dict("records"):
        own = card[(card[["cohort", "task", "model"]] == _of(network)).all(axis=1)]
        methods = own[~own["method"].isin(baselines)].sort_values(
            "times_chance", ascending=False, kind="stable"
        )
        told = f"{network['cohort']}, {network['task']}, {network['model']}: ROC AUC "
        told += (
            f"{network['roc_auc']:.2f}{_between(network['roc_auc_low'], network['roc_auc_high'])}"
        )
        told += _meaning(network, effects.get(network["cohort"]))
        others = networks[(networks[KEYS[:2]] == _of(network)[:2]).all(axis=1)]
        for row in others[others["kind"] != NETWORK].to_dict("records"):
            told += f"; {row['model']} {row['roc_auc']:.2f}"
        if len(methods):
            found = [row for row in methods.to_dict("records") if finds(row, enough)]
            told += f". {len(found)} of {len(methods)} methods find the truth at {enough:g} times "
            told += "chance or better"
            if methods["times_low"].isna().all():
                told += " (of one patient there is no interval, without which none can)"
            if found:
                names = (f"{row['method']} ({row['times_chance']:.1f})" for row in found)
                told += f": {', '.join(names)}"
            for row in own[own["method"].isin(baselines)].to_dict("records"):
                told += f"; {row['method']}, without a network: {row['times_chance']:.1f}"
        yield f"{told}."


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
        told = ", without any disease: the shortcut alone"
        return f"{told}, which the network does not see" if low <= 0.5 else told
    nothing = ": the network tells nothing apart" if low <= 0.5 else ""
    return (
        f", with a shortcut beside the disease{nothing}"
        if effects and "shortcut" in effects
        else nothing
    )
