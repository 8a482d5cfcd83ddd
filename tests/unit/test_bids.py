import os

import pytest

from voxplain.cohort.bids import read_dataset
from voxplain.cohort.scans import list_scans
from voxplain.faults import SetupFault

COLUMNS = {
    "image": "image",
    "subject": "subject",
    "visit": "session",
    "date": "date",
    "description": "description",
}


@pytest.fixture
def dataset(tmp_path):
    """A function that makes a dataset of empty files and of tables."""

    def make(*files, **tables):
        for name in files:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for name, text in tables.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".tsv").write_text(text.replace(" ", "\t"))
        return tmp_path

    return make


def scans_of(root, images_are="heads", tasks=(("AD", "NC"),), **options):
    rows, places, companions = read_dataset(root, images_are, **options)
    table = root / "participants.tsv"
    return list_scans(
        rows, places, tasks, table, COLUMNS, {}, companions=companions, image_ids="labels"
    )


def test_a_dataset_with_sessions_becomes_scans(dataset):
    root = dataset(
        "sub-01/ses-M00/anat/sub-01_ses-M00_T1w.nii.gz",
        "sub-01/ses-M00/anat/sub-01_ses-M00_T1w.json",
        "sub-01/ses-M12/anat/sub-01_ses-M12_run-1_T1w.nii",
        "sub-01/ses-M12/anat/sub-01_ses-M12_T2w.nii.gz",
        "sub-02/ses-M00/anat/sub-02_ses-M00_acq-mprage_T1w.nii.gz",
        participants="participant_id sex age diagnosis\nsub-01 M 71 CN\nsub-02 F 68 AD\n",
    )
    rows = [
        (s.image, s.subject, s.session, s.group, s.sex, s.age, s.description)
        for s in scans_of(root)
    ]
    assert rows == [
        ("sub01sesM00", "01", "M00", "NC", "M", "71", "T1w"),
        ("sub01sesM12run1", "01", "M12", "NC", "M", "71", "run-1 T1w"),
        ("sub02sesM00acqmprage", "02", "M00", "AD", "F", "68", "acq-mprage T1w"),
    ]
    first = scans_of(root)[0]
    assert first.place == str(root / "sub-01/ses-M00/anat/sub-01_ses-M00_T1w.nii.gz")
    assert first.companions == (first.place.replace(".nii.gz", ".json"),)


def test_a_dataset_without_sessions_has_one(dataset):
    root = dataset(
        "sub-a/anat/sub-a_T1w.nii.gz",
        "sub-b/anat/sub-b_T1w.nii.gz",
        participants="participant_id group\nsub-a AD\nsub-b CN\n",
    )
    assert [(s.subject_label, s.session, s.group) for s in scans_of(root)] == [
        ("a", "01", "AD"),
        ("b", "01", "NC"),
    ]


def test_a_sessions_diagnosis_overrides_the_participants(dataset):
    root = dataset(
        "sub-1/ses-M00/anat/sub-1_ses-M00_T1w.nii.gz",
        "sub-1/ses-M24/anat/sub-1_ses-M24_T1w.nii.gz",
        participants="participant_id diagnosis age\nsub-1 CN 70\n",
        **{"sub-1__sub-1_sessions": "session_id diagnosis age\nses-M24 AD 72\n"},
    )
    assert [(s.group, s.age) for s in scans_of(root)] == [("NC", "70"), ("AD", "72")]


def test_the_day_of_a_scan_comes_from_its_sessions_table(dataset):
    line = "anat/sub-1_ses-M00_T1w.nii.gz 2005-09-12T10:11:12"
    root = dataset(
        "sub-1/ses-M00/anat/sub-1_ses-M00_T1w.nii.gz",
        participants="participant_id diagnosis\nsub-1 AD\n",
        **{"sub-1__ses-M00__sub-1_ses-M00_scans": f"filename acq_time\n{line}\n"},
    )
    assert [s.date for s in scans_of(root)] == ["2005-09-12"]


