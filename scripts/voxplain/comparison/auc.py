"""Uncertainty of a ROC curve and its area: bootstrap over the test patients of networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from voxplain.training.predictions import PROBABILITY

DRAWS = 2000
SEED = 0


def draw_aucs(
    tables: Sequence[pd.DataFrame],
    classes: Sequence[str],
    roc_auc: str = "probabilities",
    draws: int = DRAWS,
) -> np.ndarray:
    """Bootstrap draws of the mean ROC AUC of networks, over their test patients.

    Patients of each class are drawn with replacement (Efron and Tibshirani 1993), as many as the
    class has. A patient who is drawn twice counts twice in every test: in all repeats of a
    cross-validation and for the networks of all seeds. So several predictions of one patient do not
    count as several patients. The ROC AUC is computed for each network on its test scans, then
    averaged over networks. Pooling the predictions of the folds first would be biased low if there
    is nothing to learn: a patient who is left out lowers the share of their class in the training
    set, so networks of different folds lean away from the classes that they are tested on (Parker,
    Guenter and Bedo 2007). Patients are not drawn within folds: with a handful of patients in each
    fold, much of the spread would be lost.

    The networks are not trained again. Folds share training patients, and all of them would learn
    something else from another cohort. The draws do not contain this variation, so an interval for
    a cross-validation is somewhat too narrow.

    Parameters
    ----------
    tables
        Predictions of each network, of scans or of patients, see
        :func:`voxplain.training.metrics.predictions_table`.
    classes, roc_auc
        See :func:`voxplain.training.metrics.measure`.
    draws
        Number of draws. The same patients give the same draws, so two models on the same splits can
        be compared draw by draw.

    Returns
    -------
    ``[draws]``; nan if no network can be measured. A network whose test scans lack a class in a
    draw is left out of that draw.
    """
    total, counted = np.zeros(draws), np.zeros(draws)
    for table, of_rows in _draw_patients(tables, classes, draws):
        areas = _weighted_aucs(table, of_rows, classes, roc_auc)
        total += np.nan_to_num(areas)
        counted += np.isfinite(areas)
    with np.errstate(invalid="ignore"):
        return total / counted


def draw_rocs(
    tables: Sequence[pd.DataFrame],
    classes: Sequence[str],
    group: str,
    at: np.ndarray,
    draws: int = DRAWS,
) -> np.ndarray:
    """Bootstrap draws of the mean ROC curve of networks; patients as in :func:`draw_aucs`.

    Parameters
    ----------
    group
        The class whose probability is used, against all other classes.
    at
        Values of 1 - specificity, 0 to 1.

    Returns
    -------
    Sensitivity ``[draws, len(at)]``; nan if no test can be measured.
    """
    total, counted = np.zeros((draws, len(at))), np.zeros((draws, 1))
    for table, weights in _draw_patients(tables, classes, draws):
        scores = table[PROBABILITY.format(group)].to_numpy(float)
        order = np.argsort(-scores, kind="stable")
        in_group = (table["class"] == group).to_numpy()[order]
        # Scans with equal probability share one threshold: the curve is straight between.
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
        counts = [
            np.cumsum(weights[:, order] * is_member, axis=1)[:, ends]
            for is_member in (in_group, ~in_group)
        ]
        for draw, (right, wrong) in enumerate(zip(*counts, strict=True)):
            if right[-1] and wrong[-1]:
                ups, along = np.append(0, right / right[-1]), np.append(0, wrong / wrong[-1])
                total[draw] += np.interp(at, along, ups)
                counted[draw] += 1
    with np.errstate(invalid="ignore"):
        return total / counted


def _draw_patients(
    tables: Sequence[pd.DataFrame], classes: Sequence[str], draws: int
) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Each table, and how often each of its rows counts in each draw, ``[draws, rows]``."""
    patients = pd.concat([table[["patient", "class"]] for table in tables])
    rank = {group: place for place, group in enumerate(classes)}
    # A patient with scans of several classes belongs to the first class, as in the splits.
    of_patients = patients["class"].map(rank).groupby(patients["patient"], sort=True).min()
    weights = np.zeros((draws, len(of_patients)))
    generator = np.random.default_rng(SEED)
    for place in range(len(classes)):
        (members,) = np.nonzero(of_patients.to_numpy() == place)
        if len(members):
            share = np.full(len(members), 1 / len(members))
            weights[:, members] = generator.multinomial(len(members), share, size=draws)
    for table in tables:
        yield table, weights[:, of_patients.index.get_indexer(table["patient"])]


def interval(aucs: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrapped values; nan if there is no finite value."""
    finite = aucs[np.isfinite(aucs)]
    if not len(finite):
        return np.nan, np.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def too_few(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> bool:
    """Whether a class has fewer than two patients, too few for a bootstrap."""
    patients = pd.concat([table[["patient", "class"]] for table in tables])
    counts = patients.groupby("class")["patient"].nunique()
    return any(counts.get(group, 0) < 2 for group in classes)


def _weighted_aucs(
    table: pd.DataFrame, weights: np.ndarray, classes: Sequence[str], roc_auc: str
) -> np.ndarray:
    """ROC AUC of one table for each row of ``weights`` ``[draws, rows of the table]``."""
    areas = []
    for group in classes[:1] if len(classes) == 2 else classes:
        in_group = (table["class"] == group).to_numpy()
        if roc_auc == "hard_labels":
            scores = (table["predicted"] == group).to_numpy(float)
        else:
            scores = table[PROBABILITY.format(group)].to_numpy(float)
        apart = scores[in_group][:, None] - scores[~in_group][None]
        right = (apart > 0) + 0.5 * (apart == 0)
        one, other = weights[:, in_group], weights[:, ~in_group]
        pairs = one.sum(1) * other.sum(1)
        with np.errstate(invalid="ignore"):
            areas.append(((one @ right) * other).sum(1) / np.where(pairs > 0, pairs, np.nan))
    return np.mean(areas, axis=0)
