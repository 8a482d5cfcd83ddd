"""Figures of trainings: learning curves, ROC curves, confusion matrices, comparison of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from voxplain.comparison.auc import draw_rocs, too_few
from voxplain.comparison.models import EXTERNAL_TEST, FIXED_SPLIT
from voxplain.plots.figures import PAGE, Picture, head, in_print
from voxplain.training.cross_validation import pool_folds
from voxplain.training.metrics import measure, per_patient
from voxplain.training.predictions import PROBABILITY

# Colours of Okabe and Ito, safe for colour blindness; markers carry the same information.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_ALONG = np.linspace(0, 1, 101)
_BAND = "95 % of what other patients would give"
_TRAIN, _TEST = _COLOURS[:2]


@in_print
def plot_learning(histories: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Figure of loss and accuracy over the epochs: a thin line for each training, and the mean.

    Parameters
    ----------
    histories
        Name of a training to its history: ``epoch``, ``train_loss``, ``train_accuracy``,
        ``test_loss``, ``test_accuracy``.
    """
    figure = Picture(figsize=(PAGE, 2.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for place, what in zip(axes, ("loss", "accuracy"), strict=True):
        for side, colour in (("train", _TRAIN), ("test", _TEST)):
            column = f"{side}_{what}"
            for history in histories.values():
                place.plot(history["epoch"], history[column], color=colour, alpha=0.25, lw=0.8)
            mean = pd.concat(list(histories.values())).groupby("epoch")[column].mean()
            label = "training (dropout on)" if side == "train" else "held out"
            place.plot(mean.index, mean, color=colour, lw=2, label=label)
        place.set(xlabel="epoch", ylabel="cross-entropy" if what == "loss" else "accuracy")
        sns.despine(ax=place)
    axes[1].set_ylim(0, 1.02)
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False)
    head(figure, f"{title}: mean of {len(histories)} trainings, and each of them")
    return figure


@in_print
def plot_roc(
    predictions: Mapping[tuple[int, int, int], pd.DataFrame],
    classes: Sequence[str],
    title: str,
) -> Figure:
    """Figure of ROC curves per scan and per patient, with the predictions of all folds pooled.

    The folds of each repeat and seed give one curve. With two classes the curve uses the
    probability of the first class, and thin curves show the single folds. With more classes, each
    class has a curve against all other classes. With several repeats or seeds, the thick curve is
    their mean. A band contains, point by point, 95 % of the bootstrap curves over patients, or of
    their means (:func:`voxplain.comparison.auc.draw_rocs`); it is left out if a class has only one
    patient.

    Parameters
    ----------
    predictions
        ``(repeat, fold, seed)`` to the table of predictions of its test scans.
    classes
        The disease first.
    """
    pools = list(pool_folds(predictions).values())
    curves = classes[:1] if len(classes) == 2 else classes
    figure = Picture(figsize=(PAGE, 4.0), layout="constrained")
    axes = figure.subplots(1, 2)
    for place, level in zip(axes, ("scan", "patient"), strict=True):
        pooled, folds = (
            [table if level == "scan" else per_patient(table, classes) for table in tables]
            for tables in (pools, predictions.values())
        )
        behind = [_roc(table, curves[0]) for table in folds if _has_roc(table, curves[0])]
        for wrong, right, _ in behind if len(curves) == 1 else ():
            place.plot(wrong, right, color="0.6", lw=0.8)
        colours, banded = (_TEST,) if len(curves) == 1 else _COLOURS, False
        for number, group in enumerate(curves):
            colour = colours[number % len(colours)]
            of_group = [_roc(table, group) for table in pooled if _has_roc(table, group)]
            one = len(of_group) == 1
            for wrong, right, _ in of_group:
                place.plot(
                    wrong, right, color=colour, lw=2 if one else 0.8, alpha=1 if one else 0.4
                )
            if of_group and not one:
                mean = np.mean([np.interp(_ALONG, wrong, right) for wrong, right, _ in of_group], 0)
                place.plot(_ALONG, mean, color=colour, lw=2)
            if of_group and not too_few(pooled, classes):
                drawn = draw_rocs(pooled, classes, group, _ALONG, draws=500)
                low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
                place.fill_between(_ALONG, low, high, color=colour, alpha=0.15, lw=0)
                banded = True
            label = "pooled" if len(curves) == 1 else f"{group} against the rest"
            areas = [area for *_, area in of_group]
            place.plot([], [], color=colour, lw=2, label=f"{label}, AUC {_mean_and_sd(areas)}")
        if len(curves) == 1:
            spread = _mean_and_sd([area for *_, area in behind])
            place.plot([], [], color="0.6", lw=0.8, label=f"folds, AUC {spread}")
        if banded:
            place.fill_between([], [], color="0.6", alpha=0.4, lw=0, label=_BAND)
        place.plot([0, 1], [0, 1], color="0.8", lw=0.8, ls=":")
        numbers = sorted({len(table) for table in pooled})
        place.set(
            xlabel="1 - specificity",
            ylabel="sensitivity",
            title=f"per {level} (n = {' to '.join(map(str, {numbers[0]: 0, numbers[-1]: 0}))})",
            aspect="equal",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
        place.legend(frameon=False, loc="lower right")
        sns.despine(ax=place)
    against = "each class against the rest" if len(curves) > 1 else " against ".join(classes)
    head(figure, f"{title}: {against}{_several(len(pools))}")
    return figure


def _has_roc(table: pd.DataFrame, group: str) -> bool:
    return 0 < (table["class"] == group).sum() < len(table)


def _roc(table: pd.DataFrame, group: str) -> tuple[np.ndarray, np.ndarray, float]:
    """1 - specificity, sensitivity and area of the ROC curve of a class."""
    true, probability = table["class"] == group, table[PROBABILITY.format(group)]
    wrong, right, _ = roc_curve(true, probability)
    return wrong, right, roc_auc_score(true, probability)


def _mean_and_sd(values: Sequence[float]) -> str:
    if not values:
        return "n/a"
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def _several(pools: int) -> str:
    return f", {pools} repeats or seeds" if pools > 1 else ""


@in_print
def plot_confusion(
    predictions: Mapping[tuple[int, int, int], pd.DataFrame],
    classes: Sequence[str],
    title: str,
) -> Figure:
    """Figure of confusion matrices of pooled predictions, per scan and per patient.

    The folds of each repeat and seed give one matrix, as in :func:`plot_roc`. The figure shows
    their sum, in which each scan or patient counts once for each repeat and seed.

    Parameters
    ----------
    predictions
        ``(repeat, fold, seed)`` to the table of predictions of its test scans.
    """
    pools = list(pool_folds(predictions).values())
    side = 1.2 + 0.7 * len(classes)
    figure = Picture(figsize=(2 * side + 0.8, side), layout="constrained")
    axes = figure.subplots(1, 2)
    for place, level in zip(axes, ("scan", "patient"), strict=True):
        measured = [
            measure(t if level == "scan" else per_patient(t, classes), classes) for t in pools
        ]
        counts = np.sum([one["confusion"] for one in measured], axis=0)
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
        accuracy = _mean_and_sd([one["accuracy"] for one in measured])
        place.set(xlabel="predicted", ylabel="true", title=f"per {level}, accuracy {accuracy}")
    head(figure, f"{title}{_several(len(pools))}")
    return figure


@in_print
def plot_models(summary: pd.DataFrame, title: str, level: str = "patient") -> Figure:
    """Figure of the ROC AUC of each model, a panel a task; colour and marker give the evaluation.

    The fixed split, whose networks serve for the heatmaps, is shown only if there is no other
    evaluation.

    Parameters
    ----------
    summary
        See :meth:`voxplain.comparison.models.Summary.rows`. A point is the mean over networks, its
        bar the 95 % interval over test patients; no bar is drawn if the interval is nan.
    level
        ``scan`` or ``patient``.
    """
    shown = summary[summary["level"] == level]
    if (shown["evaluation"] != FIXED_SPLIT).any():
        shown = shown[shown["evaluation"] != FIXED_SPLIT]
    shown = shown.assign(series=[_series_name(row) for row in shown.to_dict("records")])
    tasks, models, series = (list(shown[key].unique()) for key in ("task", "model", "series"))
    names = [model.replace(" (", "\n(") for model in models]
    columns = 2 if len(tasks) == 4 else min(len(tasks), 3)
    rows = -(-len(tasks) // columns)
    width = 1.0 + 0.16 * len(models) * len(series)
    longest = max(len(line) for name in names for line in name.split("\n"))
    below = 0.16 * -(-len(series) // min(columns, 2)) + 0.045 * longest
    figure = Picture(
        figsize=(max(columns * max(width, 2.0), 4.5), 1.9 * rows + 0.6 + below),
        layout="constrained",
    )
    axes = figure.subplots(
        rows,
        columns,
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for place, task in zip(axes.flat, tasks, strict=False):
        for number, name in enumerate(series):
            of_series = shown[(shown["task"] == task) & (shown["series"] == name)].set_index(
                "model"
            )
            of_series = of_series.reindex(models)
            aside = 0.7 * ((number + 0.5) / len(series) - 0.5)
            at = np.arange(len(models)) + aside
            style = {"color": _COLOURS[number % len(_COLOURS)], "lw": 1}
            place.vlines(at, of_series["roc_auc_low"], of_series["roc_auc_high"], **style)
            marker = _MARKERS[(number + number // len(_COLOURS)) % len(_MARKERS)]
            place.plot(
                at, of_series["roc_auc_mean"], marker, ms=4, color=style["color"], label=name
            )
        place.axhline(0.5, color="0.6", lw=0.8, ls=":")
        place.set(title=task, xlim=(-0.5, len(models) - 0.5), ylim=(-0.03, 1.03))
        place.set_xticks(range(len(models)), names, rotation=35, ha="right")
        sns.despine(ax=place)
    for place in axes.flat[len(tasks) :]:
        place.set_axis_off()
        # The panel above an empty one shows the names of the models, which are hidden otherwise.
        above = axes[-2, list(axes[-1]).index(place)]
        above.tick_params(labelbottom=True)
    for place in axes[:, 0]:
        place.set_ylabel(f"ROC AUC per {level}")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=min(columns, 2))
    head(figure, title, "mean over networks, 95 % interval over patients; chance 0.5")
    return figure


def _series_name(row: Mapping[str, str]) -> str:
    """Label in the legend: cohort of the training, and cohort or kind of the test."""
    if row["evaluation"] == EXTERNAL_TEST:
        return f"{row['cohort']}, tested on {row['tested_on']}"
    return f"{row['cohort']}, {row['evaluation']}"
