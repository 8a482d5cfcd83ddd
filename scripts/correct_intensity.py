"""Correct the bias field of one scan's brain, and scale its intensities."""

from typing import Any

from voxplain_workflow.jobs.fates import scan_job
from voxplain_workflow.jobs.sidecars import read_sidecar, write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np

    from voxplain.anatomy.intensity import correct_bias, intensity_scale, is_already_corrected
    from voxplain.volumes import Grid, read_array, read_image, write_array

    acquired = read_sidecar(snakemake.input.sidecar)
    read_sidecar(snakemake.input.mask_sidecar)
    settings = snakemake.params.settings
    corrected_before = is_already_corrected(
        [
            settings["description"],
            acquired.get("SeriesDescription", ""),
            *acquired.get("ImageType", []),
        ]
    )
    corrects = {"always": True, "never": False, "auto": not corrected_before}[
        settings["bias_correction"]
    ]
    if corrects:
        brain = correct_bias(snakemake.input.volume, snakemake.input.mask)
    else:
        mask, _ = read_array(snakemake.input.mask)
        brain = np.where(mask > 0, read_array(snakemake.input.volume)[0], 0)
    scale = intensity_scale(brain, settings["intensity_scale"])
    grid = Grid.of(read_image(snakemake.input.volume))
    write_array(snakemake.output.brain, brain / scale, grid)
    write_sidecar(
        snakemake.output.sidecar,
        {
            **{key: value for key, value in acquired.items() if key == "ConversionNote"},
            # Digest of the acquired voxels: it shows where two patients have the same scan.
            "SourceVoxelDataSha256": acquired["VoxelDataSha256"],
            "SkullStripped": True,
            "BiasFieldCorrection": "N4" if corrects else "none",
            "BiasFieldCorrectedBefore": corrected_before,
            "IntensityScaleMethod": settings["intensity_scale"],
            "IntensityScale": scale,
        },
    )


if __name__ == "__main__":
    with scan_job(snakemake, "intensity"):
        main(snakemake)
