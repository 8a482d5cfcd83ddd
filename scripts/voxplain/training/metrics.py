"""How good predictions are, per scan and per patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics

from voxplain.faults import ParameterFault
from voxplain.training.predictions import PROBABILITY

MEASURES = ("accuracy", "balanced_accuracy", "roc_auc", "sensitivity", "specificity")
ROC_AUCS = ("probabilities", "hard_labels")


def per_patient(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """A table of predictions with one row a patient: the mean probabilities of their scans.

    A patient with scans of several classes counts under the first of ``classes`` among them, as in
    the splits.
    """
    columns = [PROBABILITY.format(group) for group in classes]
    grouped = table.groupby("patient", sort=True)
    patients = grouped[columns].mean()
    rank = {group: place for place, group in enumerate(classes)}
    patients["class"] = grouped["class"].agg(lambda found: min(found, key=rank.__getitem__))
    patients["predicted"] = [classes[i] for i in patients[columns].to_numpy().argmax(1)]
    return patients.reset_index()


def measure(
    table: pd.DataFrame, classes: Sequence[str], roc_auc: str = "probabilities"
) -> dict[str, Any]:
    """Measures of a table of predictions.

    Parameters
    ----------
    table
        From :func:`voxplain.training.predictions.predictions_table` or :func:`per_patient`.
    classes
        The disease first: sensitivity is the recall of the first class, specificity that of all
        others against it.
    roc_auc
        What the ROC AUC ranks scans by: the ``probabilities`` of a class, or ``hard_labels``,
        whether it is the predicted class. The published figure of Rieke et al. 2018 (0.78) is of
        hard labels; of two classes that is the balanced accuracy.

    Returns
    -------
    ``n``, the measures of :data:`MEASURES` (None where a class is missing that it needs), and the
    ``confusion`` matrix, ``[true][predicted]`` in the order of ``classes``. ROC AUC is that of the
    first class for two classes, the mean over one-against-rest for more.

    Raises
    ------
    ParameterFault
        ``roc_auc`` is neither word.
    """
    if roc_auc not in ROC_AUCS:
        raise ParameterFault("roc_auc", f"is {roc_auc!r}; allowed: {', '.join(ROC_AUCS)}")
    true, predicted = table["class"], table["predicted"]
    confusion = metrics.confusion_matrix(true, predicted, labels=list(classes))
    disease, others = true == classes[0], true != classes[0]
    found = predicted == classes[0]
    recalls = [
        confusion[i, i] / confusion[i].sum() for i in range(len(classes)) if confusion[i].sum()
    ]
    complete = len(recalls) == len(classes)
    areas = [
        metrics.roc_auc_score(
            true == group,
            (predicted == group).astype(float)
            if roc_auc == "hard_labels"
            else table[PROBABILITY.format(group)],
        )
        for group in (classes[:1] if len(classes) == 2 else classes)
        if complete
    ]
    return {
        "n": len(table),
        "accuracy": float((true == predicted).mean()),
        "balanced_accuracy": float(np.mean(recalls)) if complete else None,
        "roc_auc": float(np.mean(areas)) if areas else None,
        "sensitivity": float(found[disease].mean()) if disease.any() else None,
        "specificity": float((~found[others]).mean()) if others.any() else None,
        "confusion": confusion.tolist(),
    }


def pool_folds(
    predictions: Mapping[tuple[int, int, int], pd.DataFrame],
) -> dict[tuple[int, int], pd.DataFrame]:
    """The folds of each repeat and seed as one table: every scan once, by a network new to it.

    Parameters
    ----------
    predictions
        ``(repeat, fold, seed)`` to the table of its test scans.

    Returns
    -------
    ``(repeat, seed)`` to the table of all.
    """
    pools: dict[tuple[int, int], list[pd.DataFrame]] = {}
    for (repeat, _, seed), table in predictions.items():
        pools.setdefault((repeat, seed), []).append(table)
    return {key: pd.concat(tables, ignore_index=True) for key, tables in pools.items()}


def cross_validation_table(
    predictions: Mapping[tuple[int, int, int], pd.DataFrame],
    classes: Sequence[str],
    roc_auc: str = "probabilities",
) -> pd.DataFrame:
    """Measures of every fold, their mean and SD, and of all folds' predictions pooled.

    Parameters
    ----------
    predictions
        ``(repeat, fold, seed)`` to the table of its test scans.
    classes
        The disease first.
    roc_auc
        See :func:`measure`.

    Returns
    -------
    Long rows with ``level`` (scan, patient), ``split``, ``repeat``, ``fold``, ``seed``, ``n`` and
    the measures. Beside a row a fold: ``pooled`` for each repeat and seed (every scan once, tested
    by the network that had not seen its patient), then ``mean`` and ``sd`` (of the sample, n - 1)
    over all folds, and ``pooled mean`` over repeats and seeds.
    """
    rows = []
    pooled = pool_folds(predictions)
    for level, at_level in (("scan", lambda t, _: t), ("patient", per_patient)):
        folds, pools = [], []
        for (repeat, fold, seed), table in predictions.items():
            told = measure(at_level(table, classes), classes, roc_auc)
            where = {"split": f"repeat-{repeat}_fold-{fold}", "repeat": repeat, "fold": fold}
            folds.append({"level": level, **where, "seed": seed, **told})
        for (repeat, seed), table in pooled.items():
            told = measure(at_level(table, classes), classes, roc_auc)
            pools.append(
                {"level": level, "split": "pooled", "repeat": repeat, "seed": seed, **told}
            )
        measured, of_pools = pd.DataFrame(folds), pd.DataFrame(pools)
        numbers = measured[list(MEASURES)].astype(float)
        rows += [*folds, *pools]
        for name, values in (
            ("mean", numbers.mean()),
            ("sd", numbers.std(ddof=1)),
            ("pooled mean", of_pools[list(MEASURES)].astype(float).mean()),
        ):
            rows.append({"level": level, "split": name, **values})
    columns = ["level", "split", "repeat", "fold", "seed", "n", *MEASURES]
    table = pd.DataFrame(rows)[columns]
    whole = ["repeat", "fold", "seed", "n"]
    return table.astype(dict.fromkeys(whole, "Int64"))
