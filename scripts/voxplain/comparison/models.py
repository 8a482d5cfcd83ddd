"""The summary of a run: every model on every task, as table 1 of Yang et al. 2018."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from voxplain.cohort.splits import EXTERNAL, FIXED
from voxplain.faults import SetupFault
from voxplain.training.metrics import MEASURES, measure, per_patient

CROSS_VALIDATION, EXTERNAL_TEST, FIXED_SPLIT = EVALUATIONS = (
    "cross-validation",
    "external test",
    "fixed split",
)
LEVELS = ("scan", "patient")
_KEYS = ("cohort", "tested_on", "task", "model", "level", "evaluation")


@dataclass(frozen=True)
class NetworkPredictions:
    """What one trained network said of its test scans.

    Attributes
    ----------
    cohort, tested_on
        The cohort it was trained on, and the one its test scans are of; the same but in an external
        test.
    task, classes
        Name of the task, and its classes, the disease first.
    model
        Label of the network, see :func:`voxplain.models.describe_model`.
    split, seed
        Name of the split, see :class:`voxplain.cohort.splits.Split`; seed of the training.
    predictions
        See :func:`voxplain.training.metrics.predictions_table`.
    """

    cohort: str
    tested_on: str
    task: str
    classes: Sequence[str]
    model: str
    split: str
    seed: int
    predictions: pd.DataFrame


def summary_rows(
    networks: Iterable[NetworkPredictions], roc_auc: str = "probabilities"
) -> pd.DataFrame:
    """Mean and spread over networks of how good they are, per scan and per patient.

    A network is a fold, repeat and seed of a cross-validation, or a seed of an external test or of
    the fixed split. A measure that a fold cannot have, as it lacks a class, does not count in it.

    Parameters
    ----------
    networks
        Read one at a time.
    roc_auc
        See :func:`voxplain.training.metrics.measure`.

    Returns
    -------
    One row for each cohort, ``tested_on``, task, model, ``level`` (scan, patient) and
    ``evaluation`` (:data:`EVALUATIONS`), in the order in which they first come. ``networks`` is
    their number and ``n`` that of different scans or patients they were tested on; then
    ``<measure>_mean`` and ``<measure>_sd`` (of the sample, n - 1) of each of
    :data:`voxplain.training.metrics.MEASURES`, and ``roc_auc_sd_of_repeats``: the SD over the
    repeats of a cross-validation of each repeat's mean, as Yang et al. state it over five divisions
    into five folds. What needs two networks, or repeats, and has but one is not a number.

    Raises
    ------
    SetupFault
        There is no network, or a split has a name that is no split's.
    """
    rows, tested = [], {}
    for network in networks:
        evaluation, repeat = _evaluation(network.split)
        for level in LEVELS:
            table = network.predictions
            if level == "patient":
                table = per_patient(table, network.classes)
            told = measure(table, network.classes, roc_auc)
            own = (network.cohort, network.tested_on, network.task, network.model)
            key = (*own, level, evaluation)
            tested.setdefault(key, set()).update(table["image" if level == "scan" else "patient"])
            measures = {name: told[name] for name in MEASURES}
            rows.append({**dict(zip(_KEYS, key, strict=True)), "repeat": repeat, **measures})
    if not rows:
        raise SetupFault("there is no trained network to summarise; ask for cross-validation")
    measured = pd.DataFrame(rows).astype(dict.fromkeys(MEASURES, float))
    summary = []
    for key, of_key in measured.groupby(list(_KEYS), sort=False):
        row = {**dict(zip(_KEYS, key, strict=True)), "networks": len(of_key), "n": len(tested[key])}
        for name in MEASURES:
            row |= {f"{name}_mean": of_key[name].mean(), f"{name}_sd": of_key[name].std(ddof=1)}
        of_repeats = of_key.groupby("repeat")["roc_auc"].mean()
        summary.append({**row, "roc_auc_sd_of_repeats": of_repeats.std(ddof=1)})
    return pd.DataFrame(summary)


def _evaluation(split: str) -> tuple[str, int]:
    """What a split's name says it is, and its repeat (0 where there are none)."""
    fold = re.fullmatch(r"repeat-(\d+)_fold-\d+", split)
    if fold:
        return CROSS_VALIDATION, int(fold.group(1))
    if split == FIXED:
        return FIXED_SPLIT, 0
    if split.startswith(EXTERNAL.format("")):
        return EXTERNAL_TEST, 0
    raise SetupFault(
        f"split {split!r} is unknown; expected repeat-<number>_fold-<number>, {FIXED} or "
        f"{EXTERNAL.format('<cohort>')}"
    )
