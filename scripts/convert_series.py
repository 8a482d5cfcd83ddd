"""Convert the source files of one scan to NIfTI, and record their digests."""

from typing import Any

from voxplain_workflow.jobs.fates import scan_job
from voxplain_workflow.jobs.sidecars import write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from pathlib import Path

    from voxplain.cohort.files import digest_files, open_source
    from voxplain.cohort.series import Conversion, digest_voxels, read_scan
    from voxplain.volumes import write_array
    from voxplain_workflow.naming import naming

    settings = dict(snakemake.params.settings)
    place, companions = settings.pop("place"), settings.pop("companions")
    expected = {key: settings.pop(key) for key in ("subject", "description")}
    keys = {key: f"conversion.{key}" for key in settings}
    with open_source(place, snakemake.wildcards.image, companions) as files, naming(keys):
        # In the format of sha256sum, so that it can check them; recorded for faulty series too.
        lines = [f"{digest}  {name}\n" for name, digest in digest_files(files).items()]
        Path(snakemake.output.digests).write_text("".join(lines), "utf-8", "surrogateescape")
        series = read_scan(files, place, Conversion(**settings), **expected)
    write_array(snakemake.output.volume, series.voxels, series.grid, series.voxels.dtype)
    # Skull-stripped input is 0 or NaN outside of the brain.
    metadata = {"SkullStripped": snakemake.params.settings["nan_outside"]}
    metadata |= {"VoxelDataSha256": digest_voxels(series.voxels)}
    write_sidecar(snakemake.output.sidecar, {**series.sidecar, **metadata})


if __name__ == "__main__":
    with scan_job(snakemake, "convert"):
        main(snakemake)
