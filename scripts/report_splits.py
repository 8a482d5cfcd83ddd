"""Write the splits of a task in one table, the counts of their scans, and the leakage audit."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from pathlib import Path

    import pandas as pd

    from voxplain.cohort.demographics import Person
    from voxplain.cohort.overview import describe_ages, describe_members
    from voxplain.cohort.splits import count_members
    from voxplain.tables import MISSING, read_tsv, write_tsv
    from voxplain_workflow.records.splits import SplitFiles

    tables, audits = [], []
    for split in (SplitFiles(**fields) for fields in snakemake.params.splits):
        record = json.loads(Path(split.audit).read_text(encoding="utf-8"))
        tables.append(read_tsv(split.members).assign(split=split.split))
        audits.append(
            {
                "split": split.split,
                "patients_on_both_sides": record["PatientsOnBothSides"],
                "images_of_two_patients": record["ImagesOfTwoPatients"],
                "images_counted_twice": "; ".join(record["ImagesCountedTwice"]) or "none",
                "heads_on_both_sides": "; ".join(record["HeadsOnBothSides"])
                or ("none" if record["HeadsKnown"] else MISSING),
                "scans_left_out": ", ".join(record["ScansLeftOut"]) or "none",
                "voxel_statistics": "training scans of the split",
                "quality_thresholds": "absolute, from the configuration",
                "epochs": "fixed, no early stopping",
            }
        )
    splits = pd.concat(tables)
    columns = ["split", "side", "cohort", "image", "patient", "class"]
    write_tsv(splits[columns], snakemake.output.splits)
    members = splits.to_dict("records")
    rows = count_members(members, snakemake.params.classes)
    people = [Person(**fields) for fields in snakemake.params.people]
    descriptions = describe_members(members, people)
    no_patients = {"female": 0, "male": 0, **describe_ages([])}
    for row in rows:
        row |= descriptions.get((row["split"], row["side"], row["class"]), no_patients)
    write_tsv(pd.DataFrame(rows), snakemake.output.counts, floats=None)
    write_tsv(pd.DataFrame(audits), snakemake.output.audit)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
