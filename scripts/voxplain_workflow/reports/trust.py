"""Tables and content of the page on trust, from the results of many networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from voxplain.comparison.faithfulness_tables import score_curves, unmoved_classes
from voxplain.comparison.localisation import summarise
from voxplain.comparison.models import BASELINE as WITHOUT_NETWORK
from voxplain.comparison.models import (
    CROSS_VALIDATION,
    EXTERNAL_TEST,
    FIXED_SPLIT,
)
from voxplain.comparison.scorecard import KEYS, exceeds_chance
from voxplain.pages import Page, with_interval
from voxplain.tables import read_tsv
from voxplain_workflow.jobs.localisation import BASELINE, read_scores

# If a network has several evaluations, the first of these is used. Folds of a cross-validation
# train on each other's test patients; networks of an external test do not.
_EVALUATIONS = (EXTERNAL_TEST, CROSS_VALIDATION, FIXED_SPLIT)


def tested_networks(rows: pd.DataFrame) -> pd.DataFrame:
    """Performance of each network and baseline on patients that it was not trained on.

    Parameters
    ----------
    rows
        See :meth:`voxplain.comparison.models.Summary.rows`.

    Returns
    -------
    One row for each cohort, task and model: ``kind``, ``evaluation``, ``patients``, ``networks``,
    ``roc_auc``, ``roc_auc_low``, ``roc_auc_high``, ``accuracy``; each patient counts once. Tests
    on cohorts with other settings are left out.
    """
    of_patients = rows[(rows["level"] == "patient") & (rows["cohort"] == rows["tested_on"])]
    place = of_patients["evaluation"].map(_EVALUATIONS.index)
    first = of_patients.assign(place=place).sort_values("place", kind="stable")
    first = first.drop_duplicates(KEYS[:-1]).sort_index()
    columns = {"n": "patients", "roc_auc_mean": "roc_auc", "accuracy_mean": "accuracy"}
    described = ["kind", "evaluation", "patients", "networks"]
    measured = ["roc_auc", "roc_auc_low", "roc_auc_high", "accuracy"]
    return first.rename(columns=columns)[[*KEYS[:-1], *described, *measured]].reset_index(drop=True)


def read_runs(runs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> pd.DataFrame:
    """Localisation scores of each scan, for all methods and the difference between classes.

    Parameters
    ----------
    runs
        Explained networks, as the rules describe them.
    names
        Cohort to its name on the page.
    """
    tables = []
    for run in runs:
        files = {name: f"{run['folder']}/{name}/localisation.tsv" for name in run["methods"]}
        files[BASELINE] = run["difference"]
        who = {"cohort": names[run["cohort"]], "task": run["task"], "model": run["label"]}
        tables += [read_scores(path, method).assign(**who) for method, path in files.items()]
    return pd.concat(tables, ignore_index=True)


def unmoved(runs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    """Sentences on classes whose probability hardly changes, one for each network and class."""
    sentences = set()
    for run in runs:
        if run["followed"]:
            table = read_tsv(f"{run['folder']}/faithfulness.tsv")
            who = f"{names[run['cohort']]}, {run['task']}, {run['label']}"
            for group, probability in unmoved_classes(table).items():
                sentences.add(f"{who}: {describe_unmoved(group, probability)}")
    return sorted(sentences)


def describe_unmoved(group: str, probability: float) -> str:
    """Explanation for readers if no change of areas moves the probability of a class."""
    return (
        f"in scans of {group} the network's probability of the target stays at {probability:.2f} "
        "whatever is taken away or put in, so that their heatmaps rank differences below 0.01, "
        "which may be rounding. Do not read them as strong because they are bright."
    )


def read_changes(
    runs: Sequence[Mapping[str, Any]], names: Mapping[str, str], draws: int
) -> pd.DataFrame:
    """Faithfulness of the heatmaps of each method to the network.

    Parameters
    ----------
    runs, names
        See :func:`read_runs`.
    draws
        Number of draws of the bootstrap over patients.

    Returns
    -------
    One row for each cohort, task, model and method: ``gain``, ``gain_low``, ``gain_high`` (of
    deletion and insertion, over patients with the disease) and ``rank_correlation_random``, the
    rank correlation with heatmaps of the network with all layers randomised.
    """
    scores, correlations = [], []
    for run in runs:
        who = {"cohort": names[run["cohort"]], "task": run["task"], "model": run["label"]}
        if run["followed"]:
            curve_scores = score_curves(read_tsv(f"{run['folder']}/area_changes.tsv"))
            of_disease = curve_scores["class"] == run["disease"]
            of_methods = curve_scores["method"].isin(run["methods"])
            is_gain = curve_scores["measure"] == "gain"
            scores.append(curve_scores[of_disease & of_methods & is_gain].assign(**who))
        if run["randomised"]:
            table = read_tsv(f"{run['folder']}/randomisation.tsv")
            last = table[table["step"] == table["step"].max()]
            correlations.append(last[["method", "mean"]].assign(**who))
    empty = pd.DataFrame(columns=KEYS)
    gains = empty
    if scores:
        summary = summarise(pd.concat(scores), KEYS, draws)
        columns = {"mean": "gain", "low": "gain_low", "high": "gain_high"}
        gains = summary.rename(columns=columns)[[*KEYS, *columns.values()]]
    if not correlations:
        return gains
    mean = pd.concat(correlations).groupby(KEYS, sort=False)["mean"].mean()
    return gains.merge(mean.rename("rank_correlation_random").reset_index(), how="outer", on=KEYS)


def read_retraining(runs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> pd.DataFrame:
    """Similarity of the average heatmaps of a method when the network is trained again.

    Returns
    -------
    One row for each cohort, task, model and method: ``rank_correlation_retrained``, between the
    average heatmaps of networks with different seeds, over classes and splits. There are no rows
    without several seeds.
    """
    tables = []
    for run in {Path(run["folder"]).parent: run for run in runs if run["retrained"]}.values():
        who = {"cohort": names[run["cohort"]], "task": run["task"], "model": run["label"]}
        path = Path(run["folder"]).parent / "retraining.tsv"
        table = read_tsv(path).drop(columns="model")
        of_method = table[table["method_a"] == table["method_b"]]
        of_method = of_method.rename(columns={"method_a": "method"})
        tables.append(of_method[["method", "rank_correlation_mean"]].assign(**who))
    if not tables:
        return pd.DataFrame(columns=KEYS)
    mean = pd.concat(tables).groupby(KEYS, sort=False)["rank_correlation_mean"].mean()
    return mean.rename("rank_correlation_retrained").reset_index()


_COLUMNS = {
    "average precision": "of the voxels that were changed; chance is their share of the brain.",
    "gain": "how much sooner the network changes its mind when areas go (and come) in the "
    "heatmap's order than in a random one, for patients with the disease; more is better, 0 is "
    "none.",
    "random network": "rank correlation with the heatmap of a network whose layers are all "
    "random; near 1, the heatmap does not show what was learned.",
    "retrained": "rank correlation of the average heatmaps of networks that differ in their seed.",
}


def page_of_trust(
    sentences: Sequence[str],
    networks: pd.DataFrame,
    table: pd.DataFrame,
    others: Mapping[str, pd.DataFrame],
    scorecard: str,
    truths: Sequence[str],
    simulations: Sequence[str],
    version: str,
) -> Page:
    """Page on which heatmaps can be trusted.

    Parameters
    ----------
    sentences
        Main results of the run, as sentences.
    networks
        See :func:`tested_networks`.
    table
        One row a method, with all its measures.
    others
        Name to scorecard for other regions or smoothings, see
        :func:`voxplain.comparison.scorecard.scorecard`.
    scorecard
        Path of the picture of the scorecard.
    truths, simulations
        Paths of pictures: heatmaps and truth of scans; checks of simulated cohorts.
    """
    page = Page(
        "Which heatmap can be trusted?",
        [
            "In a simulated cohort it is known where each scan was changed. A heatmap can "
            "therefore be right or wrong; the measures and their limits are explained in "
            "docs/ground_truth.md. Tables sort by a click on their head."
        ],
        f"Made by voxplain {version}. Intervals hold 95 % and are of a bootstrap over patients, "
        "for the networks that were trained here.",
    )
    page.add_section("What this run says")
    page.add_points(sentences)
    page.add_text(
        "Few patients, one network and one seed rank no methods; a baseline that knows nothing can "
        "fall well below 0.5 by chance where patients are few. What was changed in areas of the "
        "atlas favours methods that occlude these very areas (docs/ground_truth.md)."
    )
    page.add_picture(
        scorecard,
        "Methods and networks, coloured by how many times better than chance each finds the truth",
        "Average precision of the truth in times chance, and its interval; framed: twice chance or "
        "better, with an interval above chance. Grey names look at no network.",
        _below_results(scorecard),
    )
    page.add_section("The networks, and what needs none")
    page.add_text(
        "A network that tells nothing apart has nothing to explain. A baseline that does as well "
        "on age and sex alone says that the cohort is confounded; one that does as well on the "
        "areas' mean brightness, that the task needs no network."
    )
    page.add_table(_shown_networks(networks), "Each patient counted once.", "summary.tsv")
    page.add_section("The methods")
    shown = _shown_methods(table)
    page.add_table(shown, "Over all splits and seeds.", _below_results("trust.tsv"))
    page.add_points([f"{name}: {meaning}" for name, meaning in _COLUMNS.items() if name in shown])
    for name, card in others.items():
        if len(card):
            caption = f"Average precision, {name}."
            page.add_table(_shown_card(card), caption, _below_results("trust.tsv"))
    if truths:
        page.add_section("Truth and heatmaps side by side")
        page.add_text(
            "One scan of the test side of each network's first split and seed. Where the truth's "
            "line is and a method's bright voxels are not, it misses."
        )
    for path in truths:
        page.add_picture(path, f"Slices of {path}", _run_of(path), _below_results(path))
    if simulations:
        page.add_section("What was simulated")
    for path in simulations:
        caption = f"Cohort {Path(path).parent.name}."
        page.add_picture(path, f"Check of {caption}", caption, _below_results(path))
    return page


def _below_results(path: str) -> str:
    """Link to a file from the page, which lies in ``results``."""
    return str(path).removeprefix("results/")


def _run_of(path: str) -> str:
    cohort, task, model, split, seed = Path(path).parts[-6:-1]
    return f"Cohort {cohort}, {task}, {model}, split {split}, {seed}."


def _shown_networks(networks: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {
            **{key: row[key] for key in ("cohort", "task", "model")},
            "": "without a network" if row["kind"] == WITHOUT_NETWORK else "",
            "tested by": row["evaluation"],
            "patients": row["patients"],
            "ROC AUC": with_interval(row["roc_auc"], row["roc_auc_low"], row["roc_auc_high"]),
            "accuracy": row["accuracy"],
        }
        for row in networks.to_dict("records")
    ]
    return pd.DataFrame(rows)


def _shown_card(card: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {
            **{key: row[key] for key in KEYS},
            "average precision": with_interval(row["mean"], row["low"], row["high"]),
            "times chance": with_interval(
                row["times_chance"], row["times_low"], row["times_high"], 1
            ),
            "finds it": _finds_truth(row),
        }
        for row in card.to_dict("records")
    ]
    return pd.DataFrame(rows)


def _finds_truth(row: Mapping[str, Any]) -> str:
    if pd.isna(row["times_low"]):
        return "n/a"
    return "yes" if exceeds_chance(row) else "no"


def _shown_methods(table: pd.DataFrame) -> pd.DataFrame:
    shown = _shown_card(table)
    if "gain" in table:
        gains = table[["gain", "gain_low", "gain_high"]].itertuples(index=False)
        shown["gain"] = [with_interval(*gain, digits=3) for gain in gains]
    for column, name in (
        ("rank_correlation_random", "random network"),
        ("rank_correlation_retrained", "retrained"),
    ):
        if column in table:
            shown[name] = table[column].to_numpy()
    return shown
