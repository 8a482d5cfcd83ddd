"""Sum the heatmaps of a method by brain area, scan by scan."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np
    import pandas as pd

    from voxplain.atlas import read_names
    from voxplain.comparison.areas import area_rows
    from voxplain.comparison.averages import find_maps
    from voxplain.tables import write_tsv
    from voxplain.volumes import read_array

    inputs = snakemake.input
    inside = read_array(inputs.mask, np.uint8)[0] > 0
    labels, _ = read_array(inputs.labels, np.uint8)
    names = read_names(inputs.names)
    columns = ["image", "patient", "class", "area", "voxels", "sum", "share", "density"]
    tables = [pd.DataFrame(columns=columns)]
    for metadata in find_maps(inputs.maps):
        heatmap, _ = read_array(metadata["path"])
        table = area_rows(heatmap, labels, names, inside, snakemake.params.share_of)
        scan_fields = {
            "image": metadata["Image"],
            "patient": metadata["Patient"],
            "class": metadata["Class"],
        }
        tables.append(table.assign(**scan_fields)[columns])
    areas = pd.concat(tables[1:] or tables)
    write_tsv(areas, snakemake.output.areas)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
