"""Map the voxelwise difference between the classes of the training scans, without a network."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import numpy as np

    from voxplain.comparison.difference import welch_t
    from voxplain.store import Brain, open_scan
    from voxplain.tables import read_tsv
    from voxplain.training.statistics import RunningMoments
    from voxplain.volumes import read_array, write_array

    mask, grid = read_array(snakemake.input.mask, np.uint8)
    brain = Brain(mask > 0)
    members = read_tsv(snakemake.input.members)
    # The first class against all remaining ones.
    first, *other_classes = snakemake.params.classes
    groups = {True: RunningMoments(), False: RunningMoments()}
    training = members[members["side"] == "train"]
    for group, path in zip(training["class"], training["path"], strict=True):
        groups[group == first].add(open_scan(path, brain).values())
    one, other = groups[True], groups[False]
    volume = np.zeros(brain.mask.shape, np.float32)
    if min(one.count, other.count) > 1:
        t = welch_t(
            *(one.mean, one.variance, one.count),
            *(other.mean, other.variance, other.count),
            floor=0.5,
        )
        volume.reshape(-1)[brain.places] = t
    else:
        print("too few scans for a difference: it is 0 everywhere")
    write_array(snakemake.output.difference, volume, grid)
    print(f"{one.count} scans of {first} against {other.count} of {', '.join(other_classes)}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
