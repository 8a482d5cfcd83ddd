"""Check a split for leakage between its sides, and list its usable scans."""

from typing import Any

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from pathlib import Path

    from voxplain.cohort.leakage import Member, check_members, describe_audit
    from voxplain.cohort.usable import check_lost_of_split, check_tools_of_split
    from voxplain.tables import write_rows
    from voxplain_workflow.records.splits import SplitScan

    params, cohort, split = snakemake.params, snakemake.wildcards.cohort, snakemake.wildcards.split
    members, paths, lost, tools = [], {}, [], set()
    for scan in (SplitScan(**fields) for fields in params.scans):
        assessment = json.loads(Path(scan.quality).read_text(encoding="utf-8"))
        if assessment["Fate"]["status"] != "usable":
            lost.append(scan.image)
            continue
        tools.add(assessment["Processing"]["SkullStrippingTool"])
        paths[scan.side, scan.image] = scan.volume
        members.append(
            Member(
                image=scan.image,
                patient=scan.patient,
                side=scan.side,
                group=scan.group,
                # Digests of the voxels, not of the files: many patients may share a list or a note.
                digests=(assessment["SourceVoxelDataSha256"],),
                cohort=scan.cohort,
                head=scan.head,
            )
        )
    failures_left = int(snakemake.resources.failures_left)
    check_lost_of_split(lost, len(params.scans), failures_left, split, cohort)
    check_tools_of_split(tools, split, "set skull.tool to one of them")
    check_members(members, params.classes, split, by_head=params.group_by == "head")
    audit = describe_audit(members)
    for line in audit["HeadsOnBothSides"]:
        print(f"warning: {line}; see splits.group_by", flush=True)
    for line in audit["ImagesCountedTwice"]:
        print(f"counted twice: {line}", flush=True)
    table = [
        {
            "image": member.image,
            "patient": member.patient,
            "class": member.group,
            "side": member.side,
            "cohort": member.cohort or cohort,
            "path": paths[member.side, member.image],
        }
        for member in members
    ]
    # The table is not empty: a split with an empty side is refused above.
    write_rows(table, snakemake.output.members, list(table[0]))
    tool = next(iter(tools), None)
    record = {"Split": split, "SkullStrippingTool": tool, **audit, "ScansLeftOut": lost}
    write_sidecar(snakemake.output.audit, record)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
