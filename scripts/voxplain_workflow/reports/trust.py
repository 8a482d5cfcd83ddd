"""What the page on trust is made of: tables of many networks, put together."""

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
from voxplain.comparison.scorecard import KEYS, finds
from voxplain.pages import Page, with_interval
from voxplain.tables import read_tsv
from voxplain_workflow.jobs.localisation import BASELINE, read_scores

# Of several evaluations of a network the first of these speaks for it. Folds learn from patients
# of each other, which the networks of an external test do not.
_EVALUATIONS = (EXTERNAL_TEST, CROSS_VALIDATION, FIXED_SPLIT)


def tested_networks(rows: pd.DataFrame) -> pd.DataFrame:
    """How well each network, and each baseline, does on patients it was not trained on.

    Parameters
    ----------
    rows
        See :meth:`voxplain.comparison.models.Summary.rows`.

    Returns
    -------
    One row for each cohort, task and model: ``kind``, ``evaluation``, ``patients``, ``networks``,
    ``roc_auc``, ``roc_auc_low``, ``roc_auc_high``, ``accuracy``; each patient counted once. Tests
    on cohorts of other settings are left out.
    """
    own = rows[(rows["level"] == "patient") & (rows["cohort"] == rows["tested_on"])]
    place = own["evaluation"].map(_EVALUATIONS.index)
    first = own.assign(place=place).sort_values("place", kind="stable")
    first = first.drop_duplicates(KEYS[:-1]).sort_index()
    columns = {"n": "patients", "roc_auc_mean": "roc_auc", "accuracy_mean": "accuracy"}
    kept = ["kind", "evaluation", "patients", "networks"]
    told = ["roc_auc", "roc_auc_low", "roc_auc_high", "accuracy"]
    return first.rename(columns=columns)[[*KEYS[:-1], *kept, *told]].reset_index(drop=True)


def read_runs(runs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> pd.DataFrame:
    """Scores of every method, and of the classes' difference, scan by scan.

    Parameters
    ----------
    runs
        As the rules describe explained networks.
    names
        Cohort to the name it has on the page.
    """
    tables = []
    for run in runs:
        files = {name: f"{run['folder']}/{name}/localisation.tsv" for name in run["methods"]}
        files[BASELINE] = run["difference"]
        who = {"cohort": names[run["cohort"]], "task": run["task"], "model": run["label"]}
        tables += [read_scores(path, method).assign(**who) for method, path in files.items()]
    return pd.concat(tables, ignore_index=True)


def unmoved(runs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    """Whose heatmaps rank next to nothing, in a sentence for each network and class."""
    told = set()
    for run in runs:
        if run["followed"]:
            table = read_tsv(f"{run['folder']}/faithfulness.tsv")
            who = f"{names[run['cohort']]}, {run['task']}, {run['label']}"
            for group, probability in unmoved_classes(table).items():
                told.add(f"{who}: {describe_unmoved(group, probability)}")
    return sorted(told)


def describe_unmoved(group: str, probability: float) -> str:
    """What it means that nothing moves the probability of a class's scans."""
    return (
        f"in scans of {group} the network's probability of the target stays at {probability:.2f} "
        "whatever is taken away or put in, so that their heatmaps rank differences below 0.01, "
        "which may be rounding. Do not read them as strong because they are bright."
    )


def read_changes(
    runs: Sequence[Mapping[str, Any]], names: Mapping[str, str], draws: int
) -> pd.DataFrame:
    """How faithful each method's heatmaps are to the network.

    Parameters
    ----------
    runs, names
        See :func:`read_runs`.
    draws
        Of the bootstrap over patients.

    Returns
    -------
    One row for each cohort, task, model and method: ``gain``, ``gain_low``, ``gain_high`` (of
    deletion and insertion, over patients with the disease) and ``rank_correlation_random``, the
    heatmaps' with those of the network once all of its layers are random.
    """
    scores, correlations = [], []
    for run in runs:
        who = {"cohort": names[run["cohort"]], "task": run["task"], "model": run["label"]}
        if run["followed"]:
            told = score_curves(read_tsv(f"{run['folder']}/area_changes.tsv"))
            own = (told["class"] == run["disease"]) & told["method"].isin(run["methods"])
            scores.append(told[own & (told["measure"] == "gain")].assign(**who))
        if run["randomised"]:
            table = read_tsv(f"{run['folder']}/randomisation.tsv")
            last = table[table["step"] == table["step"].max()]
            correlations.append(last[["method", "mean"]].assign(**who))
    empty = pd.DataFrame(columns=KEYS)
    gains = empty
    if scores:
        found = summarise(pd.concat(scores), KEYS, draws)
        columns = {"mean": "gain", "low": "gain_low", "high": "gain_high"}
        gains = found.rename(columns=columns)[[*KEYS, *columns.values()]]
    if not correlations:
        return gains
    mean = pd.concat(correlations).groupby(KEYS, sort=False)["mean"].mean()
    return gains.merge(mean.rename("rank_correlation_random").reset_index(), how="outer", on=KEYS)


def read_retraining(runs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> pd.DataFrame:
    """How alike a method's average heatmaps are when the network is trained once more.

    Returns
    -------
    One row for each cohort, task, model and method: ``rank_correlation_retrained``, between the
    average heatmaps of networks trained with other seeds, over classes and splits. None without
    several seeds.
    """
    tables = []
    for run in {Path(run["folder"]).parent: run for run in runs if run["retrained"]}.values():
        who = {"cohort": names[run["cohort"]], "task": run["task"], "model": run["label"]}
        path = Path(run["folder"]).parent / "retraining.tsv"
        table = read_tsv(path).drop(columns="model")
        own = table[table["method_a"] == table["method_b"]].rename(columns={"method_a": "method"})
        tables.append(own[["method", "rank_correlation_mean"]].assign(**who))
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
    """The page.

    Parameters
    ----------
    sentences
        What the run says, in words.
    networks
        See :func:`tested_networks`.
    table
        One row a method, of all that is known of it.
    others
        What else was looked for, by what it is called, as :func:`scorecard` gives it.
    scorecard
        The picture of all methods.
    truths, simulations
        Pictures of scans beside their truth; of what was done to simulated cohorts.
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
    page.add_points([f"{name}: {told}" for name, told in _COLUMNS.items() if name in shown])
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
    """A file as the page, which lies in ``results``, links to it."""
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
            "finds it": "n/a" if pd.isna(row["times_low"]) else "yes" if finds(row) else "no",
        }
        for row in card.to_dict("records")
    ]
    return pd.DataFrame(rows)


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
