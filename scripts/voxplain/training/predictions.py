"""The table of a network's predictions, written by the training and read by every evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from voxplain.faults import SetupFault

PROBABILITY = "probability_{}"  # column of a class's probability


def most_probable(
    probabilities: np.ndarray, classes: Sequence[str], names: Sequence[str]
) -> list[str]:
    """The class with the highest probability in each row; of equal ones the first.

    Parameters
    ----------
    probabilities
        ``[rows, classes]``.
    names
        Name of each row for the message: the image or the patient.

    Raises
    ------
    SetupFault
        A probability is not finite. The maximum of such a row would be at its first NaN, so that
        the row would be given a class that nothing speaks for.
    """
    check_probabilities(probabilities, names)
    return [classes[place] for place in probabilities.argmax(1)]


def check_probabilities(probabilities: np.ndarray, names: Sequence[str]) -> None:
    """Refuse probabilities that are not finite; parameters and faults as :func:`most_probable`."""
    unusable = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(unusable):
        number = f"{len(unusable)} of {len(probabilities)}"
        raise SetupFault(
            f"the probabilities of {list(names)[unusable[0]]} are not finite numbers (so for "
            f"{number}); the network or its scans are damaged: train it again, or restore its file"
        )


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

    Raises
    ------
    SetupFault
        A probability is not finite.
    """
    table = members[["image", "patient", "class"]].reset_index(drop=True)
    table["predicted"] = most_probable(probabilities, classes, table["image"])
    for place, group in enumerate(classes):
        table[PROBABILITY.format(group)] = probabilities[:, place]
    return table
