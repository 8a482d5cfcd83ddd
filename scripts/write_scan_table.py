"""Write the table of a simulated cohort in the format of the archive's search export."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import csv

    from voxplain.cohort.plan import EXPORT_COLUMNS

    with open(snakemake.output.table, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, EXPORT_COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(snakemake.params.rows)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
