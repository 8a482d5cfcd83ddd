"""How sure a ROC curve and its area are: bootstrap by patient over several networks' tests."""

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
    """The mean ROC AUC of some networks, had other patients been tested.

    Patients of each class are drawn with replacement (Efron and Tibshirani 1993), as many as there
    are, and count as often as drawn wherever they were tested: in all repeats of a cross-validation
    and by the networks of all seeds, so that several predictions of one patient are not taken for
    several patients. Each network is measured on its own test scans and the networks' ROC AUCs are
    averaged. Pooling the folds' predictions before would be biased low where there is nothing to
    learn: whoever is left out lowers the share of their class in the training set, so that networks
    of different folds lean away from the classes that they are tested on (Parker, Guenter and Bedo
    2007). Patients are not drawn fold by fold: of a handful in each, that would lose much of the
    spread.

    The networks stay as they are. That folds learn from each other's patients, and would all learn
    something else from another cohort, is not in these draws: of a cross-validation an interval
    from them is somewhat too narrow.

    Parameters
    ----------
    tables
        Predictions of each network, of scans or of patients, see
        :func:`voxplain.training.metrics.predictions_table`.
    classes, roc_auc
        See :func:`voxplain.training.metrics.measure`.
    draws
        How often patients are drawn. The same draws are made of the same patients, so that two
        models on the same splits can be compared draw by draw.

    Returns
    -------
    ``[draws]``; nan where no network can be measured. A network whose test scans lack a class in a
    draw does not count in it.
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
    """The mean ROC curve of some tests, had other patients been tested, as :func:`draw_aucs`.

    Parameters
    ----------
    group
        The class whose probability is looked at, against all others.
    at
        Where on 1 - specificity, 0 to 1.

    Returns
    -------
    Sensitivity ``[draws, len(at)]``; nan where no test can be measured.
    """
    total, counted = np.zeros((draws, len(at))), np.zeros((draws, 1))
    for table, weights in _draw_patients(tables, classes, draws):
        scores = table[PROBABILITY.format(group)].to_numpy(float)
        order = np.argsort(-scores, kind="stable")
        own = (table["class"] == group).to_numpy()[order]
        # Scans of one probability are found together: the curve goes straight through them.
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
        found = [np.cumsum(weights[:, order] * is_its, axis=1)[:, ends] for is_its in (own, ~own)]
        for draw, (right, wrong) in enumerate(zip(*found, strict=True)):
            if right[-1] and wrong[-1]:
                ups, along = np.append(0, right / right[-1]), np.append(0, wrong / wrong[-1])
                total[draw] += np.interp(at, along, ups)
                counted[draw] += 1
    with np.errstate(invalid="ignore"):
        return total / counted


def _draw_patients(
    tables: Sequence[pd.DataFrame], classes: Sequence[str], draws: int
) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Each table with how often its rows count in each draw, ``[draws, rows]``."""
    everybody = pd.concat([table[["patient", "class"]] for table in tables])
    rank = {group: place for place, group in enumerate(classes)}
    # A patient with scans of several classes counts under the first, as in the splits.
    of_patients = everybody["class"].map(rank).groupby(everybody["patient"], sort=True).min()
    weights = np.zeros((draws, len(of_patients)))
    generator = np.random.default_rng(SEED)
    for place in range(len(classes)):
        (own,) = np.nonzero(of_patients.to_numpy() == place)
        if len(own):
            share = np.full(len(own), 1 / len(own))
            weights[:, own] = generator.multinomial(len(own), share, size=draws)
    for table in tables:
        yield table, weights[:, of_patients.index.get_indexer(table["patient"])]


def interval(aucs: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrapped values; nan where there are none."""
    told = aucs[np.isfinite(aucs)]
    if not len(told):
        return np.nan, np.nan
    low, high = np.quantile(told, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def too_few(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> bool:
    """Whether a class has fewer than two patients, of whom nothing can be drawn."""
    everybody = pd.concat([table[["patient", "class"]] for table in tables])
    counts = everybody.groupby("class")["patient"].nunique()
    return any(counts.get(group, 0) < 2 for group in classes)


def _weighted_aucs(
    table: pd.DataFrame, weights: np.ndarray, classes: Sequence[str], roc_auc: str
) -> np.ndarray:
    """ROC AUC of one table for each row of ``weights`` ``[draws, rows of the table]``."""
    areas = []
    for group in classes[:1] if len(classes) == 2 else classes:
        own = (table["class"] == group).to_numpy()
        if roc_auc == "hard_labels":
            scores = (table["predicted"] == group).to_numpy(float)
        else:
            scores = table[PROBABILITY.format(group)].to_numpy(float)
        apart = scores[own][:, None] - scores[~own][None]
        right = (apart > 0) + 0.5 * (apart == 0)
        one, other = weights[:, own], weights[:, ~own]
        pairs = one.sum(1) * other.sum(1)
        with np.errstate(invalid="ignore"):
            areas.append(((one @ right) * other).sum(1) / np.where(pairs > 0, pairs, np.nan))
    return np.mean(areas, axis=0)
