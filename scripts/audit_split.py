"""Look for leaks between the sides of a split and list the scans that came through."""

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar

with job(snakemake):
    import csv
    import json
    from pathlib import Path

    from voxplain.cohort.leakage import (
        TEST,
        TRAIN,
        Member,
        check_members,
        find_repeated,
        find_shared_heads,
    )
    from voxplain.faults import SetupFault

    split = snakemake.wildcards.split
    members, paths, lost, tools = [], {}, [], set()
    rows = zip(snakemake.params.rows, snakemake.input.quality, strict=True)
    for (image, patient, group, side, path, other, head), quality in rows:
        told = json.loads(Path(quality).read_text(encoding="utf-8"))
        if told["Fate"]["status"] != "usable":
            lost.append(image)
            continue
        # Not the files' own digests: a list or a note may lie beside many patients' images.
        tools.add(told["Processing"]["SkullStrippingTool"])
        digests = (told["SourceVoxelDataSha256"],)
        members.append(Member(image, patient, side, group, digests, other, head))
        paths[side, image] = path
    if len(lost) > int(snakemake.resources.failures_left):
        raise SetupFault(
            f"{len(lost)} of the {len(snakemake.params.rows)} scans of split {split} were lost in "
            "processing, and with those lost before more than max_failed allows; see "
            f"results/{snakemake.wildcards.cohort}/scans.tsv, and that of the cohort tested on"
        )
    if len(tools) > 1:
        raise SetupFault(
            f"split {split} mixes scans stripped by {' and '.join(sorted(tools))}, whose masks "
            "differ as much as groups do; set skull.tool to one of them"
        )
    by_head = snakemake.params.group_by == "head"
    check_members(members, snakemake.params.classes, split, by_head)
    heads = find_shared_heads(members)
    for line in heads:
        print(f"warning: {line}; see splits.group_by", flush=True)
    repeated = find_repeated(members)
    for line in repeated:
        print(f"counted twice: {line}", flush=True)
    with open(snakemake.output.members, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(["image", "patient", "class", "side", "cohort", "path"])
        own = snakemake.wildcards.cohort
        writer.writerows(
            [m.image, m.patient, m.group, m.side, m.cohort or own, paths[m.side, m.image]]
            for m in members
        )
    write_sidecar(
        snakemake.output.audit,
        {
            "Split": split,
            "SkullStrippingTool": next(iter(tools), None),
            "PatientsOnBothSides": 0,
            "ImagesOfTwoPatients": 0,
            "ImagesCountedTwice": repeated,
            "HeadsKnown": any(member.head for member in members),
            "HeadsOnBothSides": heads,
            "PatientsTrain": len({m.patient for m in members if m.side == TRAIN}),
            "PatientsTest": len({m.patient for m in members if m.side == TEST}),
            "ScansLeftOut": lost,
        },
    )
