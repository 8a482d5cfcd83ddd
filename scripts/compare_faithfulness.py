"""Compare the methods by the areas under their deletion and insertion curves."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from voxplain.comparison.faithfulness_tables import mean_curves, score_curves, summarise_scores
    from voxplain.plots.faithfulness import plot_faithfulness
    from voxplain.plots.figures import save
    from voxplain.tables import read_tsv, write_tsv
    from voxplain_workflow.jobs.titles import title_of

    output, params = snakemake.output, snakemake.params
    curves = read_tsv(snakemake.input.curves)
    table = summarise_scores(score_curves(curves), params.methods)
    write_tsv(table.assign(model=params.network), output.table)
    title = title_of(snakemake.wildcards, params.network)
    save(plot_faithfulness(mean_curves(curves), params.methods, title), output.picture)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
