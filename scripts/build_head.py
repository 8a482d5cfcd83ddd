"""Build a head around the packaged brain, from which scans are simulated."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    from voxplain.cohort.heads import build_packaged_head, write_head

    write_head(build_packaged_head(), snakemake.output)
