"""Resample the template brain to the grid of this run."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    import numpy as np

    from voxplain.anatomy.template import make_template
    from voxplain.volumes import write_array

    settings = snakemake.params.settings
    brain, mask, grid = make_template(settings["template"], settings["resolution_mm"])
    write_array(snakemake.output.brain, brain, grid)
    write_array(snakemake.output.mask, mask, grid, np.uint8)
