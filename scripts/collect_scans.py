"""Write the table of a cohort: all scans of the user's table with their measures and fates."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from pathlib import Path

    import pandas as pd

    from voxplain import __version__
    from voxplain.cohort.fates import check_tools_of_cohort, collect_fates, write_fates
    from voxplain.cohort.overview import describe_people, find_oddities
    from voxplain.tables import write_tsv
    from voxplain_workflow.texts import unshield

    qualities = {
        image: json.loads(Path(path).read_text(encoding="utf-8"))
        for image, path in snakemake.params.qualities.items()
    }
    remedy = "set skull.tool to one of them"
    check_tools_of_cohort(qualities.values(), snakemake.wildcards.cohort, remedy)
    table = collect_fates(unshield(snakemake.params.rows), qualities)
    write_fates(snakemake.output.table, table)
    people = pd.DataFrame(describe_people(table))
    write_tsv(people, snakemake.output.people, floats=None)
    oddities = pd.DataFrame(find_oddities(table, unshield(snakemake.params.unlisted)))
    write_tsv(oddities, snakemake.output.oddities)
    description = {
        "Name": f"voxplain, cohort {snakemake.wildcards.cohort}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "voxplain", "Version": __version__}],
    }
    Path(snakemake.output.description).write_text(json.dumps(description, indent=2) + "\n")
    # Without a name in BIDS: pictures, digests of sources, transforms, stored voxels, fates.
    ignored = ["**/figures", "**/provenance", "*_xfm.h5", "*.npy", "*_desc-quality_T1w.json"]
    Path(snakemake.output.ignored).write_text("\n".join(ignored) + "\n")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
