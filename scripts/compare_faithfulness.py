"""Compare the methods by what deleting and inserting areas in their order does to the network."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    import pandas as pd

    from voxplain.comparison.faithfulness_tables import mean_curves, score_curves, summarise_scores
    from voxplain.plots.faithfulness import plot_faithfulness
    from voxplain.plots.figures import save
    from voxplain_workflow.jobs.titles import title_of

    output, params = snakemake.output, snakemake.params
    names = {key: str for key in ("method", "image", "patient", "class", "direction")}
    curves = pd.read_csv(snakemake.input.curves, sep="\t", dtype=names, keep_default_na=False)
    found = summarise_scores(score_curves(curves), params.methods)
    look = {"sep": "\t", "index": False, "float_format": "%.6g", "na_rep": "n/a"}
    found.assign(model=params.network).to_csv(output.table, **look)
    title = title_of(snakemake.wildcards, params.network)
    save(plot_faithfulness(mean_curves(curves), params.methods, title), output.picture)
