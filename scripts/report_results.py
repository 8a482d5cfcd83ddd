"""Write the results of a run on one page, and copy the files that it shows beside it."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from pathlib import Path

    from voxplain import __version__
    from voxplain.pages import Page
    from voxplain_workflow.reports.citations import Used
    from voxplain_workflow.reports.making import report_making
    from voxplain_workflow.reports.report import (
        FILES,
        Report,
        report_cohorts,
        report_heatmaps,
        report_networks,
        report_quality,
        report_worth,
    )

    params, output = snakemake.params, snakemake.output
    names = ", ".join(cohort["name"] for cohort in params.cohorts)
    page = Page(
        f"Relevance heatmaps of {names}",
        [
            f"The files of this page lie in {FILES} beside it: move or pass on both together. "
            "Tables sort by a click on their head, and name the file that they are from.",
        ],
        f"Made by voxplain {__version__}.",
        wide=True,
    )
    Path(output.files).mkdir(parents=True, exist_ok=True)
    report = Report(page, output.files, params.config["report"]["subjects"])
    report_cohorts(report, params.cohorts, params.tasks)
    report_quality(report, params.cohorts, params.config["quality"])
    report_networks(report, params.networks)
    report_heatmaps(report, params.runs, params.retrained)
    report_worth(report, params.runs)
    used = Used(
        models=frozenset(Path(network["folder"]).name for network in params.networks),
        methods=tuple(dict.fromkeys(method for run in params.runs for method in run["methods"])),
        followed=any(run["followed"] for run in params.runs),
        randomised=any(run["randomised"] for run in params.runs),
    )
    report_making(report, params.config, used, __version__, params.snakemake_version)
    page.write(output.page)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
