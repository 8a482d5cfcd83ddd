"""Make the heatmaps of some scans by one method."""

from pipeline.job import job, write_sidecar

with job(snakemake):
    import re
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import torch

    from voxplain.relevance import choose_target, explain, find_method
    from voxplain.store import open_scan
    from voxplain.training.device import choose_device
    from voxplain.training.networks import load_network
    from voxplain.volumes import read_array, write_array

    torch.set_num_threads(snakemake.threads)
    device = choose_device(snakemake.resources.device)
    settings, name = snakemake.params.settings, snakemake.wildcards.method
    method = find_method(name)
    network = load_network(snakemake.input.model, device)
    statistics, classes = network.statistics, network.classes
    options = dict(settings["options"])
    if isinstance(options.get("layer"), dict):
        options["layer"] = options["layer"].get(network.name, "auto")
    if options.get("layer") == "auto":
        options["layer"] = network.last_layer
    chosen = dict(options)
    if "mask" in method.options:
        options["mask"] = statistics.mask
    if "labels" in method.options:
        options["labels"] = read_array(snakemake.input.labels[0], np.uint8)[0]

    members = pd.read_csv(snakemake.input.members, sep="\t", dtype=str, keep_default_na=False)
    if "side" in members:  # in an external test two cohorts may use the same image id
        members = members[members["side"] == "test"]
    members = members.set_index("image")
    folder = Path(snakemake.output.maps)
    folder.mkdir(parents=True)
    images = [image for image in snakemake.params.images if image in members.index]
    if method.models and network.name not in method.models:
        # A network that is only applied; of one that is trained here it is known beforehand.
        print(f"{name} does not apply to {network.name}, only to {', '.join(method.models)}")
        images = []
    for number, image in enumerate(images, start=1):
        member = members.loc[image]
        scan = statistics.normalise(open_scan(member["path"], statistics.brain))
        with torch.no_grad():
            batch = torch.from_numpy(scan)[None, None].to(device)
            probabilities = torch.softmax(network.model(batch).double(), dim=1)[0].cpu().numpy()
        target = choose_target(settings["target"], classes, member["class"], probabilities)
        heatmap = explain(name, network.model, scan, target, **options)
        # Outside the brain the network is given constants, which no voxel of the scan can change.
        heatmap = np.where(statistics.mask, heatmap, 0)
        # BIDS allows letters and digits only: desc-guidedBackprop.
        label = re.sub("_(.)", lambda found: found.group(1).upper(), name)
        stem = Path(member["path"]).name.replace("desc-preproc_T1w.npy", f"desc-{label}")
        write_array(folder / f"{stem}_relevance.nii.gz", heatmap, statistics.grid)
        write_sidecar(
            folder / f"{stem}_relevance.json",
            {
                "Image": image,
                "Patient": member["patient"],
                "Class": member["class"],
                "Method": name,
                "Options": chosen,
                "Explains": f"{method.explains} of {classes[target]}",
                "Model": network.label,
                "Probability": {g: float(p) for g, p in zip(classes, probabilities, strict=True)},
            },
        )
        print(f"{name}: scan {number} of {len(images)}, {image}", flush=True)
