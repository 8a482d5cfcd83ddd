"""Measure the quality of one scan's brain mask and registration, and decide its fate."""

from typing import Any

from voxplain_workflow.jobs.fates import scan_job
from voxplain_workflow.jobs.sidecars import read_sidecar, write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np

    from voxplain.anatomy.quality import judge, measure_quality
    from voxplain.volumes import read_array

    stripped = read_sidecar(snakemake.input.mask_sidecar)
    registered = read_sidecar(snakemake.input.sidecar)
    mask, grid = read_array(snakemake.input.mask, np.uint8)
    brain, _ = read_array(snakemake.input.registered)
    brain_mask = read_array(snakemake.input.registered_mask, np.uint8)[0] > 0
    template, _ = read_array(snakemake.input.template)
    template_mask = read_array(snakemake.input.template_mask, np.uint8)[0] > 0
    quality = measure_quality(
        mask > 0, grid.voxel_volume_ml, brain, brain_mask, template, template_mask
    )
    settings = snakemake.params.settings
    prefixes = (
        *("ConversionNote", "SkullStrippingTool", "SkullStrippingRung"),
        *("BiasField", "Registration"),
    )
    write_sidecar(
        snakemake.output.quality,
        {
            "Fate": judge(quality, settings["thresholds"], settings["kept"]).as_dict(),
            "SourceVoxelDataSha256": registered["SourceVoxelDataSha256"],
            "Quality": quality.as_dict(),
            "Processing": {
                key: value
                for key, value in {**stripped, **registered}.items()
                if key.startswith(prefixes)
            },
        },
    )


if __name__ == "__main__":
    with scan_job(snakemake, "quality"):
        main(snakemake)
