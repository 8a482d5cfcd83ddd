"""Choose the skull-stripping tool of a cohort, in the environment that will run it."""

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar

with job(snakemake):
    from voxplain.anatomy.skull import find_tool
    from voxplain_workflow.naming import naming

    with naming({"tool": "skull.tool"}):
        tool = find_tool(snakemake.params.wanted)
    write_sidecar(
        snakemake.output.tools,
        {"SkullStrippingTool": tool.name, "SkullStrippingToolVersion": tool.version},
    )
