"""Compare how the methods' heatmaps change while the network forgets, layer by layer."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    import pandas as pd

    from voxplain.comparison.faithfulness_tables import summarise_correlations
    from voxplain.plots.faithfulness import plot_randomisation
    from voxplain.plots.figures import save
    from voxplain_workflow.jobs.titles import title_of

    output, params = snakemake.output, snakemake.params
    names = {key: str for key in ("image", "patient", "class", "layer")}
    look = {"sep": "\t", "na_values": "n/a", "keep_default_na": False}
    tables = [
        pd.read_csv(path, dtype=names, **look).assign(method=method)
        for method, path in zip(params.methods, snakemake.input.correlations, strict=True)
    ]
    found = summarise_correlations(pd.concat(tables))
    look = {"sep": "\t", "index": False, "float_format": "%.6g", "na_rep": "n/a"}
    found.assign(model=params.network).to_csv(output.table, **look)
    title = title_of(snakemake.wildcards, params.network)
    save(plot_randomisation(found, title), output.picture)
