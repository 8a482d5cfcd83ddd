"""Measure one scan's skull removal and registration, decide its fate, and draw both."""

from voxplain_workflow.jobs.frame import read_sidecar, scan_job, write_sidecar

with scan_job(snakemake, "quality"):
    import numpy as np

    from voxplain.anatomy.quality import fluid_spaces, judge, measure_quality
    from voxplain.plots.figures import save
    from voxplain.plots.slices import plot_outline
    from voxplain.volumes import read_array

    stripped = read_sidecar(snakemake.input.mask_sidecar)
    registered = read_sidecar(snakemake.input.sidecar)
    head, grid = read_array(snakemake.input.head)
    mask = read_array(snakemake.input.mask, np.uint8)[0] > 0
    brain, template_grid = read_array(snakemake.input.registered)
    brain_mask = read_array(snakemake.input.registered_mask, np.uint8)[0] > 0
    template, _ = read_array(snakemake.input.template)
    template_mask = read_array(snakemake.input.template_mask, np.uint8)[0] > 0
    quality = measure_quality(
        mask, grid.voxel_volume_ml, brain, brain_mask, template, template_mask
    )
    settings = snakemake.params.settings
    told = ("SkullStrippingTool", "SkullStrippingRung", "BiasField", "Registration")
    fate = judge(quality, settings["thresholds"], settings["kept"])
    write_sidecar(
        snakemake.output.quality,
        {
            "Fate": fate.as_dict(),
            "SourceVoxelDataSha256": registered["SourceVoxelDataSha256"],
            "Quality": quality.as_dict(),
            "Processing": {
                key: value
                for key, value in {**stripped, **registered}.items()
                if key.startswith(told)
            },
        },
    )
    name = f"{snakemake.wildcards.cohort} {snakemake.wildcards.image}: "
    tool = " ".join(stripped[f"SkullStrippingMask{key}"] for key in ("Tool", "ToolVersion"))
    if stripped["SkullStrippingTrials"][1:]:
        tool += f" ({stripped['SkullStrippingRung']})"
    mask_title = f"{name}brain mask by {tool}, {quality.brain_volume_ml:.0f} ml ({fate.status})"
    mask_figure = plot_outline(head, mask, grid, mask_title)
    # Bitmaps to look through by the hundred: a screen's resolution will do.
    save(mask_figure, snakemake.output.mask_picture, dpi=150)
    registration_figure = plot_outline(
        brain,
        template_mask,
        template_grid,
        f"{name}in template space, outlines of the template, overlap {quality.overlap:.3f}, "
        f"similarity {quality.similarity:.3f} ({fate.status})",
        inner=fluid_spaces(template, template_mask),
    )
    save(registration_figure, snakemake.output.registration_picture, dpi=150)
