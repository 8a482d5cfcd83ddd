"""Write the cohort's table: every scan of the user's table, with its measures and its fate."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    import json
    from pathlib import Path

    import pandas as pd

    from voxplain import __version__
    from voxplain.cohort.fates import collect_fates, write_fates
    from voxplain.cohort.overview import describe_people, find_oddities
    from voxplain.faults import SetupFault

    # True atrophy, where it is known, is finished with its scan and has no place in the table.
    told = [path for path in snakemake.input.scans if path.endswith(".json")]
    qualities = {}
    for image, path in zip(snakemake.params.images, told, strict=True):
        qualities[image] = json.loads(Path(path).read_text(encoding="utf-8"))
    tools = {
        (told["SkullStrippingTool"], told["SkullStrippingToolVersion"])
        for told in (quality.get("Processing") for quality in qualities.values())
        if told
    }
    if len(tools) > 1:
        told = ", ".join(" ".join(tool) for tool in sorted(tools))
        raise SetupFault(
            f"cohort {snakemake.wildcards.cohort} was stripped by several tools ({told}), whose "
            "masks differ as much as groups do; set skull.tool to one of them, or, where only the "
            "version differs, run again with --forcerun strip_skull"
        )
    table = collect_fates(snakemake.params.rows, qualities)
    write_fates(snakemake.output.table, table)
    people = describe_people(table)
    pd.DataFrame(people).to_csv(snakemake.output.people, sep="\t", index=False)
    oddities = find_oddities(table, snakemake.params.unlisted)
    pd.DataFrame(oddities).to_csv(snakemake.output.oddities, sep="\t", index=False)
    write = {
        "Name": f"voxplain, cohort {snakemake.wildcards.cohort}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "voxplain", "Version": __version__}],
    }
    Path(snakemake.output.description).write_text(json.dumps(write, indent=2) + "\n")
    # What BIDS has no names for: pictures, digests of sources, transforms, stored voxels, fates.
    ignored = ["**/figures", "**/provenance", "*_xfm.h5", "*.npy", "*_desc-quality_T1w.json"]
    Path(snakemake.output.ignored).write_text("\n".join(ignored) + "\n")
