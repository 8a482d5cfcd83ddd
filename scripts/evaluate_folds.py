"""Write the measures of all folds of a cross-validation, with their mean and SD."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    from voxplain.plots.figures import save
    from voxplain.plots.training import plot_confusion, plot_learning, plot_roc
    from voxplain.tables import read_tsv, write_tsv
    from voxplain.training.cross_validation import cross_validation_table

    params, inputs, output = snakemake.params, snakemake.input, snakemake.output
    predictions, histories = {}, {}
    paths = zip(params.runs, inputs.predictions, inputs.histories, strict=True)
    for (repeat, fold, seed), table, history in paths:
        predictions[repeat, fold, seed] = read_tsv(table)
        histories[f"{repeat} {fold} {seed}"] = read_tsv(history)
    table = cross_validation_table(predictions, params.classes, params.roc_auc)
    write_tsv(table.assign(model=params.network), output.table, "%.4f")
    title = f"{snakemake.wildcards.cohort}, {snakemake.wildcards.task}, {params.network}"
    save(plot_learning(histories, title), output.learning)
    save(plot_roc(predictions, params.classes, title), output.roc)
    save(plot_confusion(predictions, params.classes, title), output.confusion)
