"""Compare a method's heatmaps with those of networks whose layers are randomised one by one."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import pandas as pd
    import torch

    from voxplain.comparison.averages import find_maps
    from voxplain.comparison.faithfulness import rank_correlation
    from voxplain.models import build_model
    from voxplain.relevance import choose_target
    from voxplain.relevance.randomisation import randomise_layers
    from voxplain.store import open_scan
    from voxplain.tables import read_tsv, write_tsv
    from voxplain.training.device import choose_device
    from voxplain.training.networks import load_network
    from voxplain.volumes import read_array
    from voxplain_workflow.jobs.explaining import Explainer

    torch.set_num_threads(snakemake.params.threads)
    inputs, settings = snakemake.input, snakemake.params.settings
    name = snakemake.wildcards.method
    network = load_network(inputs.model, choose_device(snakemake.resources.device))
    statistics, classes = network.statistics, network.classes
    explainer = Explainer(name, network, settings["options"], inputs.labels)
    torch.manual_seed(settings["seed"])
    # Initial weights as at the start of the network's training, but drawn with another seed.
    shape = statistics.grid.shape
    untrained = build_model(network.name, shape, len(classes), **network.options).eval()

    members = read_tsv(inputs.members)
    paths = members[members["side"] == "test"].set_index("image")["path"]
    heatmaps = [
        metadata
        for metadata in find_maps(inputs.maps)
        if metadata["Image"] in snakemake.params.images
    ]
    scans = [
        statistics.normalise(open_scan(paths[metadata["Image"]], statistics.brain))
        for metadata in heatmaps
    ]
    rows = []
    randomised = randomise_layers(network.model, untrained, scans[0]) if heatmaps else []
    for step, (layer, model) in enumerate(randomised, start=1):
        for metadata, scan in zip(heatmaps, scans, strict=True):
            probabilities = [metadata["Probability"][group] for group in classes]
            # The class that was explained, whatever the randomised network predicts.
            target = choose_target(
                settings["target"], classes, metadata["Class"], probabilities, metadata["Image"]
            )
            heatmap = explainer.explain(model, scan, target)
            original, _ = read_array(metadata["path"])
            correlation = rank_correlation(original, heatmap, statistics.mask)
            scan_fields = [metadata[key] for key in ("Image", "Patient", "Class")]
            rows.append([*scan_fields, step, layer, correlation])
        print(f"{name}: {layer} and all behind it at random", flush=True)
    columns = ["image", "patient", "class", "step", "layer", "rank_correlation"]
    table = pd.DataFrame(rows, columns=columns)
    write_tsv(table, snakemake.output.correlations)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
