"""The predictions of a run, read as they were written."""

from voxplain_workflow.jobs.predictions import read_predictions

ROWS = "image\tpatient\tclass\tpredicted\tprobability_AD\tprobability_NC\n"


def test_no_name_is_taken_for_a_missing_value(tmp_path):
    """A patient called null, and a baseline's splits told apart."""
    (tmp_path / "network.tsv").write_text(f"{ROWS}001\tnull\tAD\tNC\t0.25\t0.75\n")
    header, row = ROWS.rstrip(), "NA\t007\tNC\tNC\t0.5\t0.5"
    text = f"split\t{header}\timputed\n"
    text += "".join(f"{split}\t{row}\t0\n" for split in ("fixed", "external-null"))
    (tmp_path / "baseline.tsv").write_text(text)
    told = {"cohort": "a", "task": "AD-NC", "classes": ["AD", "NC"], "model": "rieke"}
    network = {**told, "tested_on": "a", "split": "fixed", "seed": 3}
    network["predictions"] = tmp_path / "network.tsv"
    baseline = {**told, "model": "age", "tested_on": {"fixed": "a", "external-null": "null"}}
    baseline["predictions"] = tmp_path / "baseline.tsv"
    one, two, three = read_predictions([network], [baseline])
    assert (one.kind, one.seed, one.predictions["patient"].tolist()) == ("network", 3, ["null"])
    assert one.predictions["image"].tolist() == ["001"]
    assert [(p.kind, p.split, p.tested_on, p.seed) for p in (two, three)] == [
        ("baseline", "fixed", "a", 0),
        ("baseline", "external-null", "null", 0),
    ]
    assert three.predictions["image"].tolist() == ["NA"]
    assert "split" not in three.predictions
