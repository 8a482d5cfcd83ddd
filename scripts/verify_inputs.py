"""Check that the source files of converted scans have not changed since the conversion."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from voxplain.cohort.files import find_changes
    from voxplain.faults import SetupFault
    from voxplain_workflow.records.scans import ConvertedScan

    changes, volumes = [], []
    for scan in (ConvertedScan(**fields) for fields in snakemake.params.scans):
        file_changes = find_changes(scan.place, scan.digests, scan.image, scan.companions)
        changes += file_changes
        volumes += [scan.volume] if file_changes else []
    if changes:
        raise SetupFault(
            f"{len(changes)} input files changed since their scans were converted:\n"
            + "\n".join(changes)
            + "\nTo take these scans as they are now, run again with\n--forcerun "
            + " ".join(volumes)
        )
    print(f"{len(snakemake.params.scans)} finished scans: their source files are as they were.")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
