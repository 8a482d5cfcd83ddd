"""Tables of faithfulness: areas under deletion and insertion curves, and means over patients."""

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
    """Areas under the curves of each scan, with the mean of random orders beside them.

    ``deletion`` and ``insertion`` are the areas under the two curves (Petsiuk, Das and Saenko 2018,
    RISE, section 4.2). ``faithfulness`` is insertion minus deletion: if the areas that support the
    target come first, its probability falls early when they are deleted and rises early when they
    are inserted. ``gain`` is the faithfulness minus that of random orders of the same scan.

    Parameters
    ----------
    curves
        Table with the columns of :data:`voxplain.comparison.faithfulness.CURVES`, random orders
        included.

    Returns
    -------
    One row a method, draw, scan and measure: ``method``, ``draw``, ``image``, ``patient``,
    ``class``, ``measure``, ``value`` and ``chance``, the mean over that scan's random orders.
    Random orders are listed as a method.

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
        In the order of the rows, without random orders, which are chance.

    Returns
    -------
    One row for each method, class and measure: ``mean``, ``low``, ``high`` as
    :func:`voxplain.comparison.localisation.summarise` has them, ``chance`` (the mean over random
    orders), ``chance_sd`` (over the orders' means; nan for one order), ``scans``, ``patients``.
    """
    by = ["method", "class"]
    of_methods = scores[scores["method"] != RANDOM]
    for key, order in (("class", list(of_methods["class"].unique())), ("method", list(methods))):
        of_methods = of_methods.sort_values(
            key, key=lambda names, o=order: names.map(o.index), kind="stable"
        )
    table = summarise(of_methods, by).drop(columns="times_chance")
    drawn = scores[scores["method"] == RANDOM]
    of_patients = drawn.groupby(["class", "measure", "draw", "patient"])["value"].mean()
    of_draws = of_patients.groupby(["class", "measure", "draw"]).mean()
    spread = of_draws.groupby(["class", "measure"]).std()
    places = pd.MultiIndex.from_frame(table[["class", "measure"]])
    sds = spread.reindex(places).to_numpy() if len(table) else np.empty(0)
    table.insert(table.columns.get_loc("chance") + 1, "chance_sd", sds)
    return table


def unmoved_classes(table: pd.DataFrame, least: float = 0.01) -> dict[str, float]:
    """Classes in which the probability hardly changes, whatever the order of the areas.

    For such scans the heatmaps of all methods rank differences that are close to zero.

    Parameters
    ----------
    table
        From :func:`summarise_scores`.
    least
        Smallest range of the areas under the deletion and insertion curves, of methods and of
        random orders, from which on the probability counts as changed.

    Returns
    -------
    Class to the mean probability, in the table's order.
    """
    unmoved = {}
    for group, rows in table[table["measure"].isin(DIRECTIONS)].groupby("class", sort=False):
        areas = rows[["mean", "chance"]].to_numpy(np.float64)
        if np.isfinite(areas).any() and np.nanmax(areas) - np.nanmin(areas) < least:
            unmoved[group] = float(np.nanmean(areas))
    return unmoved


def mean_curves(curves: pd.DataFrame, points: int = 101) -> pd.DataFrame:
    """Mean curves over patients, at evenly spaced fractions of the brain.

    Between its points a curve is interpolated linearly, as in the trapezoid rule. Each patient
    counts once. Draws of random orders stay separate.

    Parameters
    ----------
    curves
        With the columns of :data:`voxplain.comparison.faithfulness.CURVES`.
    points
        Number of fractions.

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
    """Mean rank correlations over patients, for each step of the layer randomisation.

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
    a correlation are left out. If no scan is left, the means are nan and the counts 0.
    """
    rows = []
    for key, group in table.groupby(["method", "step", "layer"], sort=False):
        valid = group[group["rank_correlation"].notna()]
        mean_and_interval = bootstrap_mean(
            valid["rank_correlation"].astype(float), valid["patient"]
        )
        rows.append([*key, *mean_and_interval, len(valid), valid["patient"].nunique()])
    columns = ["method", "step", "layer", "mean", "low", "high", "scans", "patients"]
    return pd.DataFrame(rows, columns=columns)
