"""Average a method's heatmaps over the test scans of one class."""

from typing import Any

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np

    from voxplain.comparison.averages import average_maps, find_maps
    from voxplain.volumes import read_array, write_array

    _, grid = read_array(snakemake.input.mask, np.uint8)
    group = snakemake.wildcards.group
    heatmaps = [
        metadata for metadata in find_maps(snakemake.input.maps) if metadata["Class"] == group
    ]
    mean, count = average_maps([metadata["path"] for metadata in heatmaps], grid)
    write_array(snakemake.output.mean, mean, grid)
    write_sidecar(
        snakemake.output.sidecar,
        {
            "Class": group,
            "Scans": count,
            "Patients": len({metadata["Patient"] for metadata in heatmaps}),
            "Method": snakemake.wildcards.method,
            "Explains": sorted({metadata["Explains"] for metadata in heatmaps}),
            "Model": snakemake.params.network,
            "Split": snakemake.wildcards.split,
            "Seed": int(snakemake.wildcards.seed),
        },
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
