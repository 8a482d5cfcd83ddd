"""The summary of a run: every model on every task, as table 1 of Yang et al. 2018.

Baselines without a network stand beside the networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from voxplain.cohort.splits import EXTERNAL, FIXED, FOLDS, SplitName
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
    """What one trained network, or baseline, said of its test scans.

    Attributes
    ----------
    cohort, tested_on
        The cohort it was trained on, and the one its test scans are of; the same but in an external
        test.
    task, classes
        Name of the task, and its classes, the disease first.
    model
        Label of the network, see :func:`voxplain.models.describe_model`, or of the baseline.
    split, seed
        Name of the split, see :class:`voxplain.cohort.splits.Split`; seed of the training (0 of a
        baseline, which has none).
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
class _Tested:
    """What networks that go into one row were tested on.

    Attributes
    ----------
    classes
        Those of the task.
    tables
        Predictions of each network.
    measured
        Measures of each, and its repeat.
    """

    classes: Sequence[str]
    tables: list[pd.DataFrame] = field(default_factory=list)
    measured: list[dict[str, object]] = field(default_factory=list)


class Summary:
    """Networks and baselines side by side, with their differences.

    A network is a fold, repeat and seed of a cross-validation, or a seed of an external test or of
    the fixed split. A measure that a fold cannot have, as it lacks a class, does not count in it.

    Parameters
    ----------
    networks
        Read one at a time; of each only the predictions stay.
    roc_auc
        See :func:`voxplain.training.metrics.measure`.

    Raises
    ------
    SetupFault
        There is no network, or a split has a name that is no split's.
    """

    def __init__(
        self, networks: Iterable[NetworkPredictions], roc_auc: str = "probabilities"
    ) -> None:
        self._roc_auc = roc_auc
        self._tested: dict[tuple[str, ...], _Tested] = {}
        for network in networks:
            split = SplitName.parse(network.split)
            for level in LEVELS:
                table = network.predictions
                if level == "patient":
                    table = _of_patients(table, network.classes)
                told = measure(table, network.classes, roc_auc)
                own = (network.cohort, network.tested_on, network.task, network.model)
                key = (*own, network.kind, level, _EVALUATION_ON[split.kind])
                tested = self._tested.setdefault(key, _Tested(network.classes))
                tested.tables.append(table.copy())
                measures = {name: told[name] for name in MEASURES}
                tested.measured.append({"repeat": split.repeat, **measures})
        if not self._tested:
            raise SetupFault("there is no trained network to summarise; ask for cross-validation")
        self._draws: dict[tuple[str, ...], np.ndarray] = {}

    def rows(self) -> pd.DataFrame:
        """Mean and spread over networks of how good they are, per scan and per patient.

        Returns
        -------
        One row for each cohort, ``tested_on``, task, model, ``kind`` (network, baseline), ``level``
        (scan, patient) and ``evaluation`` (:data:`EVALUATIONS`), in the order in which they first
        come, networks before baselines. ``networks`` is their number, ``n`` that of different scans
        or patients they were tested on, and ``imputed`` how many of these have values that a
        baseline had to fill; then ``<measure>_mean`` and ``<measure>_sd`` (of the sample, n - 1)
        of each of :data:`voxplain.training.metrics.MEASURES`; ``roc_auc_low`` and ``roc_auc_high``,
        the 95 % interval of ``roc_auc_mean`` over other patients to test
        (:func:`voxplain.comparison.auc.draw_aucs`); and ``roc_auc_sd_of_repeats``: the SD over the
        repeats of a cross-validation of each repeat's mean, as Yang et al. state it over five
        divisions into five folds. What needs two networks, repeats or patients of a class, and has
        but one, is not a number.
        """
        rows = []
        for key, tested in sorted(self._tested.items(), key=lambda told: told[0][4] == BASELINE):
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
        """ROC AUC of every network minus that of each baseline on the same splits.

        Returns
        -------
        One row for each cohort, ``tested_on``, task, model, ``baseline``, level and evaluation:
        ``roc_auc``, the difference of the means over networks and over the baseline's fits, with
        ``low`` and ``high``, its 95 % interval: both are measured on the same drawn patients.
        """
        rows = []
        for key, tested in self._tested.items():
            where, (kind, level, evaluation) = key[:3], key[4:]
            for other, baseline in self._tested.items():
                if kind != NETWORK or other != (*where, other[3], BASELINE, level, evaluation):
                    continue
                means = [
                    pd.DataFrame(told.measured)["roc_auc"].astype(float).mean()
                    for told in (tested, baseline)
                ]
                low, high = interval(self._aucs(key) - self._aucs(other))
                row = dict(zip(_KEYS, key, strict=True)) | {"baseline": other[3]}
                rows.append({**row, "roc_auc": means[0] - means[1], "low": low, "high": high})
        columns = [*_KEYS[:4], "baseline", *_KEYS[5:], "roc_auc", "low", "high"]
        return pd.DataFrame(rows, columns=columns)

    def _aucs(self, key: tuple[str, ...]) -> np.ndarray:
        """The bootstrapped ROC AUCs of a row; nan where a class has a patient or none."""
        if key not in self._draws:
            tested = self._tested[key]
            aucs = draw_aucs(tested.tables, tested.classes, self._roc_auc)
            self._draws[key] = (
                np.full_like(aucs, np.nan) if too_few(tested.tables, tested.classes) else aucs
            )
        return self._draws[key]


def _of_patients(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """One row a patient; imputed is who has a scan of which a value was."""
    patients = per_patient(table, classes)
    if "imputed" in table:
        patients["imputed"] = patients["patient"].map(table.groupby("patient")["imputed"].max())
    return patients


def _count(tables: Sequence[pd.DataFrame], name: str) -> Mapping[str, float]:
    """How many different scans or patients were tested, and of how many values were imputed."""
    known = [name] + ["imputed"] * ("imputed" in tables[0])
    everybody = pd.concat([table[known] for table in tables]).groupby(name).max()
    imputed = (everybody["imputed"] > 0).sum() if "imputed" in everybody else np.nan
    return {"n": len(everybody), "imputed": imputed}
