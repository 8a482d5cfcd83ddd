"""Write the measures of all networks and baselines in one table and one picture."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from voxplain.comparison.models import Summary
    from voxplain.plots.figures import save
    from voxplain.plots.training import plot_models
    from voxplain.tables import write_tsv
    from voxplain_workflow.jobs.predictions import read_predictions

    params, output = snakemake.params, snakemake.output
    summary = Summary(read_predictions(params.networks, params.baselines), params.roc_auc)
    rows = summary.rows()
    rows["imputed"] = rows["imputed"].astype("Int64")
    write_tsv(rows, output.table, "%.4f")
    write_tsv(summary.differences(), output.differences, "%.4f")
    title = "How well the networks do, and baselines without one"
    save(plot_models(rows, title), output.picture)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
