"""Put average heatmaps, and those of some scans, on a page to look at slice by slice."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
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
                who = f"average of {group} (n = {scans})"
                maps.append(ViewedMap(network, who, method, f"{path}.nii.gz", inputs.template))
        brains = dict(zip(run["images"], run["brains"], strict=True))
        for told in find_maps(run["maps"]):
            if told["Image"] in brains:
                who, under = f"{told['Image']} ({told['Class']})", brains[told["Image"]]
                maps.append(ViewedMap(network, who, told["Method"], told["path"], under))
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
