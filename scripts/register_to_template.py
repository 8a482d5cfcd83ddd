"""Register one scan's brain to the template."""

from typing import Any

from voxplain_workflow.jobs.fates import scan_job
from voxplain_workflow.jobs.sidecars import read_sidecar, write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from importlib.metadata import version

    import numpy as np

    from voxplain.anatomy.register import NONE, TRANSFORMS, register_to_template
    from voxplain.atlas import TEMPLATE_NAME
    from voxplain.store import Brain, write_scan
    from voxplain.volumes import read_array, write_array

    before = read_sidecar(snakemake.input.sidecar)
    settings = snakemake.params.settings
    registered = register_to_template(
        brain_path=snakemake.input.brain,
        mask_path=snakemake.input.mask,
        template_path=snakemake.input.template,
        transform_path=snakemake.output.transform,
        method=settings["transform"],
        seed=settings["seed"],
    )
    write_array(snakemake.output.brain, registered.brain, registered.grid)
    write_array(snakemake.output.mask, registered.mask, registered.grid, np.uint8)
    template_mask, _ = read_array(snakemake.input.template_mask, np.uint8)
    write_scan(snakemake.output.voxels, registered.brain, Brain(template_mask > 0))
    write_sidecar(
        snakemake.output.sidecar,
        {
            **before,
            "SpatialReference": TEMPLATE_NAME,
            "ResolutionMm": settings["resolution_mm"],
            "RegistrationTool": "antspyx",
            "RegistrationToolVersion": version("antspyx"),
            "RegistrationMethod": settings["transform"],
            "RegistrationTransform": {**TRANSFORMS, NONE: "identity"}[settings["transform"]],
            "RegistrationSeed": settings["seed"],
        },
    )


if __name__ == "__main__":
    with scan_job(snakemake, "register"):
        main(snakemake)
