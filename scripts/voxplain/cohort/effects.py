"""What a simulation did to its cohort, against what it was to do, and how far it tells classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# Achieved over intended loss of an area, in the mean of a group: borders of areas are soft and lie
# partly in fluid, which has no tissue to lose.
TOLERANCE = (0.7, 1.1)
# The features of the baselines, by the column they are taken from.
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
        One row a scan and area: ``patient``, ``group``, ``head``, ``area``, ``intended_loss``,
        ``volume_ml``, ``volume_without_ml``, ``intensity``, ``intensity_without``.
    reference
        The group that the others' volumes are compared with.

    Returns
    -------
    Rows of three parts, in the columns of :data:`COLUMNS`. ``area``: for each group and area the
    intended and the achieved loss of tissue and the change of brightness, as fractions (mean and
    SD over patients), and Cohen's d of the volumes against the reference. ``head``: the patients
    of each group that a head was dealt to. ``baseline``: for each pair of groups the ROC AUC of a
    logistic regression on the areas' volumes, or intensities, see :func:`baseline_auc`.
    """
    rows = [*_area_rows(measures, reference), *_head_rows(measures)]
    groups = [group for group in measures["group"].unique() if group != reference]
    for pair in combinations([*groups, reference], 2):
        for name, column in BASELINES.items():
            auc, low, high, patients = baseline_auc(measures, column, pair)
            told = {"part": "baseline", "group": " / ".join(pair), "name": name}
            rows.append({**told, "patients": patients, "roc_auc": auc, "low": low, "high": high})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def per_patient(measures: pd.DataFrame) -> pd.DataFrame:
    """Group, patient and area with the mean over a patient's scans of all measures and changes."""
    told = measures.assign(
        achieved_loss=1 - measures["volume_ml"] / measures["volume_without_ml"],
        intensity_change=measures["intensity"] / measures["intensity_without"] - 1,
    )
    keys = ["group", "area", "patient"]
    return told.groupby(keys, sort=False).mean(numeric_only=True).reset_index()


def _area_rows(measures: pd.DataFrame, reference: str) -> list[dict[str, object]]:
    rows = []
    people = per_patient(measures)
    volumes = dict(iter(people[people["group"] == reference].groupby("area")["volume_ml"]))
    for (group, area), own in people.groupby(["group", "area"], sort=False):
        row = {"part": "area", "group": group, "name": area, "patients": len(own)}
        row["intended_loss"] = own["intended_loss"].mean()
        for change in ("achieved_loss", "intensity_change"):
            row |= {change: own[change].mean(), f"{change}_sd": own[change].std(ddof=1)}
        if group != reference and area in volumes:
            row["cohens_d"] = cohens_d(own["volume_ml"], volumes[area])
        rows.append(row)
    return rows


def _head_rows(measures: pd.DataFrame) -> list[dict[str, object]]:
    dealt = measures.groupby(["group", "head"], sort=False)["patient"].nunique()
    return [
        {"part": "head", "group": group, "name": head, "patients": count}
        for (group, head), count in dealt.items()
    ]


def cohens_d(values: Sequence[float], others: Sequence[float]) -> float:
    """Difference of two means in pooled standard deviations (Cohen 1988, section 2.2).

    nan where a side has fewer than two values or nothing varies.
    """
    a, b = np.asarray(values, np.float64), np.asarray(others, np.float64)
    if min(len(a), len(b)) < 2:
        return np.nan
    squares = (len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)
    pooled = np.sqrt(squares / (len(a) + len(b) - 2))
    return float((a.mean() - b.mean()) / pooled) if pooled > 0 else np.nan


def baseline_auc(
    measures: pd.DataFrame, column: str, pair: tuple[str, str], folds: int = 5, draws: int = 1000
) -> tuple[float, float, float, int]:
    """How well a logistic regression on one measure of all areas tells two groups apart.

    A patient is one row, the mean over their scans; one with scans in both groups counts under the
    first. Each is predicted by a regression on others, in a stratified cross-validation.

    Parameters
    ----------
    measures
        See :func:`check_table`.
    column
        The measure.
    pair
        The two groups, the disease first.
    folds
        Of the cross-validation; as many as the smaller group has patients, if these are fewer.
    draws
        Of the bootstrap over patients, each group for itself.

    Returns
    -------
    ROC AUC over all pairs of patients in one fold, the ends of its 95 % interval (it holds the
    regressions as they are: patients are drawn, not folds), and the number of patients; nan where a
    group has less than two.
    """
    people = pd.concat(
        measures[measures["group"] == group].pivot_table(
            index="patient", columns="area", values=column, sort=False
        )
        for group in pair
    )
    counts = [measures.loc[measures["group"] == group, "patient"].nunique() for group in pair]
    ill = np.arange(len(people)) < counts[0]
    twice = people.index.duplicated()
    people, ill = people[~twice], ill[~twice]
    smaller = int(min(ill.sum(), (~ill).sum()))
    if smaller < 2:
        return np.nan, np.nan, np.nan, len(people)
    # An area too small for a scanner's voxels has no measure in some scan.
    features = people.dropna(axis="columns")
    data = features.to_numpy()
    dealt = StratifiedKFold(min(folds, smaller), shuffle=True, random_state=0)
    found, fold = np.empty(len(ill)), np.empty(len(ill), np.int64)
    for number, (train, test) in enumerate(dealt.split(data, ill)):
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        regression.fit(data[train], ill[train])
        found[test], fold[test] = regression.decision_function(data[test]), number
    auc, low, high = _pairs_in_order(found, fold, ill, draws)
    return auc, low, high, len(people)


def _pairs_in_order(
    found: np.ndarray, fold: np.ndarray, ill: np.ndarray, draws: int
) -> tuple[float, float, float]:
    """The share of pairs in their order, which is the ROC AUC, and its percentile bootstrap.

    Only patients of one fold make a pair: regressions that were fitted on others differ in their
    offset, the more the fewer patients there are, and against the side that was left out.
    """
    above, below = found[ill][:, None], found[~ill]
    pairs = (fold[ill][:, None] == fold[~ill]).astype(float)
    ordered = pairs * ((above > below) + 0.5 * (above == below))
    draw = np.random.default_rng(0)
    # How often each patient is drawn.
    often = [draw.multinomial(n, np.full(n, 1 / n), size=draws) for n in pairs.shape]
    drawn, in_order = (((often[0] @ of) * often[1]).sum(axis=1) for of in (pairs, ordered))
    # A draw without a single pair says nothing.
    aucs = in_order[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(aucs, [0.025, 0.975])
    return float(ordered.sum() / pairs.sum()), float(low), float(high)
