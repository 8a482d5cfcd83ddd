"""The page of a run: its cohorts, networks and heatmaps, their worth, and how they were made."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from voxplain.cohort.fates import MEASURES, read_fates
from voxplain.comparison.faithfulness_tables import unmoved_classes
from voxplain.pages import Page, with_interval
from voxplain.tables import MISSING, read_tsv, write_tsv
from voxplain_workflow.jobs.tested import describe_test
from voxplain_workflow.reports.citations import Used, citations_of, to_bibtex
from voxplain_workflow.reports.trust import describe_unmoved

RESULTS = Path("results")
FILES = "report_files"
# What the jobs computed with, where the environment that makes the report has it.
_PACKAGES = (
    "numpy",
    "scipy",
    "nibabel",
    "pandas",
    "torch",
    "captum",
    "higra",
    "antspyx",
    "deepbet",
    "fslpy",
    "dcm2niix",
    "scikit-learn",
    "matplotlib",
    "seaborn",
)
# Sex and age of fewer are those of persons, where no single one may be shown.
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
    """A page, and the folder of files beside it that it shows.

    Attributes
    ----------
    page
        The page so far.
    folder
        Where the files go, below their own places in the results.
    subjects
        Whether it may show what belongs to a single subject.
    """

    def __init__(self, page: Page, folder: str | Path, subjects: bool) -> None:
        self.page, self.folder, self.subjects = page, Path(folder), subjects

    def keep(self, path: str | Path) -> str:
        """Copy a file of the results beside the page; gives its link."""
        place = Path(path).relative_to(RESULTS)
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        return f"{FILES}/{place.as_posix()}"

    def picture(self, path: str | Path, caption: str) -> None:
        """Show a figure of the results, with its file for print."""
        link, vector = self.keep(path), self.keep(Path(path).with_suffix(".pdf"))
        self.page.add_picture(path, caption, caption, link, within=False, vector=vector)

    def table(
        self, path: str | Path, caption: str, shown: pd.DataFrame | None = None, digits: int = 2
    ) -> None:
        """Show a table of the results, as it is or in another form."""
        link = self.keep(path)
        if shown is None:
            shown = read_table(path).rename(columns=lambda name: name.replace("_", " "))
        self.page.add_table(shown, caption, link, digits)

    def people(self, path: str | Path, caption: str) -> None:
        """Show a table of people; the least and the greatest age are those of single ones."""
        if self.subjects:
            self.table(path, caption)
        else:
            table = read_table(path).drop(columns=["age_min", "age_max"])
            alone = table["patients"] < FEWEST_PEOPLE
            for column in ("female", "male", "age_mean", "age_sd"):
                table[column] = table[column].where(~alone)
            self.page.add_table(table.rename(columns=lambda name: name.replace("_", " ")), caption)


def read_table(path: str | Path) -> pd.DataFrame:
    """A table of the results; names stay what they are, though one be called NA."""
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
    """Fates, people, oddities, splits and the audit of leakage.

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
        told = ("failed", "excluded", "unused")
        reasons = Counter(tuple(row[key] for key in keys) for row in table if row["fate"] in told)
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
            named.append("heads_on_both_sides")  # by path, where they are somebody's own
            for column in named:
                audit[column] = [
                    told if str(told) in ("0", "none", MISSING) else _HIDDEN
                    for told in audit[column]
                ]
            page.add_table(audit, caption)


def report_quality(
    report: Report, cohorts: Sequence[Mapping[str, Any]], thresholds: Mapping[str, Any]
) -> None:
    """Measures of preprocessing, over the usable scans of each cohort.

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
        measures = measures.astype(float)  # of no rows nothing is known to be a number
        told = measures.describe(percentiles=[0.05, 0.5, 0.95]).T
        shown = pd.DataFrame(
            {
                "measure": [name.replace("_", " ") for name in told.index],
                "5 %": told["5%"].to_numpy(),
                "median": told["50%"].to_numpy(),
                "95 %": told["95%"].to_numpy(),
                "least": [thresholds.get(f"min_{name}") for name in told.index],
                "most": [thresholds.get(f"max_{name}") for name in told.index],
                "is": [_MEASURES[name] for name in told.index],
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
            # Its pictures lie with the scans: they are not copied.
            link = Path(cohort["folder"]).relative_to(RESULTS) / "quality.html"
            page.add_link("Every scan, with its pictures (in the results):", link.as_posix())


def report_networks(report: Report, networks: Sequence[Mapping[str, Any]]) -> None:
    """How well networks and baselines do, and how they were trained.

    Parameters
    ----------
    networks
        ``cohort``, ``task``, ``label``, ``folder``: one a network of a task, with all its splits.
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
    kept = ["cohort", "tested_on", "task", "model", "evaluation", "networks", "n"]
    shown = summary[kept].copy()
    aucs = summary[["roc_auc_mean", "roc_auc_low", "roc_auc_high"]]
    shown["ROC AUC"] = [with_interval(*told) for told in aucs.values]
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
    """Average maps, distances with their noise, and areas, of every explained network.

    Parameters
    ----------
    runs
        The explained networks, as the rules describe them.
    retrained
        Folders of networks that were trained several times, on one split or on the folds.
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
                told=[
                    f"{area} ({density:.1f} x)"
                    if by == "density"
                    else f"{area} ({100 * share:.1f} %)"
                    for area, share, density in of_sort[["area", "share", "density"]].values
                ],
                column=[f"{m}, {c}" for m, c in of_sort[["method", "class"]].values],
            )
            table = ranks.pivot(index="rank", columns="column", values="told")
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
    """Localisation and faithfulness."""
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
            told = _shown_means(faithfulness, ["method", "class"], "measure")
            report.table(
                folder / "faithfulness.tsv",
                "Deletion (less is better), insertion, their difference, and its gain over random "
                "orders (more is better).",
                told,
            )
        if run["randomised"]:
            report.picture(
                folder / "randomisation.png",
                "Heatmaps of networks made random, of the methods in faithfulness.randomise.",
            )
            told = _shown_means(read_table(folder / "randomisation.tsv"), ["method"], "layer")
            report.table(
                folder / "randomisation.tsv",
                "Rank correlation with the heatmap of the trained network, once this layer and all "
                "after it are random; near 1, a heatmap does not show what was learned.",
                told,
            )


def _of_patients(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["level"] == "patient"].drop(columns="level")


def _shown_localisation(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, a column for each region and smoothing."""
    own = table[table["measure"] == "average_precision"]
    rows: dict[str, dict[str, object]] = {}
    for told in own.to_dict("records"):
        width = told["smoothing_mm"]
        column = told["region"] + (f", smoothed {width:g} mm" if width else "")
        mean, text = with_interval(told["mean"], told["low"], told["high"])
        if pd.notna(told["times_chance"]):
            text += f", {told['times_chance']:.1f} x"
        rows.setdefault(told["method"], {})[column] = (mean, text)
    return pd.DataFrame([{"method": method, **told} for method, told in rows.items()])


