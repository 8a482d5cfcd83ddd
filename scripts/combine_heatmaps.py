"""Combine the heatmaps of several methods into one summary heatmap for each scan."""

from typing import Any

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
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
    for metadata in find_maps(snakemake.input.maps):
        by_image.setdefault(metadata["Image"], []).append(metadata)
    for image, heatmaps in by_image.items():
        maps = [read_array(metadata["path"])[0] for metadata in heatmaps]
        name = heatmaps[0]["path"].name.replace("_relevance.nii.gz", "")
        stem = f"{name.rsplit('desc-', 1)[0]}desc-summary"
        combined = combine(maps, params.normalise, mask > 0)
        write_array(folder / f"{stem}_relevance.nii.gz", combined, grid)
        keys = ("Image", "Patient", "Class", "Model", "Probability")
        shared = {key: heatmaps[0][key] for key in keys}
        write_sidecar(
            folder / f"{stem}_relevance.json",
            {
                **shared,
                "Method": "summary",
                "Options": {"methods": list(params.methods), "normalise": params.normalise},
                "Explains": "; ".join(sorted({metadata["Explains"] for metadata in heatmaps})),
            },
        )
        print(f"summary of {len(heatmaps)} methods: {image}", flush=True)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
