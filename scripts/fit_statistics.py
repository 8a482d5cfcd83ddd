"""Compute the voxelwise mean and SD of the training scans of a split, without test scans."""

from typing import Any

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np

    from voxplain.tables import read_tsv
    from voxplain.training.statistics import fit_statistics
    from voxplain.volumes import read_array, write_array

    members = read_tsv(snakemake.input.members)
    training = members[members["side"] == "train"]
    mask, grid = read_array(snakemake.input.mask, np.uint8)
    sd_floor, fit_on = (snakemake.params.settings[key] for key in ("sd_floor", "fit_on"))
    scans = None if fit_on == "all" else fit_on
    statistics = fit_statistics(training["path"], mask > 0, grid, sd_floor, scans)
    write_array(snakemake.output.mean, statistics.mean, grid)
    write_array(snakemake.output.sd, statistics.sd, grid)
    write_sidecar(
        snakemake.output.sidecar,
        {
            "FittedOn": list(training["image"].iloc[list(statistics.fitted_on)]),
            "FitOn": fit_on,
            "SdFloor": sd_floor,
        },
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
