"""Write the measures of all folds of a cross-validation, with their mean and SD."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from voxplain.plots.figures import save
    from voxplain.plots.training import plot_confusion, plot_learning, plot_roc
    from voxplain.tables import read_tsv, write_tsv
    from voxplain.training.cross_validation import cross_validation_table
    from voxplain_workflow.records.networks import FoldFiles

    params, output = snakemake.params, snakemake.output
    predictions, histories = {}, {}
    for fold in (FoldFiles(**fields) for fields in params.folds):
        predictions[fold.repeat, fold.fold, fold.seed] = read_tsv(fold.predictions)
        histories[f"{fold.repeat} {fold.fold} {fold.seed}"] = read_tsv(fold.history)
    table = cross_validation_table(predictions, params.classes, params.roc_auc)
    write_tsv(table.assign(model=params.network), output.table, "%.4f")
    title = f"{snakemake.wildcards.cohort}, {snakemake.wildcards.task}, {params.network}"
    save(plot_learning(histories, title), output.learning)
    save(plot_roc(predictions, params.classes, title), output.roc)
    save(plot_confusion(predictions, params.classes, title), output.confusion)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
