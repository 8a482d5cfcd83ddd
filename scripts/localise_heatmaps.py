"""Measure how well a method's heatmaps find the true atrophy, and regions of the brain."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import pandas as pd

    from voxplain.comparison.averages import find_maps
    from voxplain.comparison.localisation import (
        SCORES,
        precision_recall,
        replace_zero_map,
        score_regions,
        smooth_to,
    )
    from voxplain.tables import write_tsv
    from voxplain.volumes import read_array
    from voxplain_workflow.jobs.localisation import SCAN_SPECIFIC, TargetRegions

    settings = snakemake.params.settings
    targets = TargetRegions(snakemake.input, snakemake.params.scans, settings)
    rows, curves = [], []
    for metadata in find_maps(snakemake.input.maps):
        heatmap = replace_zero_map(read_array(metadata["path"])[0], targets.mask)
        regions = targets.of_scan(metadata["Image"])
        scan_fields = {
            "image": metadata["Image"],
            "patient": metadata["Patient"],
            "class": metadata["Class"],
        }
        widths = settings["smoothing_mm"]
        smooth = smooth_to(heatmap, targets.mask, widths, targets.grid.voxel_size)
        rows += [{**scan_fields, **score} for score in score_regions(smooth, regions, targets.mask)]
        for name in SCAN_SPECIFIC:
            if name in regions and not regions[name].any():
                print(f"{metadata['Image']}: its {name} is nowhere above {name}_threshold")
        for region, inside in regions.items():
            recall, precision = precision_recall(heatmap, inside, targets.mask)
            curve = {"region": region, "recall": recall, "precision": precision}
            curves.append(pd.DataFrame({"patient": metadata["Patient"], **curve}))
    table = pd.DataFrame(rows, columns=["image", "patient", "class", *SCORES])
    write_tsv(table, snakemake.output.scores)

    columns = ["patient", "region", "recall", "precision"]
    points = pd.concat(curves) if curves else pd.DataFrame(columns=columns)
    # Each patient counts once.
    patient_means = points.groupby(columns[:3], sort=False)["precision"].mean().reset_index()
    mean = patient_means.groupby(columns[1:3], sort=False)["precision"].mean().reset_index()
    write_tsv(mean, snakemake.output.curves)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
