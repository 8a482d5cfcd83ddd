"""Pictures of a training: learning curves, ROC curves, confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score, roc_curve

matplotlib.use("Agg")
import seaborn as sns
from matplotlib import pyplot as plt

from voxplain.training.metrics import PROBABILITY, measure, per_patient

_TRAIN, _TEST = "#0072b2", "#d55e00"  # two of Okabe and Ito's colours, told apart by everybody


def picture_of_learning(
    path: str | Path, histories: Mapping[str, pd.DataFrame], title: str
) -> None:
    """Loss and accuracy over the epochs, one thin line a training and their mean.

    Parameters
    ----------
    histories
        Name of a training to its history: ``epoch``, ``train_loss``, ``train_accuracy``,
        ``test_loss``, ``test_accuracy``.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for place, what in zip(axes, ("loss", "accuracy"), strict=True):
        for side, colour in (("train", _TRAIN), ("test", _TEST)):
            column = f"{side}_{what}"
            for history in histories.values():
                place.plot(history["epoch"], history[column], color=colour, alpha=0.25, lw=0.8)
            mean = pd.concat(list(histories.values())).groupby("epoch")[column].mean()
            told = "training (dropout on)" if side == "train" else "held out"
            place.plot(mean.index, mean, color=colour, lw=2, label=told)
        place.set(xlabel="epoch", ylabel="cross-entropy" if what == "loss" else "accuracy")
        sns.despine(ax=place)
    axes[1].set_ylim(0, 1.02)
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False)
    figure.suptitle(f"{title}: mean of {len(histories)} trainings, and each of them", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def picture_of_roc(
    path: str | Path,
    predictions: Mapping[str, pd.DataFrame],
    classes: Sequence[str],
    title: str,
) -> None:
    """ROC curves per scan and per patient: every fold, and all folds' predictions pooled.

    Parameters
    ----------
    predictions
        Name of a training to its table of predictions.
    classes
        The disease first; the curve is that of its probability against all others.
    """
    column = PROBABILITY.format(classes[0])
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.8), layout="constrained")
    for place, level in zip(axes, ("scan", "patient"), strict=True):
        tables = [
            table if level == "scan" else per_patient(table, classes)
            for table in predictions.values()
        ]
        areas = []
        for table in tables:
            true = table["class"] == classes[0]
            if 0 < true.sum() < len(true):
                wrong, right, _ = roc_curve(true, table[column])
                place.plot(wrong, right, color="0.6", lw=0.8)
                areas.append(roc_auc_score(true, table[column]))
        pooled = pd.concat(tables)
        true = pooled["class"] == classes[0]
        wrong, right, _ = roc_curve(true, pooled[column])
        area = roc_auc_score(true, pooled[column])
        spread = f"{np.mean(areas):.2f} ± {np.std(areas, ddof=1):.2f}" if len(areas) > 1 else "n/a"
        place.plot(wrong, right, color=_TEST, lw=2, label=f"pooled, AUC {area:.2f}")
        place.plot([], [], color="0.6", lw=0.8, label=f"folds, AUC {spread}")
        place.plot([0, 1], [0, 1], color="0.8", lw=0.8, ls=":")
        place.set(
            xlabel="1 - specificity",
            ylabel="sensitivity",
            title=f"per {level} (n = {len(pooled)})",
            aspect="equal",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
        place.legend(frameon=False, loc="lower right")
        sns.despine(ax=place)
    figure.suptitle(f"{title}: {classes[0]} against {', '.join(classes[1:])}", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def picture_of_confusion(
    path: str | Path, predictions: pd.DataFrame, classes: Sequence[str], title: str
) -> None:
    """Confusion matrices of pooled predictions, per scan and per patient.

    Parameters
    ----------
    predictions
        All folds' test scans.
    """
    side = 1.6 + 0.9 * len(classes)
    figure, axes = plt.subplots(1, 2, figsize=(2 * side + 1, side), layout="constrained")
    for place, level in zip(axes, ("scan", "patient"), strict=True):
        table = predictions if level == "scan" else per_patient(predictions, classes)
        told = measure(table, classes)
        counts = np.array(told["confusion"])
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        text = [
            [f"{n}\n{share:.0%}" for n, share in zip(*row, strict=True)]
            for row in zip(counts, shares, strict=True)
        ]
        sns.heatmap(
            shares,
            annot=np.array(text),
            fmt="",
            vmin=0,
            vmax=1,
            cmap="Blues",
            square=True,
            cbar=False,
            xticklabels=classes,
            yticklabels=classes,
            ax=place,
        )
        place.set(
            xlabel="predicted", ylabel="true", title=f"per {level}, accuracy {told['accuracy']:.2f}"
        )
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