def test_a_users_own_table_of_sessions_is_read(dataset):
    root = dataset(
        "sub-1/ses-M00/anat/sub-1_ses-M00_T1w.nii.gz",
        "sub-1/ses-M24/anat/sub-1_ses-M24_T1w.nii.gz",
        mine="participant_id session_id dx\n1 M00 MCI\nsub-1 ses-M24 Dementia\n",
    )
    scans = scans_of(root, table=root / "mine.tsv", tasks=None)
    assert [scan.group for scan in scans] == ["MCI", "AD"]


def test_a_participant_without_images_and_images_without_a_row_are_reported(dataset):
    root = dataset(
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-2/anat/sub-2_T1w.nii.gz",
        participants="participant_id diagnosis\nsub-1 AD\nsub-3 CN\n",
    )
    first, unknown, without = scans_of(root)
    assert first.fate is None
    assert (unknown.fate.status, unknown.fate.reason) == (
        "failed",
        f"its diagnosis is unknown: {root}/participants.tsv has no line sub-2",
    )
    assert (without.subject, without.fate.status) == ("3", "unused")
    assert "names no image" in without.fate.reason


FMRIPREP = (
    "sub-1/anat/sub-1_desc-preproc_T1w.nii.gz",
    "sub-1/anat/sub-1_desc-brain_mask.nii.gz",
    "sub-1/anat/sub-1_space-MNI152NLin2009cAsym_res-1_desc-preproc_T1w.nii.gz",
    "sub-1/anat/sub-1_space-MNI152NLin2009cAsym_res-1_desc-brain_mask.nii.gz",
    "sub-1/anat/sub-1_space-MNI152NLin6Asym_desc-preproc_T1w.nii.gz",
    "sub-1/anat/sub-1_T1w.nii.gz",
)


@pytest.mark.parametrize(
    ("images_are", "file", "masked"),
    [
        ("heads", 5, None),
        ("brains", 0, 1),
        ("registered", 2, 3),
    ],
)
def test_the_requested_derivatives_are_read(dataset, images_are, file, masked):
    root = dataset(*FMRIPREP, participants="participant_id diagnosis\nsub-1 AD\n")
    (scan,) = scans_of(root, images_are)
    assert scan.place == str(root / FMRIPREP[file])
    assert scan.companions == (() if masked is None else (str(root / FMRIPREP[masked]),))


def test_a_pattern_selects_other_files(dataset):
    names = [
        f"subjects/sub-1/ses-M00/t1_linear/sub-1_ses-M00_space-MNI152NLin2009cSym_{end}_T1w.nii.gz"
        for end in ("res-1x1x1", "desc-Crop_res-1x1x1")
    ]
    root = dataset(*names, participants="participant_id diagnosis\nsub-1 AD\n")
    (scan,) = scans_of(root, pattern="t1_linear/*_desc-Crop_*_T1w.nii.gz")
    assert scan.place == str(root / names[1])


@pytest.mark.parametrize(
    ("files", "tables", "message"),
    [
        ((), {}, "has no image sub-"),
        (("sub-1/anat/sub-1_T1w.nii",), {"participants": "name dx\na AD\n"}, "participant_id"),
        (
            ("sub-1/anat/sub-1_T1w.nii",),
            {"sub-1__sub-1_sessions": "name dx\na AD\n"},
            "no column session_id",
        ),
    ],
)
def test_a_folder_that_is_not_a_dataset_is_refused(dataset, files, tables, message):
    root = dataset(*files, **tables)
    with pytest.raises(SetupFault, match=message):
        read_dataset(root, "heads")


def test_a_missing_dataset_is_named_with_its_parameter(tmp_path):
    with pytest.raises(SetupFault, match=r"root is .*nowhere, a BIDS dataset that does not exist"):
        read_dataset(tmp_path / "nowhere", "heads")


