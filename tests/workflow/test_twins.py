"""Healthy twins are made by the same rules as scans, compared with theirs, and never counted."""

import json
import re
import shutil
from collections import Counter

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn import metrics

from voxplain.cohort.twins import image_of_twin, twin_image
from voxplain_workflow.running.estimate import SCAN_CHAIN
from workflow.conftest import FIRST, TINY, snakemake
from workflow.plans import jobs_of

FIXED = "results/tiny/AD-NC/rieke/fixed/seed-1"
TWIN_CHAIN = [rule for rule in SCAN_CHAIN if rule != "draw_quality"]
RESIDUAL = {"localisation": {"residual": True}}


def table(path):
    return pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)


def volume_of(directory, image, name):
    (path,) = (directory / "results/tiny/derivatives").rglob(f"*_acq-{image}_*{name}.nii.gz")
    return path, nib.load(path).get_fdata()


@pytest.mark.slow
def test_a_twin_gives_the_residual_of_its_scans_atrophy(finished):
    splits = table(finished / "results/tiny/AD-NC/splits.tsv")
    tested = splits[(splits["split"] == "fixed") & (splits["side"] == "test")]
    (image,) = tested[tested["class"] == "AD"]["image"]
    height = plt.imread(finished / f"{FIXED}/truth.png").shape[0]
    before = (finished / "results/tiny/scans.tsv").read_text()
    config = {**FIRST, **RESIDUAL, "heatmaps": {"methods": ["sensitivity"]}}
    targets = [f"{FIXED}/localisation.tsv", f"{FIXED}/truth.png", "results/tiny/scans.tsv"]
    run = snakemake(finished, *targets, config=config)
    assert run.status == 0, run.said
    assert {run.jobs[rule] for rule in (*TWIN_CHAIN, "measure_residual")} == {1}
    assert "draw_quality" not in run.rules, "a twin has no picture of quality control"
    assert not {"train_network", "explain_scans", "audit_split"} & run.rules

    # The difference of the network's inputs, inside the template's brain.
    _, mask = volume_of_template(finished)
    _, scan = volume_of(finished, image, "desc-preproc_T1w")
    _, twin = volume_of(finished, twin_image(image), "desc-preproc_T1w")
    path, left = volume_of(finished, image, "desc-residual_T1w")
    np.testing.assert_allclose(left, np.where(mask, abs(scan - twin), 0), atol=1e-6)
    _, truth = volume_of(finished, image, "desc-truth_probseg")
    assert left[truth > 0.1].mean() > 1.5 * left[mask & (truth < 0.01)].mean()
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["HealthyTwin"] == twin_image(image)
    assert sidecar["IntensityScaleMethod"] == "percentile"

    # The twin is in no list of scans.
    for name in ("source/scans.csv", "scans.tsv", "AD-NC/splits.tsv", "quality_gate.json"):
        assert twin_image(image) not in (finished / "results/tiny" / name).read_text()
    assert (finished / "results/tiny/scans.tsv").read_text() == before

    scores = table(finished / f"{FIXED}/localisation.tsv")
    assert list(scores["region"].unique())[:3] == ["truth", "residual", "cortex"]
    rows = scores[(scores["region"] == "residual") & (scores["measure"] == "average_precision")]
    assert set(rows["method"]) == {"sensitivity", "group_difference"}
    (row,) = rows[(rows["method"] == "sensitivity") & (rows["smoothing_mm"] == 0)].to_dict(
        "records"
    )
    (heatmap,) = (finished / f"{FIXED}/sensitivity/scans").rglob(f"*{image}*.nii.gz")
    values = nib.load(heatmap).get_fdata()[mask]
    expected = metrics.average_precision_score(left[mask] > 0.05, values)
    assert row["mean"] == pytest.approx(expected, rel=1e-4)
    assert row["chance"] == pytest.approx((left[mask] > 0.05).mean(), rel=1e-4)
    # Now rows for truth, residual and one method; before, for truth and two methods.
    assert abs(plt.imread(finished / f"{FIXED}/truth.png").shape[0] / height - 1) < 0.1

    # If a twin fails, its scan is kept, without a residual and with the reason.
    (quality,) = path.parent.glob(f"*_acq-{twin_image(image)}_desc-quality_T1w.json")
    shutil.rmtree(finished / "results/.digests")  # else the changed file counts as damaged
    fate = {"status": "excluded", "stage": "quality", "reason": "overlap is 0.5", "remedy": "look"}
    quality.write_text(json.dumps({**json.loads(quality.read_text()), "Fate": fate}))
    run = snakemake(finished, str(path.relative_to(finished)), config=config)
    assert run.status == 0, run.said
    assert run.rules == {"measure_residual"}
    assert path.stat().st_size == 0
    assert "Cohort tiny: of 1 scans no residual could be measured" in run.said
    log = (finished / f"logs/measure_residual/tiny/{path.name.split('_space')[0]}.log").read_text()
    assert f"its healthy twin {twin_image(image)} was excluded in quality: overlap is 0.5" in log


def volume_of_template(directory):
    (path,) = directory.glob("results/template/*desc-brain_mask.nii.gz")
    return path, nib.load(path).get_fdata() > 0


@pytest.mark.parametrize(
    ("change", "twins"),
    [
        ({}, 1),
        ({"heatmaps": {"methods": ["sensitivity"], "splits": "folds"}}, 3),
        ({"keep_intermediates": False}, 1),
        ({"registration": {"transform": "affine"}}, 1),
        ({"tasks": [["AD"]]}, 0),
    ],
)
def test_only_explained_diseased_scans_have_a_twin(change, twins):
    jobs = Counter(job["rule"] for job in jobs_of({**TINY, **RESIDUAL, **change}))
    scans = 6 if "tasks" not in change else 3
    assert jobs["measure_residual"] == twins
    assert {jobs[rule] for rule in TWIN_CHAIN} == {scans + twins}
    assert jobs["carry_truth"] == 3, "a twin has no truth"


def test_a_batch_takes_scans_with_their_twins(tmp_path):
    config = {**TINY, **RESIDUAL, "heatmaps": {"methods": ["sensitivity"], "splits": "folds"}}
    run = snakemake(tmp_path, "-n", "preprocessed", "--batch", "collect_scans=1/2", config=config)
    assert run.status == 0, run.said
    assert "collect_scans" not in run.rules
    assessed = re.findall(
        r"^rule assess_quality:\n(?: +.*\n)*? +wildcards: .*image=(I\d+)$", run.said, re.M
    )
    twins = {image for image in assessed if re.fullmatch(r"I9\d{7,}", image)}
    scans = set(assessed) - twins
    assert 0 < len(twins) < 3 and len(scans) < 6
    assert {image_of_twin(image) for image in twins} <= scans
