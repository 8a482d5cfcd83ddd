"""Map the difference between a simulated scan and its healthy twin after preprocessing."""

from typing import Any

from voxplain_workflow.jobs.fates import scan_job
from voxplain_workflow.jobs.sidecars import read_sidecar, write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from pathlib import Path

    import numpy as np

    from voxplain.comparison.residual import residual
    from voxplain.faults import DataFault
    from voxplain.volumes import read_array, write_array

    registered = read_sidecar(snakemake.input.sidecar)
    twin_quality = json.loads(Path(snakemake.input.twin_quality).read_text(encoding="utf-8"))
    fate, twin = twin_quality["Fate"], snakemake.params.twin
    if fate["status"] != "usable":
        raise DataFault(
            f"its healthy twin {twin} was {fate['status']} in {fate['stage']}: {fate['reason']}",
            fate["remedy"],
        )
    scan, grid = read_array(snakemake.input.brain)
    mask, _ = read_array(snakemake.input.mask, np.uint8)
    left = residual(scan, read_array(snakemake.input.twin)[0], mask > 0)
    write_array(snakemake.output.residual, left, grid)
    write_sidecar(
        snakemake.output.sidecar,
        {
            "Description": "Absolute difference of the scan from its healthy twin, each registered "
            "by itself, in units of the brains' intensity scale",
            "HealthyTwin": twin,
            "SpatialReference": registered["SpatialReference"],
            "RegistrationMethod": registered["RegistrationMethod"],
            "IntensityScaleMethod": registered["IntensityScaleMethod"],
        },
    )


if __name__ == "__main__":
    with scan_job(snakemake, "residual"):
        main(snakemake)
