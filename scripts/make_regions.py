"""Resample cortex, hippocampus and lateral ventricle to the grid of this run."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np

    from voxplain.atlas import read_regions, write_names
    from voxplain.volumes import Grid, read_image, write_array

    grid = Grid.of(read_image(snakemake.input.template))
    placed = read_regions().on_grid(grid)
    write_array(snakemake.output.labels, placed.labels, grid, np.uint8)
    write_names(snakemake.output.names, placed.names)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
