"""How good predictions are, per scan and per patient."""

from __future__ import annotations

from collections.abc import Sequence
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
