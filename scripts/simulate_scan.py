"""Simulate one scan as a DICOM series in the archive's folders, with its ground truth."""

from typing import Any

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from dataclasses import asdict
    from pathlib import Path

    import numpy as np

    from voxplain.atlas import read_aal
    from voxplain.cohort.atrophy import draw_losses
    from voxplain.cohort.dicom import SeriesHeader, write_series
    from voxplain.cohort.heads import read_head
    from voxplain.cohort.plan import DESCRIPTION
    from voxplain.cohort.scanner import ScannerSettings
    from voxplain.cohort.shortcuts import Shortcut
    from voxplain.cohort.simulate import simulate_scan
    from voxplain.volumes import write_array

    planned, settings = snakemake.params.planned, snakemake.params.settings
    aal, atrophy, shortcut_settings = read_aal(), settings["atrophy"], settings["shortcut"]
    names = {
        label: aal.names[label]
        for labels in aal.values_of(atrophy["areas"]).values()
        for label in labels
    }
    losses = draw_losses(
        names,
        atrophy["max_loss"] * planned["severity"],
        atrophy["asymmetry"],
        atrophy["spread"],
        planned["anatomy_seed"],
    )
    shortcut_labels = ()
    if shortcut_settings["kind"] == "scanner":
        area = shortcut_settings["area"]
        shortcut_labels = aal.values_of([area])[area]
    options = {key: value for key, value in shortcut_settings.items() if key != "area"}
    shortcut = Shortcut(**options, labels=shortcut_labels) if planned["shortcut"] else None
    measured = [*names, *(label for label in shortcut_labels if label not in names)]
    scan = simulate_scan(
        head=read_head(snakemake.input),
        losses=losses,
        ageing=planned["ageing"],
        anatomy_seed=planned["anatomy_seed"],
        scan_seed=planned["scan_seed"],
        scanner=ScannerSettings(**settings["scanner"]),
        extent=atrophy["extent"],
        shortcut=shortcut,
        measured=measured,
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
    areas = {aal.names[label]: asdict(measures) for label, measures in scan.measures.items()}
    write_sidecar(
        snakemake.output.measures,
        {
            "Description": "By what fraction the simulation changed each place: tissue that the "
            "disease took or brightness that a shortcut added, whichever is more",
            "Shortcut": shortcut.kind if shortcut else "none",
            "Areas": areas,
        },
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
