"""Make the heatmaps of one chunk of scans by one method."""

from typing import Any

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import re
    from pathlib import Path

    import torch

    from voxplain.relevance import choose_target, find_method
    from voxplain.store import open_scan
    from voxplain.tables import read_tsv
    from voxplain.training.device import choose_device
    from voxplain.training.networks import load_network
    from voxplain.volumes import write_array
    from voxplain_workflow.jobs.explaining import Explainer
    from voxplain_workflow.naming import naming

    torch.set_num_threads(snakemake.params.threads)
    device = choose_device(snakemake.resources.device)
    settings, name = snakemake.params.settings, snakemake.wildcards.method
    method = find_method(name)
    network = load_network(snakemake.input.model, device)
    statistics, classes = network.statistics, network.classes
    explainer = Explainer(name, network, settings["options"], snakemake.input.labels)

    members = read_tsv(snakemake.input.members)
    if "side" in members:  # in an external test two cohorts may use the same image id
        members = members[members["side"] == "test"]
    members = members.set_index("image")
    folder = Path(snakemake.output.maps)
    folder.mkdir(parents=True)
    images = [image for image in snakemake.params.images if image in members.index]
    if not explainer.applies:
        # Only with a network that is applied; for trained ones the plan omits such methods.
        print(f"{name} does not apply to {network.name}, only to {', '.join(method.models)}")
        images = []
    for number, image in enumerate(images, start=1):
        member = members.loc[image]
        scan = statistics.normalise(open_scan(member["path"], statistics.brain))
        with torch.no_grad():
            batch = torch.from_numpy(scan)[None, None].to(device)
            probabilities = torch.softmax(network.model(batch).double(), dim=1)[0].cpu().numpy()
        # The classes of a network that is applied are not known before the job.
        with naming({"target": "heatmaps.target"}):
            target = choose_target(
                settings["target"], classes, member["class"], probabilities, image
            )
        heatmap = explainer.explain(network.model, scan, target)
        # BIDS allows letters and digits only: desc-guidedBackprop.
        label = re.sub("_(.)", lambda match: match.group(1).upper(), name)
        stem = Path(member["path"]).name.replace("desc-preproc_T1w.npy", f"desc-{label}")
        write_array(folder / f"{stem}_relevance.nii.gz", heatmap, statistics.grid)
        write_sidecar(
            folder / f"{stem}_relevance.json",
            {
                "Image": image,
                "Patient": member["patient"],
                "Class": member["class"],
                "Method": name,
                "Options": explainer.recorded_options,
                "Explains": f"{method.explains} of {classes[target]}",
                "Model": network.label,
                "Probability": {g: float(p) for g, p in zip(classes, probabilities, strict=True)},
            },
        )
        print(f"{name}: scan {number} of {len(images)}, {image}", flush=True)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
