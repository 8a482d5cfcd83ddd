"""Summary of a run: every model on every task, as in table 1 of Yang et al. 2018.

It also lists the baselines without a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from voxplain.cohort.split_names import EXTERNAL, FIXED, FOLDS, SplitName
from voxplain.comparison.auc import draw_aucs, interval, too_few
from voxplain.faults import SetupFault
from voxplain.training.metrics import MEASURES, measure, per_patient

CROSS_VALIDATION, EXTERNAL_TEST, FIXED_SPLIT = EVALUATIONS = (
    "cross-validation",
    "external test",
    "fixed split",
)
_EVALUATION_ON = {FOLDS: CROSS_VALIDATION, EXTERNAL: EXTERNAL_TEST, FIXED: FIXED_SPLIT}
LEVELS = ("scan", "patient")
NETWORK, BASELINE = KINDS = ("network", "baseline")
_KEYS = ("cohort", "tested_on", "task", "model", "kind", "level", "evaluation")


@dataclass(frozen=True)
class NetworkPredictions:
    """Predictions of one trained network, or baseline, on its test scans.

    Attributes
    ----------
    cohort, tested_on
        The cohort of the training scans and that of the test scans; they differ only in an
        external test.
    task, classes
        Name of the task, and its classes, the disease first.
    model
        Label of the network, see :func:`voxplain.models.describe_model`, or of the baseline.
    split, seed
        Name of the split, see :class:`voxplain.cohort.splits.Split`; seed of the training (0 for
        a baseline, which needs no seed).
    predictions
        See :func:`voxplain.training.metrics.predictions_table`.
    kind
        One of :data:`KINDS`.
    """

    cohort: str
    tested_on: str
    task: str
    classes: Sequence[str]
    model: str
    split: str
    seed: int
    predictions: pd.DataFrame
    kind: str = NETWORK


@dataclass
class _TestResults:
    """Test results of the networks that are summarised in one row.

    Attributes
    ----------
    classes
        Classes of the task.
    tables
        Predictions of each network.
    measured
        Measures of each network, with its repeat.
    """

    classes: Sequence[str]
    tables: list[pd.DataFrame] = field(default_factory=list)
    measured: list[dict[str, object]] = field(default_factory=list)


class Summary:
    """Summary of networks and baselines, and their differences.

    A network is a fold, repeat and seed of a cross-validation, or a seed of an external test or of
    the fixed split. If a fold lacks a class, the measures that need it leave this fold out.

    Parameters
    ----------
    networks
        Read one at a time; only the predictions are stored.
    roc_auc
        See :func:`voxplain.training.metrics.measure`.

    Raises
    ------
    SetupFault
        There is no network, or the name of a split is invalid.
    """

    def __init__(
        self, networks: Iterable[NetworkPredictions], roc_auc: str = "probabilities"
    ) -> None:
        self._roc_auc = roc_auc
        self._tested: dict[tuple[str, ...], _TestResults] = {}
        for network in networks:
            split = SplitName.parse(network.split)
            for level in LEVELS:
                table = network.predictions
                if level == "patient":
                    table = _of_patients(table, network.classes)
                all_measures = measure(table, network.classes, roc_auc)
                identity = (network.cohort, network.tested_on, network.task, network.model)
                key = (*identity, network.kind, level, _EVALUATION_ON[split.kind])
                tested = self._tested.setdefault(key, _TestResults(network.classes))
                tested.tables.append(table.copy())
                measures = {name: all_measures[name] for name in MEASURES}
                tested.measured.append({"repeat": split.repeat, **measures})
        if not self._tested:
            raise SetupFault("there is no trained network to summarise; ask for cross-validation")
        self._draws: dict[tuple[str, ...], np.ndarray] = {}

    def rows(self) -> pd.DataFrame:
        """Mean and SD over networks of each measure, per scan and per patient.

        Returns
        -------
        One row for each cohort, ``tested_on``, task, model, ``kind`` (network, baseline), ``level``
        (scan, patient) and ``evaluation`` (:data:`EVALUATIONS`), in order of first appearance,
        networks before baselines. ``networks`` is the number of networks, ``n`` the number of
        different test scans or patients, ``imputed`` the number of these with values that a
        baseline had to fill. Then ``<measure>_mean`` and ``<measure>_sd`` (of the sample, n - 1)
        for each of :data:`voxplain.training.metrics.MEASURES`; ``roc_auc_low`` and
        ``roc_auc_high``, the 95 % interval of ``roc_auc_mean`` from a bootstrap over test patients
        (:func:`voxplain.comparison.auc.draw_aucs`); and ``roc_auc_sd_of_repeats``, the SD over the
        repeats of a cross-validation of the mean of each repeat, which Yang et al. report for five
        divisions into five folds. A value that needs two networks, repeats or patients of a class
        is nan if there is only one.
        """
        rows = []
        for key, tested in sorted(self._tested.items(), key=lambda item: item[0][4] == BASELINE):
            measured = pd.DataFrame(tested.measured).astype(dict.fromkeys(MEASURES, float))
            row = {**dict(zip(_KEYS, key, strict=True)), "networks": len(measured)}
            row |= _count(tested.tables, "image" if row["level"] == "scan" else "patient")
            for name in MEASURES:
                row |= {f"{name}_mean": measured[name].mean(), f"{name}_sd": measured[name].std()}
            row["roc_auc_low"], row["roc_auc_high"] = interval(self._aucs(key))
            of_repeats = measured.groupby("repeat")["roc_auc"].mean()
            rows.append({**row, "roc_auc_sd_of_repeats": of_repeats.std(ddof=1)})
        return pd.DataFrame(rows)

    def differences(self) -> pd.DataFrame:
        """Table of the ROC AUC of each network minus that of each baseline on the same splits.

        Returns
        -------
        One row for each cohort, ``tested_on``, task, model, ``baseline``, level and evaluation:
        ``roc_auc``, the difference of the means over networks and over the fits of the baseline,
        with ``low`` and ``high``, its 95 % interval. Both use the same drawn patients.
        """
        rows = []
        for key, tested in self._tested.items():
            where, (kind, level, evaluation) = key[:3], key[4:]
            for other, baseline in self._tested.items():
                if kind != NETWORK or other != (*where, other[3], BASELINE, level, evaluation):
                    continue
                means = [
                    pd.DataFrame(side.measured)["roc_auc"].astype(float).mean()
                    for side in (tested, baseline)
                ]
                low, high = interval(self._aucs(key) - self._aucs(other))
                row = dict(zip(_KEYS, key, strict=True)) | {"baseline": other[3]}
                rows.append({**row, "roc_auc": means[0] - means[1], "low": low, "high": high})
        columns = [*_KEYS[:4], "baseline", *_KEYS[5:], "roc_auc", "low", "high"]
        return pd.DataFrame(rows, columns=columns)

    def _aucs(self, key: tuple[str, ...]) -> np.ndarray:
        """Bootstrapped ROC AUCs of a row; nan if a class has fewer than two patients."""
        if key not in self._draws:
            tested = self._tested[key]
            aucs = draw_aucs(tested.tables, tested.classes, self._roc_auc)
            self._draws[key] = (
                np.full_like(aucs, np.nan) if too_few(tested.tables, tested.classes) else aucs
            )
        return self._draws[key]


def _of_patients(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Table with one row a patient; ``imputed`` is the largest value over the patient's scans."""
    patients = per_patient(table, classes)
    if "imputed" in table:
        patients["imputed"] = patients["patient"].map(table.groupby("patient")["imputed"].max())
    return patients


def _count(tables: Sequence[pd.DataFrame], name: str) -> Mapping[str, float]:
    """Number of different test scans or patients, and how many of them have imputed values."""
    known = [name] + ["imputed"] * ("imputed" in tables[0])
    rows = pd.concat([table[known] for table in tables]).groupby(name).max()
    imputed = (rows["imputed"] > 0).sum() if "imputed" in rows else np.nan
    return {"n": len(rows), "imputed": imputed}
