"""The table of a network's predictions, written by the training and read by every evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

PROBABILITY = "probability_{}"  # column of a class's probability


def predictions_table(
    members: pd.DataFrame, probabilities: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """One row for each test scan: image, patient, class, and the probability of each class.

    Parameters
    ----------
    members
        Columns ``image``, ``patient`` and ``class``, one row for each scan.
    probabilities
        ``[scans, classes]``, in the order of ``members`` and ``classes``.
    """
    table = members[["image", "patient", "class"]].reset_index(drop=True)
    table["predicted"] = [classes[place] for place in probabilities.argmax(1)]
    for place, group in enumerate(classes):
        table[PROBABILITY.format(group)] = probabilities[:, place]
    return table
