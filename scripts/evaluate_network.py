"""Compute the performance measures of a network on its test scans and patients."""

from typing import Any

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import read_sidecar, write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from voxplain.tables import read_tsv
    from voxplain.training.metrics import measure, per_patient

    record = read_sidecar(snakemake.input.record)
    classes, roc_auc = record["classes"], snakemake.params.roc_auc
    scans = read_tsv(snakemake.input.predictions)
    measures = {
        "scan": measure(scans, classes, roc_auc),
        "patient": measure(per_patient(scans, classes), classes, roc_auc),
    }
    write_sidecar(snakemake.output.metrics, {**record, **measures})


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
