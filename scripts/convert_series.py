"""Convert one scan's DICOM series to NIfTI, and record what it was made from."""

from pipeline.job import scan_job, write_sidecar

with scan_job(snakemake, "convert"):
    from pathlib import Path

    from voxplain.cohort.series import digest_series, digest_voxels, read_series
    from voxplain.volumes import write_array

    folder = snakemake.input.dicom
    # In the format of sha256sum, which can check it too; recorded for a faulty series as well.
    lines = [f"{digest}  {name}\n" for name, digest in digest_series(folder).items()]
    Path(snakemake.output.digests).write_text("".join(lines), "utf-8", "surrogateescape")
    series = read_series(folder)
    write_array(snakemake.output.volume, series.voxels, series.grid, series.voxels.dtype)
    sidecar = {**series.sidecar, "VoxelDataSha256": digest_voxels(series.voxels)}
    write_sidecar(snakemake.output.sidecar, sidecar)
