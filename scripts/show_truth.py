"""Draw the true atrophy of one test scan and every method's heatmap of it side by side."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np

    from voxplain.comparison.averages import find_maps
    from voxplain.plots.figures import save
    from voxplain.plots.localisation import plot_truth
    from voxplain.plots.slices import plot_text
    from voxplain.volumes import read_array
    from voxplain_workflow.jobs.localisation import measured_residuals
    from voxplain_workflow.jobs.titles import title_of
    from voxplain_workflow.records.scans import TrueScan

    inputs, params = snakemake.input, snakemake.params
    mask, grid = read_array(inputs.mask, np.uint8)
    template, _ = read_array(inputs.template)
    scans = [TrueScan(**fields) for fields in params.scans]
    truths = {scan.image: scan.truth for scan in scans}
    residuals = measured_residuals(scans)
    maps = [metadata for metadata in find_maps(inputs.maps) if metadata["Image"] in truths]
    # The first usable scan with a disease.
    drawn = maps[0]["Image"] if maps else None
    rows = {metadata["Method"]: metadata["path"] for metadata in maps if metadata["Image"] == drawn}
    if drawn is None:
        why = "no scan with a disease came through"
        figure = plot_text("no truth to show", why, "see scans.tsv")
    else:
        figure = plot_truth(
            {method: read_array(path)[0] for method, path in rows.items()},
            read_array(truths[drawn])[0],
            template,
            mask > 0,
            grid,
            f"{drawn}, {maps[0]['Class']}: {title_of(snakemake.wildcards, params.network)}",
            threshold=params.thresholds["truth_threshold"],
            residual=read_array(residuals[drawn])[0] if drawn in residuals else None,
            residual_threshold=params.thresholds.get("residual_threshold"),
            radiological=params.radiological,
        )
    save(figure, snakemake.output.picture)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
