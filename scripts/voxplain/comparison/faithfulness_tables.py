"""Tables of how well heatmaps follow their network: areas under curves, means over patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from voxplain.comparison.faithfulness import CURVES, DIRECTIONS, RANDOM
from voxplain.comparison.localisation import bootstrap_mean, summarise
from voxplain.faults import SetupFault

_CURVE = list(CURVES[:6])


def area_under(fraction: Sequence[float], probability: Sequence[float]) -> float:
    """Area under a curve by the trapezoid rule.

    Raises
    ------
    SetupFault
        There are fewer than two points, or the fractions do not rise from 0 to 1.
    """
    at = np.asarray(fraction, np.float64)
    if len(at) < 2 or at[0] != 0 or at[-1] != 1 or (np.diff(at) <= 0).any():
        raise SetupFault("a curve's fractions rise from 0 to 1")
    return float(np.trapezoid(np.asarray(probability, np.float64), at))


def score_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """The areas under each scan's curves, beside those of random orders.

    ``deletion`` and ``insertion`` are the areas under the two curves (Petsiuk, Das and Saenko 2018,
    RISE, section 4.2), ``faithfulness`` is insertion minus deletion: where areas that speak for the
    target come first, its probability falls soon when they go and rises soon when they come.
    ``gain`` is the faithfulness minus that of random orders of the same scan.

    Parameters
    ----------
    curves
        With the columns of :data:`voxplain.comparison.faithfulness.CURVES`, those of random orders
        among them.

    Returns
    -------
    One row a method, draw, scan and measure: ``method``, ``draw``, ``image``, ``patient``,
    ``class``, ``measure``, ``value`` and ``chance``, the mean over that scan's random orders.
    Random orders are among the methods.

    Raises
    ------
    SetupFault
        As :func:`area_under`.
    """
    keys = _CURVE[:-1]
    if curves.empty:
        return pd.DataFrame(columns=[*keys, "measure", "value", "chance"])
    under = [
        (*key, area_under(curve["fraction"], curve["probability"]))
        for key, curve in curves.sort_values("step").groupby(_CURVE, sort=False)
    ]
    wide = pd.DataFrame(under, columns=[*_CURVE, "value"]).pivot(
        index=keys, columns="direction", values="value"
    )
    wide["faithfulness"] = wide["insertion"] - wide["deletion"]
    chance = wide.xs(RANDOM, level="method").groupby("image")["faithfulness"].mean()
    expected = chance.reindex(wide.index.get_level_values("image")).to_numpy()
    wide["gain"] = wide["faithfulness"] - expected
    scores = wide.melt(ignore_index=False, var_name="measure").reset_index()
    chances = scores[scores["method"] == RANDOM].groupby(["image", "measure"])["value"].mean()
    scores["chance"] = chances.reindex(
        pd.MultiIndex.from_frame(scores[["image", "measure"]])
    ).to_numpy()
    scores.loc[scores["measure"] == "gain", "chance"] = 0.0  # but for rounding
    return scores


def summarise_scores(scores: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Means over patients of :func:`score_curves`, with intervals, and chance with its SD.

    Parameters
    ----------
    methods
        In the order of the rows; random orders, which are chance, not among them.

    Returns
    -------
    One row for each method, class and measure: ``mean``, ``low``, ``high`` as
    :func:`voxplain.comparison.localisation.summarise` has them, ``chance`` (the mean over random
    orders), ``chance_sd`` (over the orders' means; nan for one order), ``scans``, ``patients``.
    """
    by = ["method", "class"]
    own = scores[scores["method"] != RANDOM]
    for key, order in (("class", list(own["class"].unique())), ("method", list(methods))):
        own = own.sort_values(key, key=lambda names, o=order: names.map(o.index), kind="stable")
    table = summarise(own, by).drop(columns="times_chance")
    drawn = scores[scores["method"] == RANDOM]
    of_patients = drawn.groupby(["class", "measure", "draw", "patient"])["value"].mean()
    of_draws = of_patients.groupby(["class", "measure", "draw"]).mean()
    spread = of_draws.groupby(["class", "measure"]).std()
    places = pd.MultiIndex.from_frame(table[["class", "measure"]])
    sds = spread.reindex(places).to_numpy() if len(table) else np.empty(0)
    table.insert(table.columns.get_loc("chance") + 1, "chance_sd", sds)
    return table


def unmoved_classes(table: pd.DataFrame, least: float = 0.01) -> dict[str, float]:
    """Classes whose scans' probability hardly moves, in whatever order areas are changed.

    The heatmaps of such scans rank differences that are next to nothing, by whatever method.

    Parameters
    ----------
    table
        From :func:`summarise_scores`.
    least
        How far apart areas under curves of deletion and insertion, of methods and at random, must
        lie at least for the probability to be said to move.

    Returns
    -------
    Class to the mean probability, in the table's order.
    """
    found = {}
    for group, rows in table[table["measure"].isin(DIRECTIONS)].groupby("class", sort=False):
        areas = rows[["mean", "chance"]].to_numpy(np.float64)
        if np.isfinite(areas).any() and np.nanmax(areas) - np.nanmin(areas) < least:
            found[group] = float(np.nanmean(areas))
    return found


def mean_curves(curves: pd.DataFrame, points: int = 101) -> pd.DataFrame:
    """Curves of a table as means over patients, at even fractions of the brain.

    Between its own points a curve is straight, as the trapezoid rule takes it. Each patient counts
    once, and draws of random orders are told apart.

    Parameters
    ----------
    curves
        With the columns of :data:`voxplain.comparison.faithfulness.CURVES`.
    points
        How many fractions.

    Returns
    -------
    ``method``, ``draw``, ``class``, ``direction``, ``fraction``, ``probability``.
    """
    at = np.linspace(0, 1, points)
    keys = ["method", "draw", "class", "direction"]
    parts = [
        pd.DataFrame({**dict(zip(_CURVE, key, strict=True)), "fraction": at}).assign(
            probability=np.interp(at, curve["fraction"], curve["probability"])
        )
        for key, curve in curves.sort_values("step").groupby(_CURVE, sort=False)
    ]
    if not parts:
        return pd.DataFrame(columns=[*keys, "fraction", "probability"])
    of_patients = pd.concat(parts).groupby([*keys, "patient", "fraction"], sort=False)
    means = of_patients["probability"].mean().reset_index()
    return means.groupby([*keys, "fraction"], sort=False)["probability"].mean().reset_index()


def summarise_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations while layers are made anew, as means over patients.

    Parameters
    ----------
    table
        One row a method, scan and step: ``method``, ``step``, ``layer``, ``patient``,
        ``rank_correlation`` (see
        :func:`voxplain.comparison.faithfulness.rank_correlation`).

    Returns
    -------
    One row a method and step: ``method``, ``step``, ``layer``, ``mean``, ``low``, ``high`` (see
    :func:`voxplain.comparison.localisation.bootstrap_mean`), ``scans``, ``patients``. Scans without
    a correlation are left out; where none is left, the numbers are nan and the counts 0.
    """
    rows = []
    for key, group in table.groupby(["method", "step", "layer"], sort=False):
        valid = group[group["rank_correlation"].notna()]
        found = bootstrap_mean(valid["rank_correlation"].astype(float), valid["patient"])
        rows.append([*key, *found, len(valid), valid["patient"].nunique()])
    columns = ["method", "step", "layer", "mean", "low", "high", "scans", "patients"]
    return pd.DataFrame(rows, columns=columns)
