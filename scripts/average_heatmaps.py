"""Average a method's heatmaps over the test scans of each class, and sum them by area."""

from pipeline.job import job, write_sidecar

with job(snakemake):
    import json
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from voxplain.atlas import read_names
    from voxplain.comparison.areas import area_rows
    from voxplain.comparison.averages import average_maps
    from voxplain.volumes import read_array, write_array

    params, inputs = snakemake.params, snakemake.input
    mask, grid = read_array(inputs.mask, np.uint8)
    labels, _ = read_array(inputs.labels, np.uint8)
    names = read_names(inputs.names)
    found = []
    for folder in inputs.maps:
        for sidecar in sorted(Path(folder).glob("*_relevance.json")):
            told = json.loads(sidecar.read_text(encoding="utf-8"))
            found.append({**told, "path": sidecar.with_suffix(".nii.gz")})

    tables = []
    for told in found:
        heatmap, _ = read_array(told["path"])
        table = area_rows(heatmap, labels, names, mask > 0, params.share_of)
        who = {"image": told["Image"], "patient": told["Patient"], "class": told["Class"]}
        tables.append(table.assign(**who))
    columns = ["image", "patient", "class", "area", "voxels", "sum", "share", "density"]
    areas = pd.concat(tables)[columns]
    areas.to_csv(snakemake.output.areas, sep="\t", index=False, float_format="%.6g", na_rep="n/a")

    for group, path, sidecar in zip(
        params.classes, snakemake.output.means, snakemake.output.sidecars, strict=True
    ):
        of_class = [told for told in found if told["Class"] == group]
        mean, count = average_maps([told["path"] for told in of_class], grid)
        write_array(path, mean, grid)
        write_sidecar(
            sidecar,
            {
                "Class": group,
                "Scans": count,
                "Patients": len({told["Patient"] for told in of_class}),
                "Method": snakemake.wildcards.method,
                "Explains": sorted({told["Explains"] for told in of_class}),
                "Model": params.network,
                "Split": snakemake.wildcards.split,
                "Seed": int(snakemake.wildcards.seed),
            },
        )
