"""Choose the skull-stripping tool of a cohort, in the environment that will run it."""

from typing import Any

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from voxplain.anatomy.skull import find_tool
    from voxplain_workflow.naming import naming

    with naming({"tool": "skull.tool"}):
        tool = find_tool(snakemake.params.wanted)
    write_sidecar(
        snakemake.output.tools,
        {"SkullStrippingTool": tool.name, "SkullStrippingToolVersion": tool.version},
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
