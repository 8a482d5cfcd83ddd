"""Measure how well a method's heatmaps find the true atrophy, and regions of the brain."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    import pandas as pd

    from voxplain.comparison.averages import find_maps
    from voxplain.comparison.localisation import (
        SCORES,
        precision_recall,
        score_regions,
        smooth_to,
        speak,
    )
    from voxplain.tables import write_tsv
    from voxplain.volumes import read_array
    from voxplain_workflow.jobs.localisation import OWN, Sought

    settings = snakemake.params.settings
    sought = Sought(snakemake.input, snakemake.params.images, settings)
    rows, curves = [], []
    for told in find_maps(snakemake.input.maps):
        heatmap = speak(read_array(told["path"])[0], sought.mask)
        regions = sought.of_scan(told["Image"])
        who = {"image": told["Image"], "patient": told["Patient"], "class": told["Class"]}
        widths = settings["smoothing_mm"]
        smooth = smooth_to(heatmap, sought.mask, widths, sought.grid.voxel_size)
        rows += [{**who, **score} for score in score_regions(smooth, regions, sought.mask)]
        for name in OWN:
            if name in regions and not regions[name].any():
                print(f"{told['Image']}: its {name} is nowhere above {name}_threshold")
        for region, inside in regions.items():
            recall, precision = precision_recall(heatmap, inside, sought.mask)
            curve = {"region": region, "recall": recall, "precision": precision}
            curves.append(pd.DataFrame({"patient": told["Patient"], **curve}))
    table = pd.DataFrame(rows, columns=["image", "patient", "class", *SCORES])
    write_tsv(table, snakemake.output.scores)

    columns = ["patient", "region", "recall", "precision"]
    points = pd.concat(curves) if curves else pd.DataFrame(columns=columns)
    # Each patient counts once.
    of_patients = points.groupby(columns[:3], sort=False)["precision"].mean().reset_index()
    mean = of_patients.groupby(columns[1:3], sort=False)["precision"].mean().reset_index()
    write_tsv(mean, snakemake.output.curves)
