"""Write all splits of a cohort into one table, their numbers, and what the leakage audit found."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    import json
    from pathlib import Path

    import pandas as pd

    from voxplain.cohort.overview import describe_ages, describe_members
    from voxplain.cohort.splits import count_members

    tables, audits = [], []
    for members, audit in zip(snakemake.input.members, snakemake.input.audits, strict=True):
        told = json.loads(Path(audit).read_text(encoding="utf-8"))
        table = pd.read_csv(members, sep="\t", dtype=str, keep_default_na=False)
        tables.append(table.assign(split=told["Split"]))
        audits.append(
            {
                "split": told["Split"],
                "patients_on_both_sides": told["PatientsOnBothSides"],
                "images_of_two_patients": told["ImagesOfTwoPatients"],
                "images_counted_twice": "; ".join(told["ImagesCountedTwice"]) or "none",
                "heads_on_both_sides": "; ".join(told["HeadsOnBothSides"])
                or ("none" if told["HeadsKnown"] else "n/a"),
                "scans_left_out": ", ".join(told["ScansLeftOut"]) or "none",
                "voxel_statistics": "training scans of the split",
                "quality_thresholds": "absolute, from the configuration",
                "epochs": "fixed, no early stopping",
            }
        )
    splits = pd.concat(tables)
    columns = ["split", "side", "cohort", "image", "patient", "class"]
    splits[columns].to_csv(snakemake.output.splits, sep="\t", index=False)
    members = splits.to_dict("records")
    rows = count_members(members, snakemake.params.classes)
    about = describe_members(members, snakemake.params.people)
    nobody = {"female": 0, "male": 0, **describe_ages([])}
    for row in rows:
        row |= about.get((row["split"], row["side"], row["class"]), nobody)
    pd.DataFrame(rows).to_csv(snakemake.output.counts, sep="\t", index=False)
    pd.DataFrame(audits).to_csv(snakemake.output.audit, sep="\t", index=False)
