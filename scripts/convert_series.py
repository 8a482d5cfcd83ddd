"""Convert one scan's DICOM series to NIfTI, and record what it was made from."""

from voxplain_workflow.jobs.fates import scan_job
from voxplain_workflow.jobs.sidecars import write_sidecar

with scan_job(snakemake, "convert"):
    from pathlib import Path

    from voxplain.cohort.files import digest_files, open_source
    from voxplain.cohort.series import Conversion, digest_voxels, read_scan
    from voxplain.volumes import write_array

    settings = dict(snakemake.params.settings)
    place, companions = settings.pop("place"), settings.pop("companions")
    told = {key: settings.pop(key) for key in ("subject", "description")}
    with open_source(place, snakemake.wildcards.image, companions) as files:
        # In the format of sha256sum, which can check it too; recorded for a faulty series as well.
        lines = [f"{digest}  {name}\n" for name, digest in digest_files(files).items()]
        Path(snakemake.output.digests).write_text("".join(lines), "utf-8", "surrogateescape")
        series = read_scan(files, place, Conversion(**settings), **told)
    write_array(snakemake.output.volume, series.voxels, series.grid, series.voxels.dtype)
    # What came without its skull is 0, or no number, outside of the brain.
    told = {"SkullStripped": snakemake.params.settings["nan_outside"]}
    told |= {"VoxelDataSha256": digest_voxels(series.voxels)}
    write_sidecar(snakemake.output.sidecar, {**series.sidecar, **told})
