"""Average a method's heatmaps over the test scans of one class."""

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar

with job(snakemake):
    import numpy as np

    from voxplain.comparison.averages import average_maps, find_maps
    from voxplain.volumes import read_array, write_array

    _, grid = read_array(snakemake.input.mask, np.uint8)
    group = snakemake.wildcards.group
    found = [told for told in find_maps(snakemake.input.maps) if told["Class"] == group]
    mean, count = average_maps([told["path"] for told in found], grid)
    write_array(snakemake.output.mean, mean, grid)
    write_sidecar(
        snakemake.output.sidecar,
        {
            "Class": group,
            "Scans": count,
            "Patients": len({told["Patient"] for told in found}),
            "Method": snakemake.wildcards.method,
            "Explains": sorted({told["Explains"] for told in found}),
            "Model": snakemake.params.network,
            "Split": snakemake.wildcards.split,
            "Seed": int(snakemake.wildcards.seed),
        },
    )
