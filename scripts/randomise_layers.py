"""Remake a method's heatmaps while the network forgets, layer by layer, and compare them."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
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

    torch.set_num_threads(snakemake.threads)
    inputs, settings = snakemake.input, snakemake.params.settings
    name = snakemake.wildcards.method
    network = load_network(inputs.model, choose_device(snakemake.resources.device))
    statistics, classes = network.statistics, network.classes
    explainer = Explainer(name, network, settings["options"], inputs.labels)
    torch.manual_seed(settings["seed"])
    # With the first weights that its own training began with, but for the seed.
    shape = statistics.grid.shape
    untrained = build_model(network.name, shape, len(classes), **network.options).eval()

    members = read_tsv(inputs.members)
    paths = members[members["side"] == "test"].set_index("image")["path"]
    wanted = [told for told in find_maps(inputs.maps) if told["Image"] in snakemake.params.images]
    scans = [
        statistics.normalise(open_scan(paths[told["Image"]], statistics.brain)) for told in wanted
    ]
    rows = []
    forgetting = randomise_layers(network.model, untrained, scans[0]) if wanted else []
    for step, (layer, model) in enumerate(forgetting, start=1):
        for told, scan in zip(wanted, scans, strict=True):
            probabilities = [told["Probability"][group] for group in classes]
            # The class that was explained, whatever the network says now.
            target = choose_target(settings["target"], classes, told["Class"], probabilities)
            heatmap = explainer.explain(model, scan, target)
            found = rank_correlation(read_array(told["path"])[0], heatmap, statistics.mask)
            rows.append([told["Image"], told["Patient"], told["Class"], step, layer, found])
        print(f"{name}: {layer} and all behind it at random", flush=True)
    columns = ["image", "patient", "class", "step", "layer", "rank_correlation"]
    table = pd.DataFrame(rows, columns=columns)
    write_tsv(table, snakemake.output.correlations)
