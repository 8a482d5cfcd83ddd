"""Write a page with the fate, the measures and the pictures of every scan of a cohort."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from pathlib import Path

    from voxplain import __version__
    from voxplain.cohort.fates import read_fates
    from voxplain.cohort.outliers import find_outliers
    from voxplain.tables import write_tsv
    from voxplain_workflow.reports.quality import page_of_quality, table_of_flags

    inputs, output, params = snakemake.input, snakemake.output, snakemake.params
    table = read_fates(inputs.table)
    flags = table_of_flags(find_outliers(table))
    write_tsv(flags, output.flags, "%.4g")
    cohort, folder = snakemake.wildcards.cohort, Path(output.page).parent
    page = page_of_quality(cohort, table, params.pictures, folder, __version__)
    page.write(output.page)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
