"""Compute the performance measures of a network on its test scans and patients."""

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import read_sidecar, write_sidecar

with job(snakemake):
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
