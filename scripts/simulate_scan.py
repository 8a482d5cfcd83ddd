"""Simulate one scan, as a DICOM series in the archive's tree, with its true atrophy."""

from pipeline.job import job

with job(snakemake):
    from pathlib import Path

    import numpy as np

    from voxplain.atlas import read_aal
    from voxplain.cohort.dicom import SeriesHeader, write_series
    from voxplain.cohort.heads import read_head
    from voxplain.cohort.plan import DESCRIPTION
    from voxplain.cohort.simulate import ScannerSettings, simulate_scan
    from voxplain.volumes import write_array

    planned, settings = snakemake.params.planned, snakemake.params.settings
    areas = read_aal().values_of(settings["atrophy"]["areas"])
    loss = settings["atrophy"]["max_loss"] * planned["severity"]
    scan = simulate_scan(
        head=read_head(snakemake.input),
        losses={label: loss for labels in areas.values() for label in labels},
        ageing=planned["ageing"],
        anatomy_seed=planned["anatomy_seed"],
        scan_seed=planned["scan_seed"],
        scanner=ScannerSettings(**settings["scanner"]),
    )
    header = SeriesHeader(
        subject=planned["subject"],
        sex=planned["sex"],
        age=planned["age"],
        acquired=planned["acquired"],
        image=planned["image"],
        description=DESCRIPTION,
    )
    write_series(Path(snakemake.output.dicom), scan.volume, scan.grid, header)
    write_array(snakemake.output.truth, scan.truth, scan.grid, np.float32)
