"""Find the brain in one scan's head."""

from pipeline.job import read_sidecar, scan_job, write_sidecar

with scan_job(snakemake, "strip"):
    import numpy as np

    from voxplain.anatomy.skull import GIVEN, describe, find_brain, find_tool
    from voxplain.volumes import Grid, read_image, write_array

    read_sidecar(snakemake.input.sidecar)
    settings = snakemake.params.settings
    if GIVEN.name in settings:
        tool = GIVEN
    else:
        tool = find_tool(read_sidecar(snakemake.input.tools)["SkullStrippingTool"])
    options = settings[tool.name]
    mask = find_brain(snakemake.input.volume, tool, options)
    grid = Grid.of(read_image(snakemake.input.volume))
    write_array(snakemake.output.mask, mask, grid, np.uint8)
    write_sidecar(snakemake.output.sidecar, describe(tool, options, mask, grid))
