"""Measures of predictions, per scan and per patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics

from voxplain.faults import ParameterFault
from voxplain.training.predictions import PROBABILITY, check_probabilities, most_probable

MEASURES = ("accuracy", "balanced_accuracy", "roc_auc", "sensitivity", "specificity")
ROC_AUCS = ("probabilities", "hard_labels")


def per_patient(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """A table of predictions with one row for each patient: mean probabilities of the scans.

    A patient with scans of several classes has the first of ``classes`` among them, as in the
    splits.

    Raises
    ------
    SetupFault
        A probability is not finite.
    """
    columns = [PROBABILITY.format(group) for group in classes]
    # Before the mean, which leaves out missing values.
    check_probabilities(table[columns].to_numpy(float), table["image"])
    grouped = table.groupby("patient", sort=True)
    patients = grouped[columns].mean()
    rank = {group: place for place, group in enumerate(classes)}
    patients["class"] = grouped["class"].agg(lambda groups: min(groups, key=rank.__getitem__))
    patients["predicted"] = most_probable(patients[columns].to_numpy(), classes, patients.index)
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
        Scores of the ROC AUC: the ``probabilities`` of a class, or ``hard_labels``, whether it is
        the predicted class. The published value of Rieke et al. 2018 (0.78) uses hard labels; with
        two classes that is the balanced accuracy.

    Returns
    -------
    ``n``, the measures of :data:`MEASURES` (None if a class that it needs has no scans), and the
    ``confusion`` matrix, ``[true][predicted]`` in the order of ``classes``. The ROC AUC is that of
    the first class for two classes, and the mean over one-against-rest for more.

    Raises
    ------
    ParameterFault
        ``roc_auc`` is not one of :data:`ROC_AUCS`.
    SetupFault
        A probability is not finite.
    """
    if roc_auc not in ROC_AUCS:
        raise ParameterFault("roc_auc", f"is {roc_auc!r}; allowed: {', '.join(ROC_AUCS)}")
    columns = [PROBABILITY.format(group) for group in classes]
    names = table["image" if "image" in table else "patient"]
    check_probabilities(table[columns].to_numpy(float), names)
    true, predicted = table["class"], table["predicted"]
    confusion = metrics.confusion_matrix(true, predicted, labels=list(classes))
    disease, not_disease = true == classes[0], true != classes[0]
    predicted_disease = predicted == classes[0]
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
        "sensitivity": float(predicted_disease[disease].mean()) if disease.any() else None,
        "specificity": float((~predicted_disease[not_disease]).mean())
        if not_disease.any()
        else None,
        "confusion": confusion.tolist(),
    }
