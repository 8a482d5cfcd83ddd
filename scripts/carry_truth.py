"""Carry a simulated scan's true atrophy to the template by the scan's own registration."""

from pipeline.job import read_sidecar, scan_job, write_sidecar

with scan_job(snakemake, "register"):
    import numpy as np

    from voxplain.anatomy.register import carry
    from voxplain.volumes import write_array

    registered = read_sidecar(snakemake.input.sidecar)
    carried, grid = carry(
        snakemake.input.truth, snakemake.input.template, snakemake.input.transform
    )
    write_array(snakemake.output.truth, np.clip(carried, 0, 1), grid)
    write_sidecar(
        snakemake.output.sidecar,
        {
            "Description": "Fraction of tissue that the simulated disease took at each voxel",
            "SpatialReference": registered["SpatialReference"],
            "RegistrationMethod": registered["RegistrationMethod"],
        },
    )
