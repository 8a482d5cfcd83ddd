"""Label the AAL areas in a user's head volume, from which scans are simulated."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    from voxplain.anatomy.label import label_head
    from voxplain.cohort.heads import write_head
    from voxplain.faults import DataFault, SetupFault

    try:
        head = label_head(snakemake.input.head, snakemake.input.mask, snakemake.params.seed)
    except DataFault as fault:
        raise SetupFault(f"head {snakemake.input.head}: {fault}") from fault
    write_head(head, snakemake.output)
