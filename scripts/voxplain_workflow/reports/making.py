"""Last section of the report page: how the run was made, so that it can be made again."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from voxplain.tables import write_tsv
from voxplain_workflow.reports.citations import Used, citations_of, to_bibtex
from voxplain_workflow.reports.report import FILES, RESULTS, Report

# Packages that jobs compute with; listed if installed in the environment of the report.
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


def report_making(
    report: Report,
    config: Mapping[str, Any],
    used: Used,
    version: str,
    snakemake_version: str,
) -> None:
    """Add the section: configuration, commands, versions, citations, time and memory."""
    page = report.page
    page.add_section("How it was made")
    text = yaml.safe_dump(hide_subjects(config, report.subjects), sort_keys=False, width=100)
    report.folder.mkdir(parents=True, exist_ok=True)
    (report.folder / "config.yaml").write_text(text, encoding="utf-8")
    page.add_link("The configuration, with every default:", f"{FILES}/config.yaml")
    page.add_code(text, "config.yaml")
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
    """Copy of the configuration; without ``subjects`` the scans and heads in it are removed."""
    shown = copy.deepcopy(dict(config))
    if not subjects:
        shown["quality"]["keep"] = []
        for cohort in shown["cohorts"].values():
            heads = cohort.get("simulation", {}).get("heads", [])
            if heads:
                cohort["simulation"]["heads"] = [f"head {n}" for n in range(1, len(heads) + 1)]
    return shown


def costs_of_rules(folder: Path) -> pd.DataFrame:
    """Table with a row for each rule: jobs, CPU time, longest job and peak memory.

    Parameters
    ----------
    folder
        Folder of Snakemake's benchmark files, with a file or subfolder for each rule.
    """
    rows = []
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        paths = [place] if place.suffix == ".tsv" else sorted(place.rglob("*.tsv"))
        # A file may be empty: its job is just ending, or ended on a full disk.
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
            continue  # installed only in environments of other rules
