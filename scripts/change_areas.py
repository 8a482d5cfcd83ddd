"""Compute the target's probability while areas are deleted and inserted in a method's order."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np
    import pandas as pd
    import torch

    from voxplain.comparison.averages import find_maps
    from voxplain.comparison.faithfulness import (
        CURVES,
        DIRECTIONS,
        RANDOM,
        areas_of_brain,
        mean_relevance,
        order_areas,
        steps_of,
    )
    from voxplain.relevance import choose_target
    from voxplain.relevance.deletion import delete_and_insert
    from voxplain.store import open_scan
    from voxplain.tables import read_tsv, write_tsv
    from voxplain.training.device import choose_device
    from voxplain.training.networks import load_network
    from voxplain.volumes import read_array

    torch.set_num_threads(snakemake.params.threads)
    inputs, settings = snakemake.input, snakemake.params.settings
    network = load_network(inputs.model, choose_device(snakemake.resources.device))
    statistics = network.statistics
    labels, _ = read_array(inputs.labels, np.uint8)
    areas = areas_of_brain(labels, statistics.mask)
    members = read_tsv(inputs.members)
    paths = members[members["side"] == "test"].set_index("image")["path"]
    by_image: dict[str, list[dict]] = {}
    for metadata in find_maps(inputs.maps):
        by_image.setdefault(metadata["Image"], []).append(metadata)
    images = [image for image in snakemake.params.images if image in by_image]
    tables = [pd.DataFrame(columns=list(CURVES))]
    for number, image in enumerate(images, start=1):
        by_method = {metadata["Method"]: metadata for metadata in by_image[image]}
        any_map = by_image[image][0]
        probabilities = [any_map["Probability"][group] for group in network.classes]
        target = choose_target(
            settings["target"], network.classes, any_map["Class"], probabilities, image
        )
        scan = statistics.normalise(open_scan(paths[image], statistics.brain))
        orders = [
            (method, 0, mean_relevance(read_array(metadata["path"])[0], areas), 1)
            for method, metadata in by_method.items()
        ]
        no_relevance = np.zeros(areas.max())
        draws = range(1, settings["random_orders"] + 1)
        orders += [(RANDOM, draw, no_relevance, draw) for draw in draws]
        for method, draw, relevance, drawn_by in orders:
            order = order_areas(relevance, settings["seed"], image, drawn_by)
            step_of_voxel, fraction = steps_of(areas, order, settings["steps"])
            curves_of_scan = delete_and_insert(network.model, scan, target, step_of_voxel)
            for direction, curve in zip(DIRECTIONS, curves_of_scan, strict=True):
                fields = [method, draw, image, any_map["Patient"], any_map["Class"], direction]
                points = {"step": range(len(curve)), "fraction": fraction, "probability": curve}
                tables.append(pd.DataFrame(dict(zip(CURVES, fields, strict=False)) | points))
        print(f"scan {number} of {len(images)}, {image}", flush=True)
    curves = pd.concat(tables[1:] or tables)
    write_tsv(curves, snakemake.output.curves, "%.9g")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
