"""Measure how well the classes' plain difference finds what heatmaps are to find."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    import numpy as np
    import pandas as pd

    from voxplain.comparison.localisation import SCORES, score_regions, smooth_to
    from voxplain.tables import read_tsv, write_tsv
    from voxplain.volumes import read_array
    from voxplain_workflow.jobs.localisation import WHO, Sought

    inputs, settings = snakemake.input, snakemake.params.settings
    sought = Sought(inputs, snakemake.params.images, settings)
    # The largest difference of the training scans' classes, whichever sign it has.
    difference = np.abs(read_array(inputs.difference)[0])
    widths = settings["smoothing_mm"]
    smooth = smooth_to(difference, sought.mask, widths, sought.grid.voxel_size)
    # One map for all scans, whose regions of the anatomy are the same, too.
    of_anatomy = list(score_regions(smooth, sought.regions, sought.mask))
    members = read_tsv(inputs.members)
    rows = []
    for member in members[members["side"] == "test"].to_dict("records"):
        own = sought.own_of(member["image"])
        of_scan = score_regions(smooth, own, sought.mask)
        who = {key: member[key] for key in WHO}
        rows += [{**who, **score} for score in (*of_scan, *of_anatomy)]
    table = pd.DataFrame(rows, columns=[*WHO, *SCORES])
    write_tsv(table, snakemake.output.scores)