def test_networks_can_be_applied_to_a_dataset_without_diagnoses(dataset):
    root = dataset("sub-1/anat/sub-1_T1w.nii.gz")
    (scan,) = scans_of(root, tasks=None)
    assert (scan.group, scan.fate) == ("", None)


def test_visits_without_an_image_count_for_progression(dataset):
    root = dataset(
        "sub-1/ses-M00/anat/sub-1_ses-M00_T1w.nii.gz",
        "sub-2/ses-M00/anat/sub-2_ses-M00_T1w.nii.gz",
        participants="participant_id sex\nsub-1 F\nsub-2 M\n",
        **{
            "sub-1__sub-1_sessions": "session_id diagnosis\nses-M00 MCI\nses-M24 AD\n",
            "sub-2__sub-2_sessions": "session_id diagnosis\nses-M00 MCI\nses-M48 MCI\n",
        },
    )
    scans = [scan for scan in scans_of(root, tasks=[["pMCI", "sMCI"]]) if scan.place]
    assert [(scan.subject, scan.progression) for scan in scans] == [("1", "pMCI"), ("2", "sMCI")]


def test_a_table_of_visits_without_images_counts_for_progression(dataset):
    root = dataset(
        "sub-1/ses-M00/anat/sub-1_ses-M00_T1w.nii.gz",
        mine="participant_id session_id dx\nsub-1 ses-M00 MCI\nsub-1 ses-M12 AD\n",
    )
    scans = scans_of(root, table=root / "mine.tsv", tasks=[["pMCI"]])
    assert [(s.session, s.progression, bool(s.image)) for s in scans] == [
        ("M00", "pMCI", True),
        ("M12", "", False),
    ]


def test_anatomy_beside_the_folders_of_sessions_is_found(dataset):
    root = dataset(
        "sub-1/anat/sub-1_desc-preproc_T1w.nii.gz",
        "sub-1/ses-1/func/sub-1_ses-1_bold.nii.gz",
        participants="participant_id dx\nsub-1 AD\n",
    )
    assert [(s.session, s.fate) for s in scans_of(root, "brains")] == [("01", None)]


def test_a_broken_link_is_an_image_without_a_file(dataset):
    root = dataset(
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-2/anat/sub-2_T1w.json",
        participants="participant_id dx\nsub-1 AD\nsub-2 AD\n",
    )
    (root / "sub-2/anat/sub-2_T1w.nii.gz").symlink_to("../.git/annex/nothing")
    fates = {scan.subject: scan.fate for scan in scans_of(root)}
    assert fates["1"] is None
    assert (fates["2"].status, fates["2"].stage) == ("failed", "find")


def test_an_empty_cell_overrides_nothing_and_an_empty_table_is_ignored(dataset):
    line = "ses-M00 n/a 72"
    root = dataset(
        "sub-1/ses-M00/anat/sub-1_ses-M00_T1w.nii.gz",
        participants="participant_id diagnosis age\nsub-1 CN 70\n",
        **{
            "sub-1__sub-1_sessions": f"session_id diagnosis age\n{line}\n",
            "sub-1__ses-M00__sub-1_ses-M00_scans": "filename acq_time\n",
        },
    )
    assert [(s.group, s.age) for s in scans_of(root)] == [("NC", "72")]


def test_a_fault_in_a_dataset_is_reported_by_subject_and_session(dataset):
    root = dataset(
        "sub-1/ses-M00/anat/sub-1_ses-M00_T1w.nii.gz",
        "sub-2/ses-M00/anat/sub-2_ses-M00_T1w.nii.gz",
        participants="participant_id diagnosis\nsub-1 what\nsub-2 AD\n",
    )
    remedy = scans_of(root)[0].fate.remedy
    assert "subject 1, session M00" in remedy
    assert "line" not in remedy


@pytest.mark.parametrize("pattern", ["/anat/*_T1w.nii*", "anat//*_T1w.nii*", "a**t/*_T1w.nii*"])
def test_an_odd_pattern_does_not_crash(dataset, pattern):
    root = dataset("sub-1/anat/sub-1_T1w.nii.gz", participants="participant_id dx\nsub-1 AD\n")
    assert len(scans_of(root, pattern=pattern)) == 1


