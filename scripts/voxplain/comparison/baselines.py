"""Baselines without a network: logistic regression on a few numbers per scan.

A network that does no better than age and sex may have learned age and sex. For a network that does
no better than the mean intensity of brain areas, heatmaps add little.
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
    """Pipeline that fills missing values, scales to mean 0 and SD 1, and fits the regression.

    The penalty is scikit-learn's default (L2, C = 1). Nothing is tuned, so tuning cannot leak test
    data. Classes are not weighted, as in the training of the networks. A column without any value
    becomes 0.

    Parameters
    ----------
    numbers
        Columns whose missing values are replaced by the median of the training scans.
    categories
        Columns whose missing values are replaced by their most frequent value.
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
    """Fit a baseline on the training scans of a split only, and test it on the test scans.

    Parameters
    ----------
    members
        Columns ``image``, ``patient``, ``class``, ``side`` and ``cohort``, one row a scan.
    features
        Indexed by cohort and image; nan for a missing value.
    classes
        The disease first.
    categories
        Columns of ``features`` that are categories, not quantities.

    Returns
    -------
    predictions
        Predictions of the test scans, see :func:`voxplain.training.metrics.predictions_table`,
        with ``imputed``: the number of missing values of a scan.
    coefficients
        The fitted model: ``class`` (of two classes only the first), ``feature``, ``mean`` and
        ``sd`` of the training scans, and the ``coefficient``, the change of the log odds per SD.

    Raises
    ------
    SetupFault
        A scan has no row in the features.
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
    fitted_classes = list(model.classes_)
    probabilities = np.zeros((testing.sum(), len(classes)))
    in_order = [classes.index(group) for group in fitted_classes]
    probabilities[:, in_order] = model.predict_proba(values[testing])
    table = predictions_table(members[testing], probabilities, classes)
    table["imputed"] = values[testing].isna().sum(axis=1).to_numpy()
    scale, fitted = model["scale"], model["classify"].coef_
    if len(fitted_classes) == 2:
        # scikit-learn gives one row of coefficients, that of its second class.
        coefficients_of = {classes[0]: fitted[0] if fitted_classes[1] == classes[0] else -fitted[0]}
    else:
        coefficients_of = dict(zip(fitted_classes, fitted, strict=True))
    columns = [*numbers, *categories]
    coefficients = [
        pd.DataFrame(
            {
                "class": group,
                "feature": columns,
                "mean": scale.mean_,
                "sd": np.sqrt(scale.var_),
                "coefficient": coefficients_of[group],
            }
        )
        for group in classes
        if group in coefficients_of
    ]
    return table, pd.concat(coefficients, ignore_index=True)
