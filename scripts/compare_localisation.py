"""Compare the methods by what they find, beside chance and the classes' plain difference."""

from pipeline.job import job

with job(snakemake):
    import numpy as np
    import pandas as pd

    from pipeline.localisation import Sought
    from voxplain.comparison.localisation import SCORES, score_regions, summarise
    from voxplain.plots.localisation import picture_of_localisation, picture_of_precision_recall
    from voxplain.volumes import read_array

    inputs, output, params = snakemake.input, snakemake.output, snakemake.params
    # The largest difference of the training scans' classes, whichever sign it has.
    baseline = "group_difference"
    settings = params.settings
    sought = Sought(inputs, params.images, settings)
    difference, _ = read_array(inputs.difference)
    names = {"image": str, "patient": str, "class": str}
    tables = []
    for method, path in zip(params.methods, inputs.scores, strict=True):
        table = pd.read_csv(path, sep="\t", dtype=names, na_values="n/a", keep_default_na=False)
        tables.append(table.assign(method=method))
    members = pd.read_csv(inputs.members, sep="\t", dtype=str, keep_default_na=False)
    rows = []
    scored = set(pd.concat(tables)["image"])
    for member in members[members["side"] == "test"].to_dict("records"):
        if member["image"] not in scored:
            continue
        who = {key: member[key] for key in names}
        scores = score_regions(
            np.abs(difference),
            sought.of_scan(member["image"]),
            sought.mask,
            settings["smoothing_mm"],
            sought.grid.voxel_size,
        )
        rows += [{**who, **score} for score in scores]
    columns = [*names, *SCORES]
    tables.append(pd.DataFrame(rows, columns=columns).assign(method=baseline))
    by = ["method", "region", "smoothing_mm"]
    found = summarise(pd.concat(tables), by, settings["draws"])
    look = {"sep": "\t", "index": False, "float_format": "%.6g", "na_rep": "n/a"}
    found.assign(model=params.network).to_csv(output.table, **look)

    title = (
        f"{snakemake.wildcards.cohort}, {snakemake.wildcards.task}, {params.network}, split "
        f"{snakemake.wildcards.split}, seed {snakemake.wildcards.seed}"
    )
    picture_of_localisation(output.picture, found, title, baselines=[baseline])
    curves = [
        pd.read_csv(path, sep="\t", na_values="n/a").assign(method=method)
        for method, path in zip(params.methods, inputs.curves, strict=True)
    ]
    chances = found[found["method"] != baseline].groupby("region", sort=False)["chance"].first()
    picture_of_precision_recall(output.curves, pd.concat(curves), chances.to_dict(), title)
