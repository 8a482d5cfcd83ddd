"""Build a head around the packaged brain, from which scans are simulated."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from voxplain.cohort.heads import build_packaged_head, write_head

    write_head(build_packaged_head(), snakemake.output)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
