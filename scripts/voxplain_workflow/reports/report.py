"""Report page of a run: cohorts, networks, heatmaps and their evaluation.

The last section, on reproducing the run, is in :mod:`voxplain_workflow.reports.making`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from voxplain.cohort.fates import MEASURES, read_fates
from voxplain.comparison.faithfulness_tables import unmoved_classes
from voxplain.pages import Page, with_interval
from voxplain.tables import MISSING, read_tsv
from voxplain_workflow.jobs.tested import describe_test
from voxplain_workflow.reports.trust import describe_unmoved

RESULTS = Path("results")
FILES = "report_files"
# Without single subjects, sex and age are hidden for groups of fewer patients.
FEWEST_PEOPLE = 3
_MEASURES = {
    "brain_volume_ml": "volume of the brain mask",
    "largest_part": "share of the mask that hangs together",
    "border_share": "share of the mask's surface on the border of the image",
    "overlap": "Dice coefficient with the template's brain, after registration",
    "similarity": "correlation with the template, after registration",
}
_HIDDEN = "some (left out here)"


class Report:
    """The page, and the folder beside it with the files that it shows.

    Attributes
    ----------
    page
        The page, to which sections are added.
    folder
        Folder of the files, which keep their relative paths in the results.
    subjects
        Whether the page may show data of single subjects.
    """

    def __init__(self, page: Page, folder: str | Path, subjects: bool) -> None:
        self.page, self.folder, self.subjects = page, Path(folder), subjects

    def keep(self, path: str | Path) -> str:
        """Copy a file of the results into the folder beside the page, and return its link."""
        place = Path(path).relative_to(RESULTS)
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        return f"{FILES}/{place.as_posix()}"

    def picture(self, path: str | Path, caption: str) -> None:
        """Show a figure of the results, with a link to its vector file."""
        link, vector = self.keep(path), self.keep(Path(path).with_suffix(".pdf"))
        self.page.add_picture(path, caption, caption, link, within=False, vector=vector)

    def table(
        self, path: str | Path, caption: str, shown: pd.DataFrame | None = None, digits: int = 2
    ) -> None:
        """Show a table of the results, as in the file or in the form of ``shown``."""
        link = self.keep(path)
        if shown is None:
            shown = read_table(path).rename(columns=lambda name: name.replace("_", " "))
        self.page.add_table(shown, caption, link, digits)

    def people(self, path: str | Path, caption: str) -> None:
        """Show a table of people; without single subjects leave out extreme ages, small groups."""
        if self.subjects:
            self.table(path, caption)
        else:
            table = read_table(path).drop(columns=["age_min", "age_max"])
            alone = table["patients"] < FEWEST_PEOPLE
            for column in ("female", "male", "age_mean", "age_sd"):
                table[column] = table[column].where(~alone)
            self.page.add_table(table.rename(columns=lambda name: name.replace("_", " ")), caption)


def read_table(path: str | Path) -> pd.DataFrame:
    """A table of the results with numeric columns; text such as ``NA`` stays text."""
    table = read_tsv(path, all_text=True)
    for column in table:
        text = table[column]
        missing = text.isin([MISSING, ""])
        numbers = pd.to_numeric(text.where(~missing), errors="coerce")
        if (numbers.notna() | missing).all():
            counts = numbers.notna().any() and text[~missing].str.fullmatch(r"-?\d+").all()
            table[column] = numbers.astype("Int64" if counts else float)
    return table


def report_cohorts(
    report: Report, cohorts: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]
) -> None:
    """Add the section on cohorts: fates, people, oddities, splits and the audit of leakage.

    Parameters
    ----------
    cohorts
        ``name``, ``folder``, ``simulated``.
    tasks
        ``cohort``, ``task``, ``folder``: the tasks that have splits.
    """
    page = report.page
    page.add_section("Cohorts")
    for cohort in cohorts:
        folder = Path(cohort["folder"])
        page.add_heading(f"Cohort {cohort['name']}")
        table = read_fates(folder / "scans.tsv")
        counts = Counter((row["group"], row["fate"]) for row in table)
        fates = sorted({fate for _, fate in counts})
        groups = sorted({group for group, _ in counts})
        shown = pd.DataFrame(
            [{"group": group, **{fate: counts[group, fate] for fate in fates}} for group in groups]
        )
        caption = f"What became of the {len(table)} scans of the table."
        if report.subjects:
            report.table(folder / "scans.tsv", caption, shown)
        else:
            page.add_table(shown, caption)
        # A reason may name files and subjects.
        keys = ("fate", "stage", "reason") if report.subjects else ("fate", "stage")
        explained = ("failed", "excluded", "unused")
        reasons = Counter(
            tuple(row[key] for key in keys) for row in table if row["fate"] in explained
        )
        if reasons:
            lines = [(*why, number) for why, number in reasons.most_common()]
            page.add_table(pd.DataFrame(lines, columns=[*keys, "scans"]), "Why.")
        report.people(folder / "scans_people.tsv", "Who they are: scans, patients, sex, age.")
        caption = "What is unusual about the table."
        if report.subjects:
            report.table(folder / "scans_oddities.tsv", caption)
        else:
            oddities = read_table(folder / "scans_oddities.tsv")
            page.add_table(oddities[["finding", "count"]], caption)
        if cohort["simulated"]:
            report.picture(
                folder / "simulation.png",
                "What was simulated, and what it did. Groups have the archive's names: CN is NC.",
            )
    for task in tasks:
        folder = Path(task["folder"])
        page.add_heading(f"Splits of {task['cohort']}, {task['task']}")
        report.people(folder / "splits_counts.tsv", "Scans and people of every split.")
        audit = read_table(folder / "leakage_audit.tsv")
        caption = "Audit of leakage: nothing of a test side may have taken part in training."
        if task["simulated"]:
            caption += " Simulated patients share the heads that they were made from: no leak."
        if report.subjects:
            report.table(folder / "leakage_audit.tsv", caption, audit)
        else:
            named = ["images_of_two_patients", "images_counted_twice", "scans_left_out"]
            named.append("heads_on_both_sides")  # by path, if they are the user's own heads
            for column in named:
                audit[column] = [
                    value if str(value) in ("0", "none", MISSING) else _HIDDEN
                    for value in audit[column]
                ]
            page.add_table(audit, caption)


def report_quality(
    report: Report, cohorts: Sequence[Mapping[str, Any]], thresholds: Mapping[str, Any]
) -> None:
    """Add the section on preprocessing: measures of the usable scans of each cohort.

    Parameters
    ----------
    thresholds
        ``quality`` of the configuration.
    """
    page = report.page
    page.add_section("Preprocessing")
    for cohort in cohorts:
        folder = Path(cohort["folder"])
        rows = [row for row in read_fates(folder / "scans.tsv") if row["fate"] == "usable"]
        measures = pd.DataFrame(rows, columns=list(MEASURES)).apply(pd.to_numeric, errors="coerce")
        measures = measures.astype(float)  # without rows the columns have no numeric type
        summary = measures.describe(percentiles=[0.05, 0.5, 0.95]).T
        shown = pd.DataFrame(
            {
                "measure": [name.replace("_", " ") for name in summary.index],
                "5 %": summary["5%"].to_numpy(),
                "median": summary["50%"].to_numpy(),
                "95 %": summary["95%"].to_numpy(),
                "least": [thresholds.get(f"min_{name}") for name in summary.index],
                "most": [thresholds.get(f"max_{name}") for name in summary.index],
                "is": [_MEASURES[name] for name in summary.index],
            }
        )
        flagged = len(read_table(folder / "scans_flagged.tsv"))
        rungs = Counter(row["skull_rung"] for row in rows)
        tools = sorted({f"{row['skull_tool']} {row['skull_tool_version']}" for row in rows})
        caption = f"Cohort {cohort['name']}: {len(rows)} usable scans, {flagged} flags."
        caption += " A scan below least or above most is excluded."
        if cohort["simulated"]:
            caption += " Simulated heads are as large as the template: 1.9 l with their fluid."
        page.add_table(shown, caption, digits=3)
        rungs.pop(MISSING, None)  # came without a skull
        climbed = ", ".join(f"{count} {rung}" for rung, count in rungs.most_common())
        if climbed:
            page.add_text(f"Skull removal by {', '.join(tools)}; scans by rung: {climbed}.")
        if report.subjects:
            # The pictures of that page lie with the scans and are not copied.
            link = Path(cohort["folder"]).relative_to(RESULTS) / "quality.html"
            page.add_link("Every scan, with its pictures (in the results):", link.as_posix())


def report_networks(report: Report, networks: Sequence[Mapping[str, Any]]) -> None:
    """Add the section on networks: performance of networks and baselines, and their training.

    Parameters
    ----------
    networks
        ``cohort``, ``task``, ``label``, ``folder``: one entry for a network of a task and all its
        splits.
    """
    page = report.page
    page.add_section("Networks")
    if not networks:
        page.add_text("None was trained.")
        return
    report.picture(
        RESULTS / "summary.png",
        "All networks and baselines; bars are 95 % intervals over patients.",
    )
    summary = _of_patients(read_table(RESULTS / "summary.tsv"))
    columns = ["cohort", "tested_on", "task", "model", "evaluation", "networks", "n"]
    shown = summary[columns].copy()
    aucs = summary[["roc_auc_mean", "roc_auc_low", "roc_auc_high"]]
    shown["ROC AUC"] = [with_interval(*row) for row in aucs.values]
    for name in ("accuracy", "balanced_accuracy", "sensitivity", "specificity"):
        shown[name.replace("_", " ")] = summary[f"{name}_mean"]
    report.table(
        RESULTS / "summary.tsv",
        "On patients that a network was not trained on, each counted once; the mean over networks. "
        "Intervals hold 95 % and are of a bootstrap over patients. A model's name says in brackets "
        "where it differs from its paper's.",
        shown,
    )
    against = _of_patients(read_table(RESULTS / "against_baselines.tsv"))
    report.table(
        RESULTS / "against_baselines.tsv",
        "ROC AUC of the networks minus the baselines'. A network that is no better than age and "
        "sex explains the cohort, not the disease.",
        against,
    )
    for network in networks:
        folder = Path(network["folder"])
        page.add_heading(_name_of(network))
        for name, caption in (
            ("learning_curves.png", "Loss and accuracy over the epochs."),
            ("roc.png", "ROC curves, pooled and of the folds; the band is over patients."),
            ("confusion.png", "Confusion matrices."),
        ):
            report.picture(folder / name, caption)
        splits = _of_patients(read_table(folder / "cross_validation.tsv")).drop(columns="model")
        report.table(
            folder / "cross_validation.tsv",
            "Every fold, and all of them; each patient counted once. Scores of different networks "
            "hardly compare, so read the mean before what is pooled.",
            splits,
        )


def report_heatmaps(
    report: Report, runs: Sequence[Mapping[str, Any]], retrained: Sequence[str]
) -> None:
    """Add the section on heatmaps: average maps, distances with their noise, and areas.

    Parameters
    ----------
    runs
        The explained networks, as the rules describe them.
    retrained
        Folders of networks trained several times, on the same split or on several folds.
    """
    page = report.page
    page.add_section("Heatmaps")
    if not runs:
        page.add_text("None was made.")
        return
    page.add_link(
        "Slice by slice, with the area under the cursor, in a browser with WebGL 2 (with a folder "
        "of its own beside this page):",
        "viewer.html",
    )
    page.add_text(
        "Average heatmaps of the test scans of a class, each divided by its own sum. Bright is "
        "where the network's output for its target depends on a voxel: by default the disease, the "
        "first class, in scans of all classes. Heatmaps have no sign. Distances are Euclidean, "
        "between the methods' averages of one class (Rieke et al. 2018); 0 is the same map."
    )
    for run in runs:
        folder = Path(run["folder"])
        page.add_heading(_name_of(run))
        page.add_text(
            f"The network that is explained here was trained on the split {run['split']}: "
            f"{describe_test(folder)}."
        )
        report.picture(
            folder / "mean_maps.png",
            "Average heatmaps on the template; colours end at the 99.5th percentile in the brain.",
        )
        report.picture(folder / "distances.png", "Distances between the methods.")
        distances = read_table(folder / "distances.tsv")
        for name, of_class in distances.groupby("class", sort=False):
            matrix = of_class.pivot(index="method_a", columns="method_b", values="distance")
            methods = list(dict.fromkeys(of_class["method_a"]))
            matrix = matrix.loc[methods, methods].astype(float) * 1e4
            matrix.insert(0, "distance, 10⁻⁴", methods)
            report.table(folder / "distances.tsv", f"Distances, class {name}.", matrix)
        areas = read_table(folder / "top_areas.tsv")
        for by, of_sort in areas.groupby("by", sort=False):
            ranks = of_sort.assign(
                text=[
                    f"{area} ({density:.1f} x)"
                    if by == "density"
                    else f"{area} ({100 * share:.1f} %)"
                    for area, share, density in of_sort[["area", "share", "density"]].values
                ],
                column=[f"{m}, {c}" for m, c in of_sort[["method", "class"]].values],
            )
            table = ranks.pivot(index="rank", columns="column", values="text")
            table = table[list(dict.fromkeys(ranks["column"]))].reset_index()
            what = {
                "sum": "Areas by their share of all relevance.",
                "density": "Areas by relevance per volume, in times the brain's mean.",
            }
            report.table(folder / "top_areas.tsv", what[by], table)
        report.picture(folder / "area_distribution.png", "Relevance of areas, patient by patient.")
    if retrained:
        page.add_heading("How much of a distance is retraining")
    for path in (Path(folder) / "retraining.png" for folder in retrained):
        caption = "Distances between methods, and of a method from itself trained again"
        report.picture(path, f"{caption}: {'/'.join(path.parts[1:-1])}.")
        report.table(path.with_suffix(".tsv"), "Distances and their noise floor.", digits=5)


def report_worth(report: Report, runs: Sequence[Mapping[str, Any]]) -> None:
    """Add the section on the evaluation of heatmaps: localisation and faithfulness."""
    page = report.page
    if not runs:
        return
    page.add_section("What the heatmaps are worth")
    if report.subjects:  # that page shows scans
        page.add_link(
            "Over all cohorts and networks, which method finds what was simulated (a page of its "
            "own beside this one):",
            "trust.html",
        )
    for run in runs:
        folder = Path(run["folder"])
        page.add_heading(_name_of(run))
        report.picture(
            folder / "localisation.png",
            "How well each method's heatmaps lie in the regions, and, where it is known, in what "
            "was changed. Bars are 95 % intervals over patients. In the file: mass, the share of "
            "relevance inside; rank, that of the highest voxels; pointing, whether the highest "
            "voxel is inside (several that are equally high count by their share).",
        )
        report.picture(folder / "precision_recall.png", "Precision and recall, voxel by voxel.")
        if run["with_truth"] and report.subjects:
            report.picture(folder / "truth.png", "A scan's truth and its heatmaps.")
        report.table(
            folder / "localisation.tsv",
            "Average precision in each region, as it is and smoothed, and how many times chance; "
            "the file has the other measures.",
            _shown_localisation(read_table(folder / "localisation.tsv")),
        )
        if run["followed"]:
            report.picture(folder / "faithfulness.png", "Deletion and insertion of areas.")
            faithfulness = read_table(folder / "faithfulness.tsv")
            for group, probability in unmoved_classes(faithfulness).items():
                page.add_text(f"Note: {describe_unmoved(group, probability)}")
            shown = _shown_means(faithfulness, ["method", "class"], "measure")
            report.table(
                folder / "faithfulness.tsv",
                "Deletion (less is better), insertion, their difference, and its gain over random "
                "orders (more is better).",
                shown,
            )
        if run["randomised"]:
            report.picture(
                folder / "randomisation.png",
                "Heatmaps of networks made random, of the methods in faithfulness.randomise.",
            )
            shown = _shown_means(read_table(folder / "randomisation.tsv"), ["method"], "layer")
            report.table(
                folder / "randomisation.tsv",
                "Rank correlation with the heatmap of the trained network, once this layer and all "
                "after it are random; near 1, a heatmap does not show what was learned.",
                shown,
            )


def _of_patients(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["level"] == "patient"].drop(columns="level")


def _shown_localisation(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, a column for each region and smoothing."""
    precision = table[table["measure"] == "average_precision"]
    rows: dict[str, dict[str, object]] = {}
    for record in precision.to_dict("records"):
        width = record["smoothing_mm"]
        column = record["region"] + (f", smoothed {width:g} mm" if width else "")
        mean, text = with_interval(record["mean"], record["low"], record["high"])
        if pd.notna(record["times_chance"]):
            text += f", {record['times_chance']:.1f} x"
        rows.setdefault(record["method"], {})[column] = (mean, text)
    return pd.DataFrame([{"method": method, **cells} for method, cells in rows.items()])


def _shown_means(table: pd.DataFrame, keys: Sequence[str], across: str) -> pd.DataFrame:
    """A row for each of the keys, a column for each value of ``across``: means, with intervals."""
    rows: dict[tuple, dict[str, object]] = {}
    for record in table.to_dict("records"):
        key_cells = {key: record[key] for key in keys}
        row = rows.setdefault(tuple(key_cells.values()), key_cells)
        row[record[across]] = with_interval(record["mean"], record["low"], record["high"])
    return pd.DataFrame(rows.values())


def _name_of(run: Mapping[str, Any]) -> str:
    parts = [run["cohort"], run["task"], run["label"]]
    parts += [f"{key} {run[key]}" for key in ("split", "seed") if key in run]
    return ", ".join(parts)
