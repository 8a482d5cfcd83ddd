"""Predict the scans of a cohort with a network that was trained in an earlier run."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from pathlib import Path

    import pandas as pd
    import torch

    from voxplain.faults import SetupFault
    from voxplain.tables import write_tsv
    from voxplain.training.data import Scans
    from voxplain.training.device import choose_device
    from voxplain.training.loop import predict
    from voxplain.training.networks import TO_APPLY, load_network
    from voxplain.training.predictions import predictions_table
    from voxplain_workflow.records.scans import NewScan

    torch.set_num_threads(snakemake.params.threads)
    device = choose_device(snakemake.resources.device)
    network = load_network(snakemake.input.model, device, TO_APPLY)
    scans = [NewScan(**fields) for fields in snakemake.params.scans]
    qualities = {
        scan.image: json.loads(Path(scan.quality).read_text(encoding="utf-8")) for scan in scans
    }
    tools = {
        quality["Processing"]["SkullStrippingTool"]
        for quality in qualities.values()
        if "Processing" in quality
    }
    of_network, of_cohort = (
        # Only the skull-stripping tool that was used counts, with its settings.
        {**settings, "skull": {tool: settings.get("skull", {}).get(tool) for tool in used}}
        for settings, used in (
            (network.metadata["preprocessing"], [network.metadata["skull_tool"]]),
            (snakemake.params.preprocessing, sorted(tools)),
        )
    )
    for key in sorted(of_network.keys() | of_cohort.keys()):
        if of_network.get(key) != of_cohort.get(key):
            raise SetupFault(
                f"network {snakemake.wildcards.network} was trained on scans preprocessed with "
                f"{key}: {of_network.get(key)}, these with {of_cohort.get(key)}; a network knows "
                "scans only that were preprocessed as its own: set the configuration to the same"
            )

    rows = []
    for scan in scans:
        fate = qualities[scan.image]["Fate"]["status"]
        if fate == "usable":
            rows.append([scan.image, scan.patient, scan.group, scan.volume])
        else:
            print(f"left out: {scan.image} is {fate}", flush=True)
    members = pd.DataFrame(rows, columns=["image", "patient", "class", "path"])
    if members.empty:
        raise SetupFault(
            f"cohort {snakemake.wildcards.cohort} has no usable scan; see its scans.tsv"
        )
    known = sorted(set(members["patient"]) & set(network.metadata["trained_on_patients"]))
    if known:
        print(
            f"the network was trained on scans of {len(known)} of these patients, so that what it "
            f"says of them is no test: {', '.join(known)}",
            flush=True,
        )
    volumes = Scans(list(members["path"]), [0] * len(members), network.statistics)
    table = predictions_table(members, predict(network.model, volumes, device), network.classes)
    table["trained_on"] = ["yes" if patient in known else "no" for patient in table["patient"]]
    write_tsv(members, snakemake.output.members)
    write_tsv(table, snakemake.output.predictions, "%.6f")
    print(f"{network.label}: {len(table)} scans on {device}", flush=True)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
