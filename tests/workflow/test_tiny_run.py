"""The results of a real run, from DICOM to the report: the only run of the quick tests."""

import csv
import json

import jsonschema
import nibabel as nib
import numpy as np
import pydicom
import pytest
import yaml

from voxplain.cohort.effects import TOLERANCE
from voxplain.cohort.fates import COLUMNS
from voxplain.store import Brain, open_scan
from workflow.conftest import FIRST, ROOT, read_scans, snakemake, traced_jobs

DERIVATIVES = "results/tiny/derivatives"


# The first of these tests makes the run.
pytestmark = pytest.mark.timeout(1800)


def test_the_run_has_pages_and_tables_of_both_methods(first_run):
    for name in ("report", "trust", "viewer"):
        assert (first_run / f"results/{name}.html").stat().st_size > 5_000
    folder = first_run / "results/tiny/AD-NC/rieke/fixed/seed-1"
    with open(folder / "distances.tsv", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    distances = {
        (row["class"], row["method_a"], row["method_b"]): float(row["distance"]) for row in rows
    }
    assert len(distances) == len(rows) == 2 * 2 * 2, "two classes, two methods"
    for (group, one, other), distance in distances.items():
        assert distance == distances[group, other, one]
        assert (distance == 0) == (one == other)
    for method in FIRST["heatmaps"]["methods"]:
        for group in ("AD", "NC"):
            mean = nib.load(folder / method / f"mean_{group}.nii.gz").get_fdata()
            assert np.isfinite(mean).all() and mean.max() > 0


def test_jobs_read_only_declared_files(first_run):
    jobs = traced_jobs(first_run / ".snakemake/trace.jsonl")
    assert len({job["rule"] for job in jobs}) >= 35
    assert not [job for job in jobs if job["undeclared"]]


def test_every_scan_of_the_table_has_a_fate(first_run):
    with open(first_run / "results/tiny/source/scans.csv", newline="") as stream:
        listed = {row["Image Data ID"]: row["Group"] for row in csv.DictReader(stream)}
    scans = read_scans(first_run)
    assert scans.keys() == listed.keys()
    for image, row in scans.items():
        assert row["fate"] == ("unused" if listed[image] == "MCI" else "usable"), row
    assert json.loads((first_run / "results/tiny/quality_gate.json").read_text())["usable"] == 6


def test_the_brains_lie_on_the_template_grid_and_match_it(first_run):
    for row in read_scans(first_run).values():
        if row["fate"] != "usable":
            assert row["preprocessed"] == "n/a"
            continue
        image = nib.load(first_run / "results/tiny" / row["preprocessed"])
        assert image.shape == (49, 58, 49)
        assert np.allclose(image.affine[:3, 3], (-96, -132, -78))
        assert np.allclose(np.diag(image.affine)[:3], 4)
        brain = image.get_fdata()
        assert 0.3 < np.median(brain[brain > 0]) < 1.2
        assert float(row["overlap"]) > 0.95
        assert float(row["similarity"]) > 0.7
        assert 1500 < float(row["brain_volume_ml"]) < 2300


def test_the_brains_are_stored_in_sixteen_bits(first_run):
    template = first_run / "results/template/tpl-MNI152NLin2009cAsym_desc-brain_mask.nii.gz"
    brain = Brain(nib.load(template).get_fdata() > 0)
    stored = sorted(first_run.glob(f"{DERIVATIVES}/sub-*/ses-SC/anat/*desc-preproc_T1w.npy"))
    assert len(stored) == 6
    for path in stored:
        volume = nib.load(path.with_suffix(".nii.gz")).get_fdata()
        scan = open_scan(path, brain)
        np.testing.assert_allclose(scan.values(), volume[brain.mask], atol=1e-4)


def test_sidecars_describe_how_each_scan_was_made(first_run):
    sidecars = list(first_run.glob(f"{DERIVATIVES}/sub-*/ses-SC/anat/*desc-preproc_T1w.json"))
    assert len(sidecars) == 6
    for path in sidecars:
        sidecar = json.loads(path.read_text())
        assert sidecar["SpatialReference"] == "MNI152NLin2009cAsym"
        assert sidecar["ResolutionMm"] == 4
        assert sidecar["RegistrationMethod"] == "syn_quick"
        assert sidecar["RegistrationTransform"] == "antsRegistrationSyNQuick[s]"
        assert sidecar["BiasFieldCorrection"] == "none"
        mask = json.loads(next(path.parent.glob("*_acq-*_desc-brain_mask.json")).read_text())
        assert mask["SkullStrippingTool"] == "deepbet"
        assert mask["SkullStrippingToolVersion"] == "1.0.2"
        assert mask["SkullStrippingOptions"] == {"dilate": 0, "threshold": 0.5}


def test_the_simulated_archive_is_dicom_in_the_archives_tree(first_run):
    series = list(first_run.glob("results/tiny/source/ADNI/*/*/*/*"))
    assert len(series) == 6, "scans of an unused group are not simulated"
    for folder in series:
        ptid, _, moment, image = folder.relative_to(first_run / "results/tiny/source/ADNI").parts
        files = sorted(folder.glob("*.dcm"))
        header = pydicom.dcmread(files[0])
        assert len(files) > 50
        assert header.PatientID == ptid
        assert header.StudyDate == moment[:10].replace("-", "")
        assert all(path.name.endswith(f"_{image}.dcm") for path in files)
        truth = (
            first_run
            / "results/tiny/source/truth"
            / folder.relative_to(first_run / "results/tiny/source/ADNI")
        )
        loss = nib.load(f"{truth}_truth.nii.gz").get_fdata()
        diseased = read_scans(first_run)[image]["group"] == "AD"
        assert (loss.max() > 0.2) if diseased else (loss.max() == 0)
        assert loss.max() <= 0.3 + 1e-6


def test_the_simulation_achieved_the_intended_loss(first_run):
    with open(first_run / "results/tiny/simulation.tsv", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    areas = [row for row in rows if row["part"] == "area"]
    assert len(areas) == 2 * 10, "five areas have two sides each"
    for row in areas:
        intended, achieved = float(row["intended_loss"]), float(row["achieved_loss"])
        if row["group"] == "AD":
            assert 0.24 <= intended <= 0.3
            assert TOLERANCE[0] < achieved / intended < TOLERANCE[1], row
        else:
            assert intended == 0
            assert abs(achieved) < 0.03
    heads = {(row["group"], row["name"]): row["patients"] for row in rows if row["part"] == "head"}
    assert heads == {("AD", "packaged"): "3", ("CN", "packaged"): "3"}
    (volumes,) = [row for row in rows if row["name"] == "volumes"]
    assert volumes["group"] == "AD / CN"
    assert float(volumes["low"]) <= float(volumes["roc_auc"]) <= float(volumes["high"])


def test_a_second_run_has_no_jobs(first_run):
    run = snakemake(first_run, "-n", config=FIRST)
    assert run.status == 0
    assert "Nothing to be done" in run.said


@pytest.mark.slow
def test_the_same_seed_gives_the_same_cohort_and_the_same_brains(first_run, tmp_path):
    """One scan, made and preprocessed again, equals that of the run bit by bit."""
    row = next(
        r for r in read_scans(first_run).values() if r["group"] == "AD" and r["fate"] == "usable"
    )
    target = f"results/tiny/{row['preprocessed']}"
    run = snakemake(tmp_path, target, config=FIRST)
    assert run.status == 0, run.said
    assert run.jobs["simulate_scan"] == 1
    first, second = (nib.load(place / target).get_fdata() for place in (first_run, tmp_path))
    assert np.array_equal(first, second)
    for path in sorted(tmp_path.glob("results/tiny/source/ADNI/*/*/*/*/*.dcm")):
        assert path.read_bytes() == (first_run / path.relative_to(tmp_path)).read_bytes()


def test_the_table_of_scans_follows_its_schema(first_run):
    schema = yaml.safe_load((ROOT / "schemas/scans.schema.yaml").read_text())
    assert tuple(schema["properties"]) == COLUMNS == tuple(schema["required"])
    for row in read_scans(first_run).values():
        jsonschema.validate(row, schema)


@pytest.mark.slow
def test_by_default_a_scan_takes_the_ladder_and_n4(finished):
    row = next(row for row in read_scans(finished).values() if row["fate"] == "usable")
    config = {**FIRST, "skull": {"tool": "deepbet"}, "bias_correction": "auto"}
    run = snakemake(finished, f"results/tiny/{row['preprocessed']}", config=config)
    assert run.status == 0, run.said
    assert run.jobs["strip_skull"] == run.jobs["correct_intensity"] == 1
    folder = (finished / "results/tiny" / row["preprocessed"]).parent
    (mask,) = folder.glob(f"*_acq-{row['image']}_desc-brain_mask.json")
    assert json.loads(mask.read_text())["SkullStrippingTrials"], "each rung was measured"
    (sidecar,) = folder.glob(f"*_acq-{row['image']}_space-*_desc-preproc_T1w.json")
    assert json.loads(sidecar.read_text())["BiasFieldCorrection"] == "N4"
