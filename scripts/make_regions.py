"""Resample cortex, hippocampus and lateral ventricle to the grid of this run."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    import numpy as np

    from voxplain.atlas import read_regions, write_names
    from voxplain.volumes import Grid, read_image, write_array

    grid = Grid.of(read_image(snakemake.input.template))
    placed = read_regions().on_grid(grid)
    write_array(snakemake.output.labels, placed.labels, grid, np.uint8)
    write_names(snakemake.output.names, placed.names)
