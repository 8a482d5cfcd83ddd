"""Compare how well the methods localise, with chance and the group difference as baselines."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import pandas as pd

    from voxplain.comparison.localisation import summarise
    from voxplain.plots.figures import save
    from voxplain.plots.localisation import plot_localisation, plot_precision_recall
    from voxplain.tables import read_tsv, write_tsv
    from voxplain_workflow.jobs.localisation import BASELINE, in_order, read_scores
    from voxplain_workflow.jobs.titles import title_of

    output, params = snakemake.output, snakemake.params
    files = {**params.scores, BASELINE: snakemake.input.baseline}
    scores = in_order(pd.concat(read_scores(path, method) for method, path in files.items()))
    table = summarise(scores, ["method", "region", "smoothing_mm"], params.draws)
    write_tsv(table.assign(model=params.network), output.table)

    title = title_of(snakemake.wildcards, params.network)
    save(plot_localisation(table, title, baselines=[BASELINE]), output.picture)
    curves = [read_tsv(path).assign(method=method) for method, path in params.curves.items()]
    chances = table[table["method"] != BASELINE].groupby("region", sort=False)["chance"].first()
    figure = plot_precision_recall(in_order(pd.concat(curves)), chances.to_dict(), title)
    save(figure, output.curves)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
