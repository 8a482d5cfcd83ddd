"""Combine the heatmaps of some scans by several methods into one score a voxel."""

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar

with job(snakemake):
    from pathlib import Path

    import numpy as np

    from voxplain.comparison.averages import find_maps
    from voxplain.relevance.combine import combine
    from voxplain.volumes import read_array, write_array

    params = snakemake.params
    mask, grid = read_array(snakemake.input.mask, np.uint8)
    folder = Path(snakemake.output.maps)
    folder.mkdir(parents=True)
    by_image: dict[str, list[dict]] = {}
    for told in find_maps(snakemake.input.maps):
        by_image.setdefault(told["Image"], []).append(told)
    for image, found in by_image.items():
        maps = [read_array(told["path"])[0] for told in found]
        name = found[0]["path"].name.replace("_relevance.nii.gz", "")
        stem = f"{name.rsplit('desc-', 1)[0]}desc-summary"
        combined = combine(maps, params.normalise, mask > 0)
        write_array(folder / f"{stem}_relevance.nii.gz", combined, grid)
        same = {key: found[0][key] for key in ("Image", "Patient", "Class", "Model", "Probability")}
        write_sidecar(
            folder / f"{stem}_relevance.json",
            {
                **same,
                "Method": "summary",
                "Options": {"methods": list(params.methods), "normalise": params.normalise},
                "Explains": "; ".join(sorted({told["Explains"] for told in found})),
            },
        )
        print(f"summary of {len(found)} methods: {image}", flush=True)