def test_links_to_folders_above_do_not_multiply_images(dataset):
    root = dataset(
        "sub-01/anat/sub-01_T1w.nii.gz", participants="participant_id group\nsub-01 AD\n"
    )
    for number in range(6):
        (root / f"sub-01/anat/up{number}").symlink_to(root / "sub-01", target_is_directory=True)
    rows, places, _ = read_dataset(root, "heads", pattern="*/*/*/*/*/*/*/*/*/*_T1w.nii.gz")
    (paths,) = places.values()
    assert len(rows) == len(paths) == 1


@pytest.mark.parametrize(("folder", "line"), [("01", "1"), ("1", "001"), ("ADNI003", "adni-3")])
def test_a_folder_whose_line_is_spelled_otherwise_is_told_both(dataset, folder, line):
    root = dataset(
        f"sub-{folder}/anat/sub-{folder}_T1w.nii.gz",
        "sub-X/anat/sub-X_T1w.nii.gz",
        participants=f"participant_id diagnosis\nsub-{line} AD\nsub-X CN\n",
    )
    fate = next(scan.fate for scan in scans_of(root) if scan.subject == folder)
    assert fate.status == "failed"
    assert f"participants.tsv has no line sub-{folder}, but sub-{line}" in fate.reason
    assert "diagnosis word" not in fate.reason


def test_a_session_without_a_line_is_told(dataset):
    root = dataset(
        "sub-1/ses-01/anat/sub-1_ses-01_T1w.nii.gz",
        "sub-2/ses-01/anat/sub-2_ses-01_T1w.nii.gz",
        "sub-X/ses-01/anat/sub-X_ses-01_T1w.nii.gz",
        mine="participant_id session_id dx\nsub-1 ses-1 MCI\nsub-2 n/a n/a\nsub-X 01 AD\n",
        **{"sub-2__sub-2_sessions": "session_id age\nses-1 70\n"},
    )
    scans = scans_of(root, table=root / "mine.tsv")
    first, second, third = (scan for scan in scans if scan.image)
    assert "mine.tsv has no line sub-1, ses-01, but ses-1" in first.fate.reason
    assert "sub-2_sessions.tsv has no line ses-01, but ses-1" in second.fate.reason
    assert third.fate is None


def test_an_empty_diagnosis_is_no_missing_line(dataset):
    root = dataset(
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-2/anat/sub-2_T1w.nii.gz",
        participants="participant_id diagnosis\nsub-1 n/a\nsub-2 AD\n",
    )
    first, second = scans_of(root)
    assert (first.fate.status, first.fate.reason) == ("unused", "it has no diagnosis")
    assert second.fate is None


def test_names_that_are_not_utf_8_are_one_scans_fate_and_can_be_written(dataset, tmp_path):
    root = dataset(
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-2/anat/sub-2_T1w.nii.gz",
        participants="participant_id diagnosis\nsub-1 AD\nsub-2 AD\n",
    )
    odd = os.fsdecode(b"sub-M\xfcller")
    (tmp_path / odd / "anat").mkdir(parents=True)
    (tmp_path / odd / "anat" / f"{odd}_T1w.nii.gz").touch()
    (tmp_path / os.fsdecode(b"sub-2/anat/sub-2_run-\xff_T1w.nii.gz")).touch()
    scans = scans_of(root, tasks=None)
    lost = [scan for scan in scans if scan.fate]
    assert [scan.fate.stage for scan in lost] == ["find", "find"]
    assert "sub-2_run-\\xff_T1w.nii.gz is not UTF-8" in lost[0].fate.reason
    assert "sub-M\\xfcller" in lost[1].fate.reason
    assert "\\xfc" in lost[1].subject
    assert len(scans) == 4
    assert repr(scans).encode()
    assert "".join(f"{scan.place}{scan.companions}{scan.description}" for scan in scans).encode()
