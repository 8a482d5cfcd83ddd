"""Compare the methods' average heatmaps by distance and by brain area."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from voxplain.atlas import read_names
    from voxplain.comparison.areas import area_rows, both_sides, plain_name, top_areas
    from voxplain.comparison.distance import distance_rows
    from voxplain.plots.comparison import plot_area_distribution, plot_distances, plot_mean_maps
    from voxplain.plots.figures import save
    from voxplain.tables import read_tsv, write_tsv
    from voxplain.volumes import read_array
    from voxplain_workflow.jobs.titles import title_of
    from voxplain_workflow.records.heatmaps import MeanHeatmap

    params, inputs, output = snakemake.params, snakemake.input, snakemake.output
    settings = params.settings
    mask, grid = read_array(inputs.mask, np.uint8)
    inside = mask > 0
    labels, _ = read_array(inputs.labels, np.uint8)
    names = read_names(inputs.names)
    maps: dict[str, dict[str, np.ndarray]] = {}
    counts = {}
    for mean in (MeanHeatmap(**fields) for fields in params.means):
        maps.setdefault(mean.group, {})[mean.method] = read_array(mean.heatmap)[0]
        counts[mean.group] = json.loads(Path(mean.sidecar).read_text(encoding="utf-8"))["Scans"]

    distances = pd.DataFrame(distance_rows(maps)).assign(model=params.network)
    write_tsv(distances, output.distances)

    least_voxels = int(np.ceil(settings["least_ml"] / grid.voxel_volume_ml))
    rows, shown = [], {}
    for method in params.areas:
        for group in maps:
            table = both_sides(
                area_rows(maps[group][method], labels, names, inside, settings["share_of"])
            )
            top = top_areas(table, settings["top"], least_voxels)
            rows += [{"method": method, "class": group, **row} for row in top]
            shown.setdefault(method, []).extend(row["area"] for row in top if row["by"] == "sum")
    columns = ["method", "class", "by", "rank", "area", "share", "density"]
    tops = pd.DataFrame(rows, columns=columns).assign(model=params.network)
    write_tsv(tops, output.areas)

    # Left and right are added and a patient's scans averaged: each patient counts once.
    shares = []
    for method, path in params.areas.items():
        table = read_tsv(path)
        table["area"] = [plain_name(area) for area in table["area"]]
        keys = ["image", "patient", "class", "area"]
        of_scans = table.groupby(keys, sort=False)["share"].sum(min_count=1).reset_index()
        of_patients = of_scans.groupby(keys[1:], sort=False)["share"].mean().reset_index()
        shares.append(of_patients.assign(method=method))

    title = title_of(snakemake.wildcards, params.network)
    template, _ = read_array(inputs.template)
    order = {"radiological": params.radiological}
    save(plot_mean_maps(maps, counts, template, inside, grid, title, **order), output.maps_picture)
    save(plot_distances(distances, title), output.distances_picture)
    areas = {method: list(dict.fromkeys(top_names)) for method, top_names in shown.items()}
    distribution = plot_area_distribution(pd.concat(shares), areas, list(maps), title)
    save(distribution, output.areas_picture)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
