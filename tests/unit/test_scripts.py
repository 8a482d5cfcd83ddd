"""Scripts with decisions, tested without Snakemake: `main` is called with records."""

import json
from types import SimpleNamespace

import pytest

import audit_split
import report_splits
from voxplain.cohort.demographics import Person
from voxplain.faults import SetupFault
from voxplain.tables import read_tsv
from voxplain_workflow.records import as_params
from voxplain_workflow.records.splits import SplitFiles, SplitScan

CLASSES = ["AD", "NC"]


def scan(folder, image, patient, group, side, status="usable", tool="deepbet", **fields):
    """A scan of a split, with its file of quality control."""
    quality = folder / f"{image}.json"
    fate = {"status": status, "stage": "quality", "reason": "", "remedy": ""}
    record = {"Fate": fate, "SourceVoxelDataSha256": f"digest of {image}"}
    record["Processing"] = {"SkullStrippingTool": tool}
    quality.write_text(json.dumps(record))
    names = {"image": image, "patient": patient, "group": group, "side": side}
    files = {"volume": f"{image}.npy", "quality": str(quality)}
    return SplitScan(**{**names, "cohort": "", "head": "", **files, **fields})


def four(folder):
    return [
        scan(folder, "I1", "P1", "AD", "train"),
        scan(folder, "I2", "P2", "NC", "train"),
        scan(folder, "I3", "P3", "AD", "test"),
        scan(folder, "I4", "P4", "NC", "test", cohort="other"),
    ]


def audit(folder, scans, failures_left=0):
    """Run the job; returns the table of members and the audit."""
    output = SimpleNamespace(members=folder / "members.tsv", audit=folder / "audit.json")
    audit_split.main(
        SimpleNamespace(
            params=SimpleNamespace(scans=as_params(scans), classes=CLASSES, group_by="patient"),
            wildcards=SimpleNamespace(cohort="adni", split="fixed"),
            resources=SimpleNamespace(failures_left=str(failures_left)),
            output=output,
        )
    )
    return read_tsv(output.members), json.loads(output.audit.read_text())


def test_a_split_lists_its_usable_scans_and_names_the_failed_ones(tmp_path):
    lost = scan(tmp_path, "I5", "P5", "AD", "train", status="excluded")
    members, record = audit(tmp_path, [*four(tmp_path), lost], failures_left=1)
    assert members["image"].tolist() == ["I1", "I2", "I3", "I4"]
    assert members["side"].tolist() == ["train", "train", "test", "test"]
    assert members["cohort"].tolist() == ["adni", "adni", "adni", "other"]
    assert members["path"].tolist() == ["I1.npy", "I2.npy", "I3.npy", "I4.npy"]
    assert record["ScansLeftOut"] == ["I5"]
    assert record["SkullStrippingTool"] == "deepbet"


def test_a_split_with_too_many_failed_scans_is_refused(tmp_path):
    lost = scan(tmp_path, "I5", "P5", "AD", "train", status="failed")
    with pytest.raises(SetupFault, match="1 of the 5 scans of split fixed were lost"):
        audit(tmp_path, [*four(tmp_path), lost])


def test_a_split_of_two_tools_or_with_a_patient_on_both_sides_is_refused(tmp_path):
    with pytest.raises(SetupFault, match="bet and deepbet"):
        audit(tmp_path, [*four(tmp_path), scan(tmp_path, "I5", "P5", "AD", "train", tool="bet")])
    with pytest.raises(SetupFault, match="patient P1 is on both sides"):
        audit(tmp_path, [*four(tmp_path), scan(tmp_path, "I5", "P1", "AD", "test")])


def test_the_splits_of_a_task_are_reported_with_people_and_audit(tmp_path):
    scans = four(tmp_path)
    audit(tmp_path, scans)
    people = [Person(each.cohort or "adni", each.image, 70.0, 1) for each in scans]
    split = SplitFiles("fixed", str(tmp_path / "members.tsv"), str(tmp_path / "audit.json"))
    output = {name: tmp_path / f"{name}.tsv" for name in ("splits", "counts", "audit")}
    params = {"splits": as_params([split]), "people": as_params(people), "classes": CLASSES}
    report_splits.main(
        SimpleNamespace(params=SimpleNamespace(**params), output=SimpleNamespace(**output))
    )
    assert read_tsv(output["splits"])["split"].tolist() == ["fixed"] * 4
    counts = read_tsv(output["counts"]).set_index(["side", "class"])
    assert counts.loc[("train", "AD"), "male"] == 1
    assert counts.loc[("test", "NC"), "age_mean"] == 70
    (row,) = read_tsv(output["audit"]).to_dict("records")
    assert (row["split"], row["scans_left_out"]) == ("fixed", "none")
