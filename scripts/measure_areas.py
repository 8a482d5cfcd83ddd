"""Measure the mean intensity of the brain areas of every scan in a task."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from voxplain.atlas import read_names
    from voxplain.comparison.areas import measure_areas
    from voxplain.store import Brain, open_scan
    from voxplain.tables import write_tsv
    from voxplain.volumes import read_array

    inputs = snakemake.input
    brain = Brain(read_array(inputs.mask, np.uint8)[0] > 0)
    labels = read_array(inputs.labels, np.uint8)[0].reshape(-1)[brain.places]
    names = read_names(inputs.names)
    rows = []
    for (cohort, image), path in zip(snakemake.params.scans, inputs.volumes, strict=True):
        if not Path(path).stat().st_size:
            print(f"{image} was given up in an earlier stage: left out")
            continue
        measured = measure_areas(open_scan(path, brain).values(), labels, names)
        rows.append({"cohort": cohort, "image": image, **measured})
    without = sorted(set(names.values()) - set(rows[0] if rows else ()))
    if without:
        print(f"areas without a voxel in the brain on this grid: {', '.join(without)}")
    table = pd.DataFrame(rows, columns=None if rows else ["cohort", "image"])
    write_tsv(table, snakemake.output.table)
