"""Records of trained networks and of baselines, with their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FoldFiles:
    """A network that was trained for one fold of a cross-validation.

    Attributes
    ----------
    repeat, fold, seed
        Numbers of the repeat and of the fold, seed of the training.
    predictions, history
        Tables of the predicted test scans, and of the measures after each epoch.
    """

    repeat: int
    fold: int
    seed: int
    predictions: str
    history: str


@dataclass(frozen=True)
class EvaluatedNetwork:
    """A trained network with its predicted test scans.

    Attributes
    ----------
    cohort, task, classes
        Training cohort, task, and its classes, the disease first.
    model
        Label of the network.
    split, seed
        Split and seed of the training.
    tested_on
        Cohort of the test scans.
    predictions
        Table of the predicted test scans.
    """

    cohort: str
    task: str
    classes: Sequence[str]
    model: str
    split: str
    seed: int
    tested_on: str
    predictions: str


@dataclass(frozen=True)
class EvaluatedBaseline:
    """A baseline with its predicted test scans in all splits of a task.

    Attributes
    ----------
    cohort, task, classes, model
        As of :class:`EvaluatedNetwork`.
    tested_on
        Split to the cohort of its test scans.
    predictions
        Table of the predicted test scans of all splits.
    """

    cohort: str
    task: str
    classes: Sequence[str]
    model: str
    tested_on: Mapping[str, str]
    predictions: str
