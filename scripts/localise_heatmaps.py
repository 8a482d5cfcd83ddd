"""Measure how well a method's heatmaps find the true atrophy, and regions of the brain."""

from pipeline.job import job

with job(snakemake):
    import pandas as pd

    from pipeline.localisation import Sought
    from voxplain.comparison.averages import find_maps
    from voxplain.comparison.localisation import SCORES, precision_recall, score_regions
    from voxplain.volumes import read_array

    settings = snakemake.params.settings
    sought = Sought(snakemake.input, snakemake.params.images, settings)
    rows, curves = [], []
    for told in find_maps(snakemake.input.maps):
        heatmap, _ = read_array(told["path"])
        regions = sought.of_scan(told["Image"])
        who = {"image": told["Image"], "patient": told["Patient"], "class": told["Class"]}
        scores = score_regions(
            heatmap, regions, sought.mask, settings["smoothing_mm"], sought.grid.voxel_size
        )
        rows += [{**who, **score} for score in scores]
        for region, inside in regions.items():
            recall, precision = precision_recall(heatmap, inside, sought.mask)
            curve = {"region": region, "recall": recall, "precision": precision}
            curves.append(pd.DataFrame({"patient": told["Patient"], **curve}))
    look = {"sep": "\t", "index": False, "float_format": "%.6g", "na_rep": "n/a"}
    table = pd.DataFrame(rows, columns=["image", "patient", "class", *SCORES])
    table.to_csv(snakemake.output.scores, **look)

    columns = ["patient", "region", "recall", "precision"]
    points = pd.concat(curves) if curves else pd.DataFrame(columns=columns)
    # Each patient counts once.
    of_patients = points.groupby(columns[:3], sort=False)["precision"].mean().reset_index()
    mean = of_patients.groupby(columns[1:3], sort=False)["precision"].mean().reset_index()
    mean.to_csv(snakemake.output.curves, **look)
