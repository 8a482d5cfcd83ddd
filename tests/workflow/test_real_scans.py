"""Real open scans, if they are in the folder beside the repository."""

import os
import shutil

import nibabel as nib
import pytest

from voxplain.anatomy.template import make_template
from workflow.conftest import ROOT, read_scans, snakemake

SHARED = ROOT.parent / "shared/data"

# PTID, series description and image id of each scan in the archive's tree.
SCANS = {
    "dicom/studyforrest": ("001_S_0001", "anat-T1w", "I1"),
    "dicom/sag-anon": ("002_S_0002", "SAG_MPRAGE", "I2"),
    "dicom/xa30/5_anat-T1w_acq-tfl": ("003_S_0003", "anat-T1w_acq-tfl", "I3"),
    "dicom/xa30/6_anat-T1w_acq-tfl": ("003_S_0003", "anat-T1w_acq-tfl", "I4"),
    "heads/ds000240.nii.gz": ("004_S_0004", "T1w", "I5"),
    "heads/pycortexS1.nii.gz": ("005_S_0005", "T1w", "I6"),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.shared_data,
    pytest.mark.skipif(
        not SHARED.is_dir(), reason="the folder shared/data with the open real scans is not here"
    ),
]


def lay_out(place):
    """Link the scans into the archive's tree, and write its table."""
    rows = ["Image Data ID,Subject,Group,Sex,Age,Visit,Modality,Description,Type,Acq Date,Format"]
    for minute, (path, (ptid, description, image)) in enumerate(SCANS.items()):
        moment = place / "ADNI" / ptid / description / f"2010-01-02_10_{minute:02d}_00.0"
        moment.mkdir(parents=True)
        source = SHARED / path
        if source.is_dir():
            os.symlink(source, moment / image)
        else:
            (moment / image).mkdir()
            os.symlink(source, moment / image / source.name)
        visit = "ADNI Screening" if image != "I4" else "ADNI1/GO Month 6"
        rows.append(f"{image},{ptid},CN,F,40,{visit},MRI,{description},Original,1/2/2010,DCM")
    (place / "scans.csv").write_text("\n".join(rows) + "\n")


def test_real_scans_go_from_the_archives_tree_to_template_space(tmp_path):
    lay_out(tmp_path)
    config = {
        "cohorts": {"real": {"source": "adni", "table": "scans.csv", "images": "ADNI"}},
        "tasks": [["NC"]],
        "resolution_mm": 2,
        "skull": {"tool": "deepbet"},
    }
    run = snakemake(tmp_path, config=config)
    assert run.status == 0, run.said
    scans = read_scans(tmp_path, "real")
    assert {image: row["fate"] for image, row in scans.items()} == dict.fromkeys(scans, "usable")
    _, _, grid = make_template("packaged", 2)
    # Volumes of a child's and of adults' brains; the masks were checked by eye for these bounds.
    volumes = {image: float(row["brain_volume_ml"]) for image, row in scans.items()}
    bounds = {"I1": (1700, 1880), "I2": (1390, 1540), "I5": (1420, 1570), "I6": (1520, 1690)}
    for image, (least, most) in {**bounds, "I3": (1490, 1660), "I4": (1490, 1660)}.items():
        assert least < volumes[image] < most, (image, volumes[image])
    for image, row in scans.items():
        assert float(row["overlap"]) > 0.96, (image, row["overlap"])
        assert float(row["similarity"]) > 0.65, (image, row["similarity"])
        registered = nib.load(tmp_path / "results/real" / row["preprocessed"])
        assert registered.shape == grid.shape == (97, 115, 97)
    # Two series of one session of one head must give similar brains.
    assert abs(volumes["I3"] - volumes["I4"]) < 30

    # A series and a head as a BIDS dataset.
    table = ["participant_id\tsex\tage\tgroup"]
    for image in ("I1", "I5"):
        folder = tmp_path / f"bids/sub-{image}/anat"
        folder.mkdir(parents=True)
        (volume,) = tmp_path.glob(f"results/real/derivatives/**/*_acq-{image}_T1w.nii.gz")
        shutil.copy(volume, folder / f"sub-{image}_T1w.nii.gz")
        table.append(f"sub-{image}\tF\t40\tCN")
    (tmp_path / "bids/participants.tsv").write_text("\n".join(table) + "\n")
    config["cohorts"] = {"dataset": {"source": "bids", "images": "bids"}}
    run = snakemake(tmp_path, config=config | {"resolution_mm": 4, "bias_correction": "never"})
    assert run.status == 0, run.said
    rows = read_scans(tmp_path, "dataset").values()
    assert len(rows) == 2
    for row in rows:
        assert row["fate"] == "usable", row["reason"]
        again = float(row["brain_volume_ml"])
        assert again == pytest.approx(volumes[row["subject"]], rel=1e-6)


def test_a_cohort_is_simulated_from_a_users_own_head(tmp_path):
    config = {
        "cohorts": {
            "own": {
                "source": "simulated",
                "simulation": {
                    "groups": {"AD": {"patients": 1, "severity": [1, 1]}},
                    "visits": {"sc": 1},
                    "scanner": {"voxel_size_mm": [2, 2]},
                    "heads": [str(SHARED / "heads/ds000240.nii.gz")],
                },
            }
        },
        "tasks": [["AD"]],
        "resolution_mm": 4,
        "skull": {"tool": "deepbet"},
    }
    run = snakemake(tmp_path, config=config)
    assert run.status == 0, run.said
    assert run.jobs["register_head"] == 1
    (row,) = read_scans(tmp_path, "own").values()
    assert row["fate"] == "usable"
    assert float(row["overlap"]) > 0.95
    truth = next(tmp_path.glob("results/own/source/truth/**/*_truth.nii.gz"))
    loss = nib.load(truth).get_fdata()
    # The default areas hold some 160 ml; at full severity the truth covers much of that.
    volume = (loss > 0.1).sum() * abs(nib.load(truth).affine[0, 0]) * 2 * 2 / 1000
    assert 60 < volume < 250
