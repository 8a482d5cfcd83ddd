"""Compare how the methods' heatmaps change while the network's layers are randomised."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import pandas as pd

    from voxplain.comparison.faithfulness_tables import summarise_correlations
    from voxplain.plots.faithfulness import plot_randomisation
    from voxplain.plots.figures import save
    from voxplain.tables import read_tsv, write_tsv
    from voxplain_workflow.jobs.titles import title_of

    output, params = snakemake.output, snakemake.params
    tables = [read_tsv(path).assign(method=method) for method, path in params.correlations.items()]
    table = summarise_correlations(pd.concat(tables))
    write_tsv(table.assign(model=params.network), output.table)
    title = title_of(snakemake.wildcards, params.network)
    save(plot_randomisation(table, title), output.picture)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
