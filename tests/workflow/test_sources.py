"""Every fault of a download with its fate, and every kind of source."""

import csv
import json
import shutil
import zipfile

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

import dirty
from voxplain.cohort.dicom import SeriesHeader, write_series
from voxplain.volumes import axis_aligned_grid, write_array
from workflow.conftest import TINY, read_scans, snakemake

pytestmark = pytest.mark.slow

PERSON = ("Alzheimer", "Auguste", "18500516", "1850-05-16", "Anstalt")

CONFIG = {
    "tasks": [["AD", "NC"]],
    "conversion": {"max_slice_mm": 7, "missing_slices": 1},
    "skull": TINY["skull"],
    "bias_correction": "never",
    "resolution_mm": 4,
}
GRID = axis_aligned_grid((24, 30, 26), (4.8, 4.0, 4.0), (-50.25, -61.5, -40.125))


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


def cut_third(folder, length=-200):
    cut(dirty.slices(folder)[2][0], length)


def only_notes(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "readme.txt").write_text("ask Dr Alzheimer")


def of_other_subject(folder):
    for path, slice_ in dirty.slices(folder):
        slice_.PatientID = "099_S_9999"
        slice_.save_as(path)


def as_nifti(folder, name="ADNI_S1_I1.nii.gz", **header):
    volume = volume_of(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    if name.endswith(".hdr"):
        nib.save(nib.AnalyzeImage(volume.astype(np.int16), np.diag([4.8, 4, 4, 1])), folder / name)
    else:
        write_array(folder / name, volume, GRID, np.uint16)


def with_mirrored_qform(folder):
    as_nifti(folder, "a.nii")
    path = folder / "a.nii"
    image = nib.load(path)
    image.header.set_qform(np.diag([-1, 1, 1, 1]) @ GRID.matrix, 1)
    content = bytearray(path.read_bytes())
    content[:348] = image.header.binaryblock
    path.write_bytes(content)


def with_a_flipped_bit(folder):
    as_nifti(folder, "a.nii.gz")
    path = folder / "a.nii.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def volume_of(folder):
    """A different head for every folder; the same image twice would be a fault as well."""
    seed = int.from_bytes(folder.name.encode(), "big") % 2**32
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=GRID.shape), 2)
    return np.rint(np.interp(noise, (noise.min(), noise.max()), (0, 1500))).astype(np.uint16)


