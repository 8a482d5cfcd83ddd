"""Make the heatmaps of some test scans by one method."""

from pipeline.job import job, write_sidecar

with job(snakemake):
    import re
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import torch

    from voxplain.models import build_model
    from voxplain.relevance import choose_target, explain, find_method
    from voxplain.store import open_scan
    from voxplain.training.device import choose_device
    from voxplain.training.statistics import read_statistics
    from voxplain.volumes import read_array, write_array

    torch.set_num_threads(snakemake.threads)
    device = choose_device(snakemake.resources.device)
    settings, method = snakemake.params.settings, snakemake.wildcards.method
    classes = settings["classes"]
    stored = torch.load(snakemake.input.model, map_location=device, weights_only=True)
    model = build_model(
        stored["model"], stored["grid_shape"], len(stored["classes"]), **stored["options"]
    )
    model.load_state_dict(stored["state_dict"])
    model.to(device).eval()
    statistics = read_statistics(snakemake.input.mean, snakemake.input.sd, snakemake.input.mask)
    grid = statistics.grid

    options = {}
    if method == "occlusion":
        cube = settings["occlusion"]
        edge = grid.voxel_size[0]  # the template's voxels are cubes
        options = {
            "size": max(1, round(cube["size_mm"] / edge)),
            "stride": max(1, round(cube["stride_mm"] / edge)),
            "spread": cube["spread"],
            "mask": statistics.mask,
        }
    elif method == "voxel_occlusion":
        options = {"size": settings["voxel_occlusion"]["size_voxels"], "mask": statistics.mask}
    elif method == "area_occlusion":
        options = {"labels": read_array(snakemake.input.labels[0], np.uint8)[0]}

    members = pd.read_csv(snakemake.input.members, sep="\t", dtype=str).set_index("image")
    folder = Path(snakemake.output.maps)
    folder.mkdir(parents=True)
    images = [image for image in snakemake.params.images if image in members.index]
    for number, image in enumerate(images, start=1):
        member = members.loc[image]
        scan = statistics.normalise(open_scan(member["path"], statistics.brain))
        with torch.no_grad():
            batch = torch.from_numpy(scan)[None, None].to(device)
            probabilities = torch.softmax(model(batch).double(), dim=1)[0].cpu().numpy()
        target = choose_target(settings["target"], classes, member["class"], probabilities)
        heatmap = explain(method, model, scan, target, **options)
        # Outside the brain the network is given constants, which no voxel of the scan can change.
        heatmap = np.where(statistics.mask, heatmap, 0)
        # BIDS allows letters and digits only: desc-guidedBackprop.
        label = re.sub("_(.)", lambda found: found.group(1).upper(), method)
        name = Path(member["path"]).name.replace("desc-preproc_T1w.npy", f"desc-{label}")
        write_array(folder / f"{name}_relevance.nii.gz", heatmap, grid)
        write_sidecar(
            folder / f"{name}_relevance.json",
            {
                "Image": image,
                "Patient": member["patient"],
                "Class": member["class"],
                "Method": method,
                "Explains": f"{find_method(method).explains} of {classes[target]}",
                "Model": stored["label"],
                "Probability": {g: float(p) for g, p in zip(classes, probabilities, strict=True)},
            },
        )
        print(f"{method}: scan {number} of {len(images)}, {image}", flush=True)
