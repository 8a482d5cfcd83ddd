"""Measures of the networks of a cross-validation, for each fold and for all folds.

Separate from :mod:`voxplain.training.metrics`, so that a training does not depend on the code that
makes splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from voxplain.cohort.split_names import fold_name
from voxplain.training.metrics import MEASURES, measure, per_patient


def pool_folds(
    predictions: Mapping[tuple[int, int, int], pd.DataFrame],
) -> dict[tuple[int, int], pd.DataFrame]:
    """Pooled predictions of each repeat and seed: every scan once, by a network not trained on it.

    Parameters
    ----------
    predictions
        ``(repeat, fold, seed)`` to the table of its test scans.

    Returns
    -------
    ``(repeat, seed)`` to the table of all scans.
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
    """Measures of every fold, their mean and SD, and measures of the pooled predictions.

    Parameters
    ----------
    predictions
        ``(repeat, fold, seed)`` to the table of its test scans.
    classes
        The disease first.
    roc_auc
        See :func:`voxplain.training.metrics.measure`.

    Returns
    -------
    Long rows with ``level`` (scan, patient), ``split``, ``repeat``, ``fold``, ``seed``, ``n`` and
    the measures. Besides one row for each fold: ``pooled`` for each repeat and seed (every scan
    once, predicted by the network that was not trained on its patient), then ``mean`` and ``sd``
    (of the sample, n - 1) over all folds, and ``pooled mean`` over repeats and seeds.
    """
    rows = []
    pooled = pool_folds(predictions)
    for level, at_level in (("scan", lambda t, _: t), ("patient", per_patient)):
        folds, pools = [], []
        for (repeat, fold, seed), table in predictions.items():
            measures = measure(at_level(table, classes), classes, roc_auc)
            labels = {"split": fold_name(repeat, fold), "repeat": repeat, "fold": fold}
            folds.append({"level": level, **labels, "seed": seed, **measures})
        for (repeat, seed), table in pooled.items():
            measures = measure(at_level(table, classes), classes, roc_auc)
            pools.append(
                {"level": level, "split": "pooled", "repeat": repeat, "seed": seed, **measures}
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
