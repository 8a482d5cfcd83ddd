"""How well classes are told apart without a network: logistic regression on a few numbers a scan.

A network that does no better than age and sex may have learned these; one that does no better than
the mean intensity of brain areas has not earned its heatmaps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from voxplain.cohort.leakage import TEST, TRAIN
from voxplain.faults import SetupFault
from voxplain.training.predictions import predictions_table


def make_classifier(numbers: Sequence[str], categories: Sequence[str]) -> Pipeline:
    """Logistic regression on columns of mean 0 and SD 1, gaps filled before.

    The penalty is scikit-learn's (L2, C = 1) and nothing is tuned, so that there is no choice to
    leak through; classes are not weighted, as in the networks' training. A column without any value
    is 0.

    Parameters
    ----------
    numbers
        Columns whose gaps take the median of those that it is fitted on.
    categories
        Columns whose gaps take their most frequent value.
    """
    filled = ColumnTransformer(
        [
            ("median", SimpleImputer(strategy="median", keep_empty_features=True), list(numbers)),
            (
                "most_frequent",
                SimpleImputer(strategy="most_frequent", keep_empty_features=True),
                list(categories),
            ),
        ]
    )
    return Pipeline(
        [
            ("fill", filled),
            ("scale", StandardScaler()),
            ("classify", LogisticRegression(max_iter=1000)),
        ]
    )


def predict_split(
    members: pd.DataFrame,
    features: pd.DataFrame,
    classes: Sequence[str],
    categories: Sequence[str] = (),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit a baseline on the training scans of a split, and on nothing else, and test it.

    Parameters
    ----------
    members
        Columns ``image``, ``patient``, ``class``, ``side`` and ``cohort``, one row a scan.
    features
        Indexed by cohort and image; nan where a value is missing.
    classes
        The disease first.
    categories
        Columns of ``features`` that are no quantities.

    Returns
    -------
    predictions
        See :func:`voxplain.training.metrics.predictions_table`, of the test scans, with
        ``imputed``: how many of a scan's values were missing.
    coefficients
        What was fitted: ``class`` (of two classes the first alone), ``feature``, ``mean`` and
        ``sd`` of the training scans, and the ``coefficient``, a change of the log odds for one SD.

    Raises
    ------
    SetupFault
        A scan is not among the features.
    """
    keys = pd.MultiIndex.from_frame(members[["cohort", "image"]])
    unknown = keys.difference(features.index)
    if len(unknown):
        raise SetupFault(f"a baseline has no values of scans {', '.join(map(str, unknown[:5]))}")
    values = features.loc[keys].reset_index(drop=True)
    training, testing = ((members["side"] == side).to_numpy() for side in (TRAIN, TEST))
    numbers = [name for name in features if name not in categories]
    model = make_classifier(numbers, categories)
    model.fit(values[training], members["class"][training])
    found = list(model.classes_)
    probabilities = np.zeros((testing.sum(), len(classes)))
    in_order = [classes.index(group) for group in found]
    probabilities[:, in_order] = model.predict_proba(values[testing])
    table = predictions_table(members[testing], probabilities, classes)
    table["imputed"] = values[testing].isna().sum(axis=1).to_numpy()
    scale, fitted = model["scale"], model["classify"].coef_
    if len(found) == 2:
        # The only row is for the second class that scikit-learn knows.
        told = {classes[0]: fitted[0] if found[1] == classes[0] else -fitted[0]}
    else:
        told = dict(zip(found, fitted, strict=True))
    columns = [*numbers, *categories]
    coefficients = [
        pd.DataFrame(
            {
                "class": group,
                "feature": columns,
                "mean": scale.mean_,
                "sd": np.sqrt(scale.var_),
                "coefficient": told[group],
            }
        )
        for group in classes
        if group in told
    ]
    return table, pd.concat(coefficients, ignore_index=True)
