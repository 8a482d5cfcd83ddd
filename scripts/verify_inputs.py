"""Compare the source files of finished scans with what they were when the scan was converted."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    from voxplain.cohort.files import find_changes
    from voxplain.faults import SetupFault

    changes, volumes = [], []
    for place, image, companions, digests, volume in snakemake.params.scans:
        found = find_changes(place, digests, image, companions)
        changes += found
        volumes += [volume] if found else []
    if changes:
        raise SetupFault(
            f"{len(changes)} input files changed since their scans were converted:\n"
            + "\n".join(changes)
            + "\nTo take these scans as they are now, run again with\n--forcerun "
            + " ".join(volumes)
        )
    print(f"{len(snakemake.params.scans)} finished scans: their source files are as they were.")
