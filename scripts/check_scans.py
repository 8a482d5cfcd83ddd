"""Stop the run where more scans were lost than the configuration allows."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from pathlib import Path

    from voxplain.cohort.fates import count_lost, read_fates

    verdict = count_lost(
        read_fates(snakemake.input.table), snakemake.params.max_failed, snakemake.input.table
    )
    Path(snakemake.output.verdict).write_text(json.dumps(verdict, indent=2) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
