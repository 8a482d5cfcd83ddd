"""Put average heatmaps, and those of some scans, on a page to look at slice by slice."""

from pipeline.job import job

with job(snakemake):
    from voxplain.atlas import read_names
    from voxplain.comparison.averages import find_maps
    from voxplain.viewer import ViewedMap, write_viewer

    inputs = snakemake.input
    maps = []
    for run in snakemake.params.runs:
        for group in run["classes"]:
            for method in run["methods"]:
                path = f"{run['folder']}/{method}/mean_{group}.nii.gz"
                who = f"average of {group}"
                maps.append(ViewedMap(run["name"], who, method, path, inputs.template))
        brains = dict(zip(run["images"], run["brains"], strict=True))
        for told in find_maps(run["maps"]):
            if told["Image"] in brains:
                who, under = f"{told['Image']} ({told['Class']})", brains[told["Image"]]
                maps.append(ViewedMap(run["name"], who, told["Method"], told["path"], under))
    write_viewer(
        snakemake.output.page,
        "Relevance heatmaps",
        maps,
        inputs.labels,
        read_names(inputs.names),
        inputs.mask,
    )
