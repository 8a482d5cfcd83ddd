"""Compare the distances between the methods with the distances between retrained networks."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np
    import pandas as pd

    from voxplain.comparison.retraining import FOLDS, SEEDS, pairs_of_runs, spread_rows
    from voxplain.plots.comparison import plot_spread
    from voxplain.plots.figures import save
    from voxplain.tables import write_tsv
    from voxplain.volumes import read_array
    from voxplain_workflow.records.heatmaps import MeanHeatmap

    params, output = snakemake.params, snakemake.output
    inside = read_array(snakemake.input.mask, np.uint8)[0] > 0
    means = [MeanHeatmap(**fields) for fields in params.means]
    paths = {((mean.split, mean.seed), mean.method, mean.group): mean.heatmap for mean in means}
    runs, methods, classes = (list(dict.fromkeys(keys)) for keys in zip(*paths, strict=True))
    over = FOLDS if snakemake.wildcards.several == FOLDS else SEEDS
    pairs = pairs_of_runs(runs, over)
    tables = []
    for group in classes:

        def read(method: str, run: tuple[str, int], group: str = group) -> np.ndarray:
            """The average heatmap of this class: its voxels inside the brain."""
            return read_array(paths[run, method, group])[0][inside]

        rows = spread_rows(read, methods, runs, pairs)
        tables.append(pd.DataFrame(rows).assign(**{"class": group}))
    table = pd.concat(tables)
    table = table[["class", *table.columns.drop("class")]].assign(model=params.network)
    write_tsv(table, output.table)

    wildcards = snakemake.wildcards
    if over == SEEDS:
        trained = f"split {wildcards.several}, seeds {', '.join(str(seed) for _, seed in runs)}"
    else:
        seeds = sorted({seed for _, seed in runs})
        folds = len({split for split, _ in runs})
        trained = f"{folds} folds, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    title = f"{wildcards.cohort}, {wildcards.task}, {params.network}, {trained}"
    save(plot_spread(table, title), output.picture)
    print(f"{len(runs)} networks, {len(pairs)} pairs of them over {over}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