# The change of a scan's folder, and a part of the reported reason; empty if it is not a fault.
FAULTS = {
    "whole": (lambda folder: None, ""),
    "implicit": (dirty.as_implicit, ""),
    "rle": (dirty.as_rle, ""),
    "jpeg2000": (lambda folder: dirty.as_jpeg2000(folder, fragments=2), ""),
    "jpeg lossless": (lambda folder: dirty.as_jpeg_lossless(folder, fragments=3), ""),
    "enhanced": (dirty.as_enhanced, ""),
    "no suffix": (dirty.without_suffix, ""),
    "copies": (dirty.copy_files, ""),
    "junk and a DICOMDIR": (dirty.add_junk, ""),
    "screen shot": (dirty.add_screenshot, ""),
    "localizer": (lambda f: dirty.add_series(f, "localizer", last=5), ""),
    "mosaic": (lambda f: dirty.add_series(f, "rest", ImageType=["ORIGINAL", "MOSAIC"]), ""),
    "reformatted": (lambda f: dirty.add_series(f, "cor", ImageType=["DERIVED", "MPR"]), ""),
    "described": (lambda f: dirty.add_series(f, "MP-RAGE repeat"), ""),
    "one slice missing": (lambda f: dirty.drop_slices(f, 9), ""),
    "nifti": (as_nifti, ""),
    "ambiguous": (
        lambda f: dirty.add_series(f, "MP-RAGE", EchoTime=4),
        "holds 2 series that could be meant",
    ),
    "three slices missing": (lambda f: dirty.drop_slices(f, 9, 12, 13), "3 slices of"),
    "uneven": (
        lambda f: dirty.move_slices(f, lambda n: np.array([1.5 if n > 8 else 0, 0, 0])),
        "are uneven",
    ),
    "tilted": (
        lambda f: dirty.move_slices(f, lambda n: np.array([0, 0, n])),
        "(a tilted gantry)",
    ),
    "thick": (
        lambda f: dirty.move_slices(f, lambda n: np.array([-5 * n, 0, 0])),
        "mm apart, expected at most 7 mm",
    ),
    "functional": (lambda f: spoil(f, ScanningSequence="EP"), "echo-planar"),
    "truncated": (cut_third, "is truncated"),
    "cut in its header": (lambda f: cut_third(f, 600), "DICOM file"),
    "empty": (lambda f: [shutil.rmtree(f), f.mkdir()], "is empty"),
    "two people": (
        lambda f: dirty.change_slices(f, *range(14), PatientID="P1"),
        "are of another person than the others (PatientID differs)",
    ),
    "a turned slice": (
        lambda f: dirty.change_slices(f, 23, ImageOrientationPatient=[0, 1, 0, 0, 0, 1]),
        "differ in orientation (turned by 180.0 degrees",
    ),
    "rounded echo times": (
        lambda f: dirty.change_slices(f, EchoTime=lambda n: 3.5 + 1e-5 * (n % 2)),
        "",
    ),
    "phase images": (
        lambda f: dirty.change_slices(f, 5, ImageType=["ORIGINAL", "PRIMARY", "P", "ND"]),
        "1 of 24 slices",
    ),
    "no directions": (
        lambda f: dirty.change_slices(f, ImageOrientationPatient=[0] * 6),
        "its direction cosines (0, 0, 0, 0, 0, 0)",
    ),
    "mirrored affines": (with_mirrored_qform, "contradict each other: they are mirrored"),
    "a flipped bit": (with_a_flipped_bit, "is damaged"),
    "notes only": (only_notes, "no DICOM image among them"),
    "a web page": (lambda f: (f / "page.dcm").write_text("<html>"), "though its name says so"),
    "another subject": (of_other_subject, "is of subject 099_S_9999"),
    "analyze": (lambda f: as_nifti(f, "a.hdr"), "does not say how it lies"),
    "two volumes": (
        lambda f: [as_nifti(f), write_array(f / "b.nii", volume_of(f), GRID)],
        "holds 2 images",
    ),
}


def spoil(folder, **changes):
    for path, slice_ in dirty.slices(folder):
        for key, value in changes.items():
            setattr(slice_, key, value)
        slice_.save_as(path)


