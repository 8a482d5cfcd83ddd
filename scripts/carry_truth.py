"""Transform the true change of a simulated scan to the template by the scan's registration."""

from typing import Any

from voxplain_workflow.jobs.fates import scan_job
from voxplain_workflow.jobs.sidecars import read_sidecar, write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
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
            "Description": "By what fraction the simulation changed each voxel: tissue that the "
            "disease took or brightness that a shortcut added, whichever is more",
            "SpatialReference": registered["SpatialReference"],
            "RegistrationMethod": registered["RegistrationMethod"],
        },
    )


if __name__ == "__main__":
    with scan_job(snakemake, "register"):
        main(snakemake)
