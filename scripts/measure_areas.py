"""Measure the mean intensity of the brain areas of every scan in a task."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from voxplain.atlas import read_names
    from voxplain.comparison.areas import measure_areas
    from voxplain.store import Brain, open_scan
    from voxplain.tables import write_tsv
    from voxplain.volumes import read_array
    from voxplain_workflow.records.scans import TaskScan

    inputs = snakemake.input
    brain = Brain(read_array(inputs.mask, np.uint8)[0] > 0)
    labels = read_array(inputs.labels, np.uint8)[0].reshape(-1)[brain.places]
    names = read_names(inputs.names)
    rows = []
    for scan in (TaskScan(**fields) for fields in snakemake.params.scans):
        if not Path(scan.volume).stat().st_size:
            print(f"left out: {scan.image} was lost in an earlier stage")
            continue
        measured = measure_areas(open_scan(scan.volume, brain).values(), labels, names)
        rows.append({"cohort": scan.cohort, "image": scan.image, **measured})
    without = sorted(set(names.values()) - set(rows[0] if rows else ()))
    if without:
        print(f"areas without a voxel in the brain on this grid: {', '.join(without)}")
    table = pd.DataFrame(rows, columns=None if rows else ["cohort", "image"])
    write_tsv(table, snakemake.output.table)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
