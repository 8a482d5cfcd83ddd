"""Put the folds of a cross-validation side by side, with their mean and SD."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    import re

    import pandas as pd

    from voxplain.plots.figures import save
    from voxplain.plots.training import plot_confusion, plot_learning, plot_roc
    from voxplain.training.metrics import cross_validation_table

    params, output = snakemake.params, snakemake.output
    predictions, histories = {}, {}
    for table, history in zip(snakemake.input.predictions, snakemake.input.histories, strict=True):
        repeat, fold, seed = map(
            int, re.search(r"repeat-(\d+)_fold-(\d+)/seed-(\d+)/", table).groups()
        )
        predictions[repeat, fold, seed] = pd.read_csv(
            table, sep="\t", dtype={"patient": str}, keep_default_na=False
        )
        histories[f"{repeat} {fold} {seed}"] = pd.read_csv(history, sep="\t")
    table = cross_validation_table(predictions, params.classes, params.roc_auc)
    table = table.assign(model=params.network)
    table.to_csv(output.table, sep="\t", index=False, float_format="%.4f", na_rep="n/a")
    title = f"{snakemake.wildcards.cohort}, {snakemake.wildcards.task}, {params.network}"
    save(plot_learning(histories, title), output.learning)
    save(plot_roc(predictions, params.classes, title), output.roc)
    save(plot_confusion(predictions, params.classes, title), output.confusion)
