"""Make the brain mask of a user's head volume, from which scans are simulated."""

from typing import Any

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import read_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np

    from voxplain.anatomy.ladder import climb
    from voxplain.anatomy.skull import find_tool
    from voxplain.cohort.orientation import check_oriented
    from voxplain.faults import DataFault, SetupFault
    from voxplain.volumes import Grid, read_image, write_array

    tool = find_tool(read_sidecar(snakemake.input.tools)["SkullStrippingTool"])
    try:
        check_oriented(snakemake.input.head)
        mask = climb(snakemake.input.head, tool, snakemake.params.settings).mask
    except DataFault as fault:
        raise SetupFault(f"head {snakemake.input.head}: {fault}") from fault
    grid = Grid.of(read_image(snakemake.input.head))
    write_array(snakemake.output.mask, mask, grid, np.uint8)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
