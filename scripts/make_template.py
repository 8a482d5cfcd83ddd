"""Resample the template brain to the grid of this run."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np

    from voxplain.anatomy.template import make_template
    from voxplain.volumes import write_array

    settings = snakemake.params.settings
    brain, mask, grid = make_template(settings["template"], settings["resolution_mm"])
    write_array(snakemake.output.brain, brain, grid)
    write_array(snakemake.output.mask, mask, grid, np.uint8)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
