"""Make the brain mask of one scan."""

from typing import Any

from voxplain_workflow.jobs.fates import scan_job
from voxplain_workflow.jobs.sidecars import read_sidecar, write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np

    from voxplain.anatomy.ladder import climb
    from voxplain.anatomy.skull import GIVEN, describe, find_tool
    from voxplain.volumes import Grid, read_image, write_array

    read_sidecar(snakemake.input.sidecar)
    settings = snakemake.params.settings
    if GIVEN.name in settings:
        tool = GIVEN
    else:
        tool = find_tool(read_sidecar(snakemake.input.tools)["SkullStrippingTool"])
    stripped = climb(snakemake.input.volume, tool, settings)
    grid = Grid.of(read_image(snakemake.input.volume))
    write_array(snakemake.output.mask, stripped.mask, grid, np.uint8)
    metadata = describe(tool, settings[tool.name], stripped.mask, grid)
    write_sidecar(snakemake.output.sidecar, {**metadata, **stripped.as_dict()})


if __name__ == "__main__":
    with scan_job(snakemake, "strip"):
        main(snakemake)
