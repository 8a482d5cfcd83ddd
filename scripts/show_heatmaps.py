"""Write a viewer page of average heatmaps and of some scans' heatmaps, slice by slice."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from pathlib import Path

    from voxplain.atlas import read_names
    from voxplain.comparison.averages import find_maps
    from voxplain.viewer import ViewedMap, write_viewer
    from voxplain_workflow.jobs.tested import describe_test

    inputs = snakemake.input
    maps = []
    for run in snakemake.params.runs:
        network = f"{run['name']}: {describe_test(run['folder'])}"
        for group in run["classes"]:
            for method in run["methods"]:
                path = f"{run['folder']}/{method}/mean_{group}"
                scans = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))["Scans"]
                subject = f"average of {group} (n = {scans})"
                maps.append(ViewedMap(network, subject, method, f"{path}.nii.gz", inputs.template))
        brains = dict(zip(run["images"], run["brains"], strict=True))
        for metadata in find_maps(run["maps"]):
            if metadata["Image"] in brains:
                subject = f"{metadata['Image']} ({metadata['Class']})"
                method, path = metadata["Method"], metadata["path"]
                maps.append(ViewedMap(network, subject, method, path, brains[metadata["Image"]]))
    links = {"the report": "report.html"}
    if snakemake.params.subjects:  # the page on trust shows scans
        links["can it be trusted?"] = "trust.html"
    write_viewer(
        snakemake.output.page,
        "Relevance heatmaps",
        maps,
        inputs.labels,
        read_names(inputs.names),
        inputs.mask,
        links=links,
        radiological=snakemake.params.radiological,
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