def write(folder, image, description="MP-RAGE", subject="011_S_0001"):
    header = SeriesHeader(subject, "F", 71, "2005-09-12T10:11:12", image, description)
    write_series(folder, volume_of(folder), GRID, header)


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """A scan for each fault, with a table that has further faults."""
    place = tmp_path_factory.mktemp("a download")
    rows = []
    for number, (name, (spoil_it, _)) in enumerate(FAULTS.items(), start=1):
        image, subject = f"I{number}", f"011_S_{number:04d}"
        # (Braces, which are wildcards to Snakemake, and spaces are also in folders' names.)
        folder = place / "ADNI" / subject / f"MP-RAGE {{{name}}}" / "2005-09-12" / image
        write(folder, image, subject=subject)
        dirty.name_person(folder)
        spoil_it(folder)
        rows.append([image, subject, "AD" if number % 2 else "CN", "sc", "MP-RAGE"])
    count = len(rows)
    rows.append([f"I{count + 1}", "011_S_0900", "AD", "sc", "MP-RAGE"])  # no folder
    rows.append(["1x7", "011_S_0901", "AD", "sc", "MP-RAGE"])
    rows.append([f"I{count + 2}", "011_S_0902", "Dementai", "sc", "MP-RAGE"])
    rows.append([f"I{count + 3}", "011_S_0903", "MCI", "sc", "MP-RAGE"])
    rows.append([f"I{count + 4}", "011_S_0904", "AD", "sc", "MP-RAGE"])
    for moment in ("2005", "2006"):  # downloaded twice
        write(place / "ADNI/011_S_0904/x" / moment / f"I{count + 4}", f"I{count + 4}")
    rows.append(rows[0])
    write(place / "ADNI/011_S_0905/x/2005/I99", "I99")  # no row
    with open(place / "scans.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["Image ID", "Subject", "Group", "Visit", "Sequence"], *rows])
    config = {**CONFIG, "cohorts": {"own": {"source": "adni", "table": "scans.csv"}}}
    config["cohorts"]["own"]["images"] = "ADNI"
    run = snakemake(place, "converted", config=config)
    assert run.status == 0, run.said
    return place, run


def fates(place):
    sidecars = {}
    for path in place.glob("results/own/derivatives/**/anat/*_T1w.json"):
        sidecars[path.name.split("_acq-")[1].split("_")[0]] = json.loads(path.read_text())
    return sidecars


@pytest.mark.parametrize("name", FAULTS)
def test_every_scan_is_converted_or_its_fault_reported(download, name):
    place, _ = download
    image = f"I{list(FAULTS).index(name) + 1}"
    sidecar = fates(place)[image]
    reason = FAULTS[name][1]
    (volume,) = place.glob(f"results/own/derivatives/**/*_acq-{image}_T1w.nii.gz")
    if reason:
        assert (sidecar["Fate"]["status"], sidecar["Fate"]["stage"]) == ("failed", "convert")
        assert reason in sidecar["Fate"]["reason"]
        assert sidecar["Fate"]["remedy"]
        assert volume.stat().st_size == 0
        return
    assert "Fate" not in sidecar
    (folder,) = place.glob(f"ADNI/*/*/*/{image}")
    expected = volume_of(folder).astype(float)
    if name == "one slice missing":
        expected[9] = np.rint((expected[8] + expected[10]) / 2)
        assert sidecar["FilledSlices"] == 1
        assert "1 slice was missing" in sidecar["ConversionNote"]
    read = nib.load(volume)
    np.testing.assert_allclose(read.get_fdata(), expected, atol=0.51)
    np.testing.assert_allclose(read.affine, GRID.matrix, atol=1e-3)


def test_no_name_of_a_person_leaves_the_headers(download):
    place, run = download
    texts = [path for top in ("results", "logs") for path in place.glob(f"{top}/**/*")]
    outputs = [run.said, *(path.read_text("latin-1") for path in texts if path.is_file())]
    assert len(outputs) > 100
    assert not [text[:200] for text in outputs for word in PERSON if word in text]


def test_nothing_is_written_outside_the_results(download):
    place, _ = download
    names = {path.name for path in place.iterdir()}
    assert {name for name in names if not name.startswith(("config-", "said-"))} == {
        *("ADNI", "scans.csv", "results", "logs", ".snakemake")
    }


# --- every kind of source, to template space ------------------------------------------------------


@pytest.fixture(scope="module")
def sources(first_run, tmp_path_factory):
    """One scan of the first run as five downloads.

    All are converted; to template space go those that come without a skull. What follows from a
    converted volume is the same for the others.
    """
    place = tmp_path_factory.mktemp("sources")
    scans = read_scans(first_run)
    row = next(row for row in scans.values() if row["group"] == "AD")
    image, subject = row["image"], row["subject"]
    files = first_run / "results/tiny/derivatives"
    (t1w,) = files.glob(f"**/*_acq-{image}_T1w.nii.gz")
    (series,) = first_run.glob(f"results/tiny/source/ADNI/*/*/*/{image}")
    table = f"Image ID,Subject,Group,Visit\n{image},{subject},AD,sc\n"
    (place / "scans.csv").write_text(table)

    packed = place / "packed"
    shutil.copytree(series, packed, ignore=shutil.ignore_patterns(".*"))
    dirty.as_jpeg_lossless(packed)
    dirty.add_junk(packed)
    dirty.add_series(packed, "scout", last=4)
    with zipfile.ZipFile(place / "one.zip", "w") as archive:
        for path in packed.iterdir():
            archive.write(path, f"ADNI/{subject}/MP-RAGE/2005-09-12_10_11_12.0/{image}/{path.name}")
    shutil.rmtree(packed)

    loose = place / "loose"
    loose.mkdir()
    shutil.copy(t1w, loose / f"ADNI_{subject}_MR_MP-RAGE_S1_{image}.nii.gz")

    bids = place / "bids/sub-1/ses-M00/anat"
    bids.mkdir(parents=True)
    shutil.copy(t1w, bids / "sub-1_ses-M00_T1w.nii.gz")
    (bids / "sub-1_ses-M00_T1w.json").write_text('{"MagneticFieldStrength": 1.5}')
    (place / "bids/participants.tsv").write_text("participant_id\tdiagnosis\nsub-1\tAD\n")

    # Names as in fMRIPrep: head and mask in native space; and brains with our names.
    native = place / "native/sub-1/anat"
    native.mkdir(parents=True)
    shutil.copy(t1w, native / "sub-1_desc-preproc_T1w.nii.gz")
    (mask,) = files.glob(f"**/*_acq-{image}_desc-brain_mask.nii.gz")
    shutil.copy(mask, native / "sub-1_desc-brain_mask.nii.gz")

    def cohort(source, **settings):
        return {"source": source, "train": False, **settings}

    cohorts = {
        "zipped": cohort("adni", table="scans.csv", images="one.zip"),
        "loose": cohort("adni", table="scans.csv", images=["loose"]),
        "bids": cohort("bids", images="bids"),
        "native": cohort("bids", images="native", images_are="brains"),
        "again": cohort(
            "bids",
            images=str(files),
            images_are="registered",
            select={"description": image},
        ),
    }
    targets = ["converted", "results/native/scans.tsv", "results/again/scans.tsv"]
    run = snakemake(place, *targets, config={**TINY, "cohorts": cohorts, "max_failed": 0})
    assert run.status == 0, run.said
    return place, first_run, row


def preprocessed(sources, cohort):
    place, first_run, row = sources
    (scan,) = (s for s in read_scans(place, cohort).values() if s["fate"] != "unused")
    assert scan["fate"] == "usable", scan["reason"]
    volumes = (place / "results" / cohort, scan), (first_run / "results/tiny", row)
    return scan, *(nib.load(top / one["preprocessed"]).get_fdata() for top, one in volumes)


@pytest.mark.parametrize("cohort", ["zipped", "loose", "bids"])
def test_a_scan_is_the_same_from_every_kind_of_source(sources, cohort):
    place, first_run, row = sources
    (converted,) = place.glob(f"results/{cohort}/derivatives/**/anat/*_T1w.nii.gz")
    (original,) = first_run.glob(f"results/tiny/derivatives/**/*_acq-{row['image']}_T1w.nii.gz")
    converted, original = nib.load(converted), nib.load(original)
    assert np.array_equal(converted.get_fdata(), original.get_fdata())
    np.testing.assert_allclose(converted.affine, original.affine, atol=1e-5)


def test_a_stripped_and_corrected_head_keeps_its_mask_and_its_intensities(sources):
    scan, volume, original = preprocessed(sources, "native")
    assert (scan["skull_tool"], scan["bias_correction"]) == ("given", "none")
    assert float(scan["brain_volume_ml"]) == pytest.approx(
        float(sources[2]["brain_volume_ml"]), rel=0.01
    )
    assert np.corrcoef(volume.ravel(), original.ravel())[0, 1] > 0.98


def test_a_registered_brain_is_only_resampled(sources):
    scan, volume, original = preprocessed(sources, "again")
    assert scan["skull_tool"] == "given"
    inside = original > 0
    assert np.corrcoef(volume[inside], original[inside])[0, 1] > 0.999
    assert ((volume > 0) != inside).mean() < 0.01
    (sidecar,) = sources[0].glob("results/again/derivatives/**/*_desc-preproc_T1w.json")
    assert json.loads(sidecar.read_text())["RegistrationTransform"] == "identity"
