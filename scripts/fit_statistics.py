"""Fit the voxelwise mean and SD on the training scans of a split, and on nothing else."""

from pipeline.job import job, write_sidecar

with job(snakemake):
    import numpy as np
    import pandas as pd

    from voxplain.training.statistics import fit_statistics
    from voxplain.volumes import read_array, write_array

    members = pd.read_csv(snakemake.input.members, sep="\t", dtype=str)
    training = members[members["side"] == "train"]
    mask, grid = read_array(snakemake.input.mask, np.uint8)
    statistics = fit_statistics(training["path"], mask > 0, grid, snakemake.params.sd_floor)
    write_array(snakemake.output.mean, statistics.mean, grid)
    write_array(snakemake.output.sd, statistics.sd, grid)
    write_sidecar(
        snakemake.output.sidecar,
        {"FittedOn": list(training["image"]), "SdFloor": snakemake.params.sd_floor},
    )
