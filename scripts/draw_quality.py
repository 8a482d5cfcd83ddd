"""Draw the brain mask and the registration of one scan."""

from typing import Any

from voxplain_workflow.jobs.fates import picture_job
from voxplain_workflow.jobs.sidecars import LostEarlier, read_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from pathlib import Path

    import numpy as np

    from voxplain.anatomy.quality import fluid_spaces
    from voxplain.faults import Fate
    from voxplain.plots.figures import save
    from voxplain.plots.slices import plot_outline
    from voxplain.volumes import read_array

    stripped = read_sidecar(snakemake.input.mask_sidecar)
    # Rejected scans are drawn too, so that users can see why they were rejected.
    assessed = json.loads(Path(snakemake.input.quality).read_text(encoding="utf-8"))
    if "Quality" not in assessed:
        raise LostEarlier(Fate(**assessed["Fate"]))
    quality, status = assessed["Quality"], assessed["Fate"]["status"]
    head, grid = read_array(snakemake.input.head)
    mask = read_array(snakemake.input.mask, np.uint8)[0] > 0
    brain, template_grid = read_array(snakemake.input.registered)
    template, _ = read_array(snakemake.input.template)
    template_mask = read_array(snakemake.input.template_mask, np.uint8)[0] > 0

    name = f"{snakemake.wildcards.cohort} {snakemake.wildcards.image}: "
    tool = " ".join(stripped[f"SkullStrippingMask{key}"] for key in ("Tool", "ToolVersion"))
    if stripped["SkullStrippingTrials"][1:]:
        tool += f" ({stripped['SkullStrippingRung']})"
    volume = f"{quality['brain_volume_ml']:.0f} ml"
    mask_figure = plot_outline(head, mask, grid, f"{name}brain mask by {tool}, {volume} ({status})")
    # Users look through hundreds of these pictures: the resolution of a screen is enough.
    save(mask_figure, snakemake.output.mask_picture, dpi=150)
    registration_figure = plot_outline(
        brain,
        template_mask,
        template_grid,
        f"{name}in template space, outlines of the template, overlap {quality['overlap']:.3f}, "
        f"similarity {quality['similarity']:.3f} ({status})",
        inner=fluid_spaces(template, template_mask),
    )
    save(registration_figure, snakemake.output.registration_picture, dpi=150)


if __name__ == "__main__":
    with picture_job(snakemake):
        main(snakemake)
