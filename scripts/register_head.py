"""Label the AAL areas in a user's head volume, from which scans are simulated."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from voxplain.anatomy.label import label_head
    from voxplain.cohort.heads import write_head
    from voxplain.faults import DataFault, SetupFault

    try:
        head = label_head(snakemake.input.head, snakemake.input.mask, snakemake.params.seed)
    except DataFault as fault:
        raise SetupFault(f"head {snakemake.input.head}: {fault}") from fault
    write_head(head, snakemake.output)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
