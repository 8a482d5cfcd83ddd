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


def scans_of(root, images_are="heads", tasks=(("AD", "NC"),), **told):
    rows, places, companions = read_dataset(root, images_are, **told)
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
    told = [
        (s.image, s.subject, s.session, s.group, s.sex, s.age, s.description)
        for s in scans_of(root)
    ]
    assert told == [
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


def test_a_diagnosis_of_a_session_wins_over_that_of_the_participant(dataset):
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


def test_a_users_own_table_of_sessions_serves_too(dataset):
    root = dataset(
        "sub-1/ses-M00/anat/sub-1_ses-M00_T1w.nii.gz",
        "sub-1/ses-M24/anat/sub-1_ses-M24_T1w.nii.gz",
        mine="participant_id session_id dx\n1 M00 MCI\nsub-1 ses-M24 Dementia\n",
    )
    scans = scans_of(root, table=root / "mine.tsv", tasks=None)
    assert [scan.group for scan in scans] == ["MCI", "AD"]


def test_a_participant_without_images_and_images_without_a_line_are_told(dataset):
    root = dataset(
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-2/anat/sub-2_T1w.nii.gz",
        participants="participant_id diagnosis\nsub-1 AD\nsub-3 CN\n",
    )
    first, unknown, without = scans_of(root)
    assert first.fate is None
    assert (unknown.fate.status, unknown.fate.reason) == ("failed", "unknown diagnosis word ''")
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
def test_of_derivatives_those_are_taken_that_are_asked_for(dataset, images_are, file, masked):
    root = dataset(*FMRIPREP, participants="participant_id diagnosis\nsub-1 AD\n")
    (scan,) = scans_of(root, images_are)
    assert scan.place == str(root / FMRIPREP[file])
    assert scan.companions == (() if masked is None else (str(root / FMRIPREP[masked]),))


def test_other_files_are_taken_by_a_pattern(dataset):
    names = [
        f"subjects/sub-1/ses-M00/t1_linear/sub-1_ses-M00_space-MNI152NLin2009cSym_{end}_T1w.nii.gz"
        for end in ("res-1x1x1", "desc-Crop_res-1x1x1")
    ]
    root = dataset(*names, participants="participant_id diagnosis\nsub-1 AD\n")
    (scan,) = scans_of(root, pattern="t1_linear/*_desc-Crop_*_T1w.nii.gz")
    assert scan.place == str(root / names[1])


@pytest.mark.parametrize(
    ("files", "tables", "told"),
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
def test_what_is_no_dataset_is_refused(dataset, files, tables, told):
    root = dataset(*files, **tables)
    with pytest.raises(SetupFault, match=told):
        read_dataset(root, "heads")


def test_a_missing_dataset_is_named_with_the_key_to_set(tmp_path):
    with pytest.raises(SetupFault, match="nowhere does not exist; set the cohort's `images`"):
        read_dataset(tmp_path / "nowhere", "heads")


def test_a_dataset_without_a_diagnosis_serves_to_apply_networks_to(dataset):
    root = dataset("sub-1/anat/sub-1_T1w.nii.gz")
    (scan,) = scans_of(root, tasks=None)
    assert (scan.group, scan.fate) == ("", None)
