"""Compare the methods by what they find, beside chance and the classes' plain difference."""

from pipeline.job import job

with job(snakemake):
    import numpy as np
    import pandas as pd

    from pipeline.localisation import TRUTH, Sought
    from pipeline.titles import title_of
    from voxplain.comparison.localisation import SCORES, score_regions, smooth_to, summarise
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
    # One map for all scans, whose regions of the anatomy are the same, too.
    smooth = smooth_to(
        np.abs(difference), sought.mask, settings["smoothing_mm"], sought.grid.voxel_size
    )
    of_anatomy = list(score_regions(smooth, sought.regions, sought.mask))
    rows = []
    scored = set(pd.concat(tables)["image"])
    for member in members[members["side"] == "test"].to_dict("records"):
        if member["image"] in scored:
            truth = sought.truth_of(member["image"])
            of_truth = score_regions(smooth, truth, sought.mask)
            who = {key: member[key] for key in names}
            rows += [{**who, **score} for score in (*of_truth, *of_anatomy)]
    columns = [*names, *SCORES]
    tables.append(pd.DataFrame(rows, columns=columns).assign(method=baseline))
    by = ["method", "region", "smoothing_mm"]
    # The truth first, also where the first scan has none: who finds it stands at the top.
    order = {"by": "region", "key": lambda regions: regions != TRUTH, "kind": "stable"}
    found = summarise(pd.concat(tables).sort_values(**order), by, settings["draws"])
    look = {"sep": "\t", "index": False, "float_format": "%.6g", "na_rep": "n/a"}
    found.assign(model=params.network).to_csv(output.table, **look)

    title = title_of(snakemake.wildcards, params.network)
    picture_of_localisation(output.picture, found, title, baselines=[baseline])
    curves = [
        pd.read_csv(path, sep="\t", na_values="n/a").assign(method=method)
        for method, path in zip(params.methods, inputs.curves, strict=True)
    ]
    chances = found[found["method"] != baseline].groupby("region", sort=False)["chance"].first()
    picture_of_precision_recall(
        output.curves, pd.concat(curves).sort_values(**order), chances.to_dict(), title
    )
