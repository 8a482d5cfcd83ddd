"""Stop the run where more scans were lost than the configuration allows."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    import json
    from pathlib import Path

    from voxplain.cohort.fates import count_lost, read_fates

    verdict = count_lost(
        read_fates(snakemake.input.table), snakemake.params.max_failed, snakemake.input.table
    )
    Path(snakemake.output.verdict).write_text(json.dumps(verdict, indent=2) + "\n")
