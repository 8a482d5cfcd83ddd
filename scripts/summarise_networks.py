"""Put all tasks, networks and cohorts into one table and one picture."""

from pipeline.job import job

with job(snakemake):
    import pandas as pd

    from voxplain.comparison.models import NetworkPredictions, summary_rows
    from voxplain.plots.training import picture_of_models

    networks = []
    for told, path in zip(snakemake.params.networks, snakemake.input.predictions, strict=True):
        predictions = pd.read_csv(path, sep="\t", dtype={"patient": str})
        networks.append(
            NetworkPredictions(
                cohort=told["cohort"],
                tested_on=told["tested_on"],
                task=told["task"],
                classes=told["classes"],
                model=told["label"],
                split=told["split"],
                seed=told["seed"],
                predictions=predictions,
            )
        )
    summary = summary_rows(networks, snakemake.params.roc_auc)
    summary.to_csv(snakemake.output.table, sep="\t", index=False, float_format="%.4f", na_rep="n/a")
    picture_of_models(snakemake.output.picture, summary, "How well the networks do")
