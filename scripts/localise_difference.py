"""Measure how well the group difference finds the regions that heatmaps should find."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np
    import pandas as pd

    from voxplain.comparison.localisation import SCORES, score_regions, smooth_to
    from voxplain.tables import read_tsv, write_tsv
    from voxplain.volumes import read_array
    from voxplain_workflow.jobs.localisation import SCAN_KEYS, TargetRegions

    inputs, settings = snakemake.input, snakemake.params.settings
    targets = TargetRegions(inputs, snakemake.params.scans, settings)
    # Absolute values: the sign of the difference between the classes does not matter.
    difference = np.abs(read_array(inputs.difference)[0])
    widths = settings["smoothing_mm"]
    smooth = smooth_to(difference, targets.mask, widths, targets.grid.voxel_size)
    # All scans share the map and the anatomical regions, so these scores are computed once.
    anatomy_scores = list(score_regions(smooth, targets.regions, targets.mask))
    members = read_tsv(inputs.members)
    rows = []
    for member in members[members["side"] == "test"].to_dict("records"):
        scan_regions = targets.scan_specific(member["image"])
        scan_scores = score_regions(smooth, scan_regions, targets.mask)
        scan_fields = {key: member[key] for key in SCAN_KEYS}
        rows += [{**scan_fields, **score} for score in (*scan_scores, *anatomy_scores)]
    table = pd.DataFrame(rows, columns=[*SCAN_KEYS, *SCORES])
    write_tsv(table, snakemake.output.scores)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