def _shown_means(table: pd.DataFrame, keys: Sequence[str], across: str) -> pd.DataFrame:
    """A row for each of the keys, a column for each value of ``across``: means, with intervals."""
    rows: dict[tuple, dict[str, object]] = {}
    for told in table.to_dict("records"):
        row = rows.setdefault(tuple(told[key] for key in keys), {key: told[key] for key in keys})
        row[told[across]] = with_interval(told["mean"], told["low"], told["high"])
    return pd.DataFrame(rows.values())


def report_making(
    report: Report,
    config: Mapping[str, Any],
    used: Used,
    version: str,
    snakemake_version: str,
) -> None:
    """Configuration, commands, versions, citations, time and memory."""
    page = report.page
    page.add_section("How it was made")
    told = yaml.safe_dump(hide_subjects(config, report.subjects), sort_keys=False, width=100)
    report.folder.mkdir(parents=True, exist_ok=True)
    (report.folder / "config.yaml").write_text(told, encoding="utf-8")
    page.add_link("The configuration, with every default:", f"{FILES}/config.yaml")
    page.add_code(told, "config.yaml")
    if not report.subjects:
        page.add_text("Scans and heads that the configuration names are left out of it here.")
    page.add_text(f"With voxplain {version} and this configuration, the run again:")
    page.add_code(
        "snakemake --cores all --resources gpu=1 --configfile config.yaml", "Commands", True
    )
    versions = [("voxplain", version), ("snakemake", snakemake_version), *_versions()]
    page.add_table(pd.DataFrame(versions, columns=["package", "version"]), "Versions.")
    cited = citations_of(config, used)
    page.add_text("If you publish this, please cite:")
    page.add_points([citation.text for citation in cited])
    (report.folder / "citations.bib").write_text(to_bibtex(cited), encoding="utf-8")
    page.add_link("The same to paste:", f"{FILES}/citations.bib")
    costs = costs_of_rules(RESULTS / "benchmarks")
    if len(costs):
        write_tsv(costs, report.folder / "costs.tsv", "%.1f")
        page.add_table(
            costs,
            "Time and memory of the jobs, as Snakemake measured them when each last ran.",
            f"{FILES}/costs.tsv",
            digits=1,
        )


def hide_subjects(config: Mapping[str, Any], subjects: bool) -> dict[str, Any]:
    """The configuration; without subjects, without the scans and heads that it names."""
    told = copy.deepcopy(dict(config))
    if not subjects:
        told["quality"]["keep"] = []
        for cohort in told["cohorts"].values():
            heads = cohort.get("simulation", {}).get("heads", [])
            if heads:
                cohort["simulation"]["heads"] = [f"head {n}" for n in range(1, len(heads) + 1)]
    return told


def costs_of_rules(folder: Path) -> pd.DataFrame:
    """Jobs, their CPU time, the longest of them and the peak of their memory, rule by rule.

    Parameters
    ----------
    folder
        Of Snakemake's benchmark files, those of a rule below its name.
    """
    rows = []
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        paths = [place] if place.suffix == ".tsv" else sorted(place.rglob("*.tsv"))
        # A job that ends just now, or ended on a full disk, leaves an empty one.
        paths = [path for path in paths if path.stat().st_size]
        tables = [pd.read_csv(path, sep="\t", na_values=["-", "NA"]) for path in paths]
        if not tables:
            continue
        table = pd.concat(tables, ignore_index=True)
        rows.append(
            {
                "rule": place.name.removesuffix(".tsv"),
                "jobs": len(paths),
                "CPU time, min": table["cpu_time"].sum() / 60,
                "longest job, min": table["s"].max() / 60,
                "peak memory, MB": table["max_rss"].max(),
            }
        )
    rows.sort(key=lambda row: -row["CPU time, min"])
    return pd.DataFrame(rows)


def _versions() -> Iterable[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # in the environment of other rules only


def _name_of(run: Mapping[str, Any]) -> str:
    told = [run["cohort"], run["task"], run["label"]]
    told += [f"{key} {run[key]}" for key in ("split", "seed") if key in run]
    return ", ".join(told)
