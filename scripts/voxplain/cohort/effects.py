"""Achieved and intended effects of a simulation, and how well they separate the classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# Allowed ratio of achieved to intended loss of an area, mean of a group: the borders of areas are
# soft and lie partly in fluid, which has no tissue to lose.
TOLERANCE = (0.7, 1.1)
# Baseline to the column of its features.
BASELINES = {"volumes": "volume_ml", "intensities": "intensity"}
COLUMNS = (
    "part",
    "group",
    "name",
    "patients",
    "intended_loss",
    "achieved_loss",
    "achieved_loss_sd",
    "intensity_change",
    "intensity_change_sd",
    "cohens_d",
    "roc_auc",
    "low",
    "high",
)


def check_table(measures: pd.DataFrame, reference: str) -> pd.DataFrame:
    """The check table of a cohort.

    Parameters
    ----------
    measures
        One row for each scan and area: ``patient``, ``group``, ``head``, ``area``,
        ``intended_loss``, ``volume_ml``, ``volume_without_ml``, ``intensity``,
        ``intensity_without``.
    reference
        The group that the volumes of the other groups are compared with.

    Returns
    -------
    Rows of three parts, in the columns of :data:`COLUMNS`. ``area``: for each group and area the
    intended and the achieved loss of tissue and the change of brightness, as fractions (mean and
    SD over patients), and Cohen's d of the volumes against the reference. ``head``: the number of
    patients of each group that are made from a head. ``baseline``: for each pair of groups the ROC
    AUC of a logistic regression on the areas' volumes, or intensities, see :func:`baseline_auc`.
    """
    rows = [*_area_rows(measures, reference), *_head_rows(measures)]
    groups = [group for group in measures["group"].unique() if group != reference]
    for pair in combinations([*groups, reference], 2):
        for name, column in BASELINES.items():
            auc, low, high, patients = baseline_auc(measures, column, pair)
            labels = {"part": "baseline", "group": " / ".join(pair), "name": name}
            rows.append({**labels, "patients": patients, "roc_auc": auc, "low": low, "high": high})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def per_patient(measures: pd.DataFrame) -> pd.DataFrame:
    """Rows of group, area and patient: means of all measures and changes over a patient's scans."""
    with_changes = measures.assign(
        achieved_loss=1 - measures["volume_ml"] / measures["volume_without_ml"],
        intensity_change=measures["intensity"] / measures["intensity_without"] - 1,
    )
    keys = ["group", "area", "patient"]
    return with_changes.groupby(keys, sort=False).mean(numeric_only=True).reset_index()


def _area_rows(measures: pd.DataFrame, reference: str) -> list[dict[str, object]]:
    rows = []
    patients = per_patient(measures)
    volumes = dict(iter(patients[patients["group"] == reference].groupby("area")["volume_ml"]))
    for (group, area), area_measures in patients.groupby(["group", "area"], sort=False):
        row = {"part": "area", "group": group, "name": area, "patients": len(area_measures)}
        row["intended_loss"] = area_measures["intended_loss"].mean()
        for change in ("achieved_loss", "intensity_change"):
            row |= {
                change: area_measures[change].mean(),
                f"{change}_sd": area_measures[change].std(ddof=1),
            }
        if group != reference and area in volumes:
            row["cohens_d"] = cohens_d(area_measures["volume_ml"], volumes[area])
        rows.append(row)
    return rows


def _head_rows(measures: pd.DataFrame) -> list[dict[str, object]]:
    dealt = measures.groupby(["group", "head"], sort=False)["patient"].nunique()
    return [
        {"part": "head", "group": group, "name": head, "patients": count}
        for (group, head), count in dealt.items()
    ]


def cohens_d(values: Sequence[float], reference: Sequence[float]) -> float:
    """Difference of two means in pooled standard deviations (Cohen 1988, section 2.2).

    nan if one side has fewer than two values or all values are equal.
    """
    a, b = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    if min(len(a), len(b)) < 2:
        return np.nan
    squares = (len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)
    pooled = np.sqrt(squares / (len(a) + len(b) - 2))
    return float((a.mean() - b.mean()) / pooled) if pooled > 0 else np.nan


def baseline_auc(
    measures: pd.DataFrame, column: str, pair: tuple[str, str], folds: int = 5, draws: int = 1000
) -> tuple[float, float, float, int]:
    """ROC AUC of a logistic regression that classifies two groups by one measure of all areas.

    A patient is one row, the mean over the patient's scans; a patient with scans in both groups
    belongs to the first. Each patient is predicted by a regression that was fitted without this
    patient, in a stratified cross-validation.

    Parameters
    ----------
    measures
        See :func:`check_table`.
    column
        The measure.
    pair
        The two groups, the disease first.
    folds
        Number of folds of the cross-validation, or that of patients in the smaller group, if less.
    draws
        Number of draws of the bootstrap over patients, drawn within each group.

    Returns
    -------
    ROC AUC over all pairs of patients in the same fold, the limits of its 95 % interval (patients
    are drawn, the regressions are not fitted again), and the number of patients. The first three
    are nan if a group has fewer than two patients.
    """
    patients = pd.concat(
        measures[measures["group"] == group].pivot_table(
            index="patient", columns="area", values=column, sort=False
        )
        for group in pair
    )
    counts = [measures.loc[measures["group"] == group, "patient"].nunique() for group in pair]
    diseased = np.arange(len(patients)) < counts[0]
    repeated = patients.index.duplicated()
    patients, diseased = patients[~repeated], diseased[~repeated]
    smaller = int(min(diseased.sum(), (~diseased).sum()))
    if smaller < 2:
        return np.nan, np.nan, np.nan, len(patients)
    # An area that is smaller than a scanner's voxels has no measure in some scans.
    features = patients.dropna(axis="columns")
    data = features.to_numpy()
    splitter = StratifiedKFold(min(folds, smaller), shuffle=True, random_state=0)
    scores, fold = np.empty(len(diseased)), np.empty(len(diseased), np.int64)
    for number, (train, test) in enumerate(splitter.split(data, diseased)):
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        regression.fit(data[train], diseased[train])
        scores[test], fold[test] = regression.decision_function(data[test]), number
    auc, low, high = _pairs_in_order(scores, fold, diseased, draws)
    return auc, low, high, len(patients)


def _pairs_in_order(
    scores: np.ndarray, fold: np.ndarray, diseased: np.ndarray, draws: int
) -> tuple[float, float, float]:
    """The share of correctly ordered pairs, which is the ROC AUC, and its bootstrap interval.

    Only patients of the same fold make a pair. The regressions of different folds differ in their
    offset: the fewer the patients, the larger the difference, and it works against the patients
    that were left out.
    """
    above, below = scores[diseased][:, None], scores[~diseased]
    pairs = (fold[diseased][:, None] == fold[~diseased]).astype(float)
    ordered = pairs * ((above > below) + 0.5 * (above == below))
    generator = np.random.default_rng(0)
    # How many times each patient is drawn, ``[draws, patients]`` for each group.
    draw_counts = [generator.multinomial(n, np.full(n, 1 / n), size=draws) for n in pairs.shape]
    drawn, in_order = (
        ((draw_counts[0] @ weights) * draw_counts[1]).sum(axis=1) for weights in (pairs, ordered)
    )
    # A draw without any pair has no AUC.
    aucs = in_order[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(aucs, [0.025, 0.975])
    return float(ordered.sum() / pairs.sum()), float(low), float(high)
