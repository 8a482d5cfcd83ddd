import csv
import datetime
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.cohort.scan import class_in
from voxplain.cohort.scans import COLUMN_NAMES, find_columns, list_scans
from voxplain.cohort.selection import EVERYTHING
from voxplain.cohort.tables import read_table
from voxplain.cohort.trees import find_images
from voxplain.cohort.words import plain
from voxplain.faults import SetupFault

COLUMNS = ("Image ID", "Subject", "Group", "Visit", "Acq Date", "Description")


def row(image="I1", subject="011_S_0003", group="AD", visit="sc", date="", description="MPR"):
    return dict(zip(COLUMNS, (image, subject, group, visit, date, description), strict=True))


def scans_of(rows, tasks=(("AD", "NC"),), folders=None, columns=None, words=None, **progression):
    """The scans of a table all of whose images were downloaded."""
    if folders is None:
        folders = {f"I{r['Image ID'].lstrip('ID')}": [f"/data/{r['Image ID']}"] for r in rows}
    return list_scans(rows, folders, tasks, "scans.csv", columns or {}, words or {}, **progression)


def only(rows, **more):
    """The one scan of the rows that is in question, beside a good one that lets the list pass."""
    return scans_of([*rows, row(image="I999", subject="999_S_0999")], **more)[0]


# --- the forms a table comes in -------------------------------------------------------------------

SEARCH_EXPORT = """\
"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type","Acq Date",\
"Format","Downloaded"
"I32237","011_S_0003","AD","M","81","ADNI Screening","MRI","MPR; GradWarp; B1 Correction; N3; \
Scaled","Processed","9/01/2005","DCM","1/02/2019"
"I59692","011_S_0003","AD","M","82","ADNI1/GO Month 12","MRI","MPR; GradWarp","Processed",\
"9/12/2006","DCM","1/02/2019"
"I31585","011_S_0005","CN","M","74","ADNI Baseline","MRI","MPR","Processed","9/2/2005","DCM",""
"""
VISIT_LIST = """\
PTID,Exam Date,Image ID,Visit,Month,Diagnosis
011_S_0003,2005-09-01,32237,sc,0,Dementia
011_S_0003,2006-09-12,59692,m12,12,Dementia
011_S_0005,2005-09-02,31585,bl,0,Normal
"""
PUBLISHED_LIST = """\
RID,PTID,VISCODE,DX,EXAMDATE,Image.ID,Scan.Date,Sequence,Visit,Month_bl,Screen.Diagnosis,Study.ID,Series.ID
3,011_S_0003,sc,Dementia,2005-09-01,32237,9/1/2005,MPR; GradWarp,1,0,AD,5136,13892
3,011_S_0003,m12,Dementia,2006-09-12,59692,9/12/2006,MPR; GradWarp,4,12,AD,16169,23075
5,011_S_0005,bl,CN,2005-09-02,31585,9/2/2005,MPR; GradWarp,1,0,CN,5138,13893
"""
FORMS = {"search export": SEARCH_EXPORT, "visit list": VISIT_LIST, "published": PUBLISHED_LIST}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_every_known_form_of_a_table_gives_the_same_scans(tmp_path, text):
    path = tmp_path / "scans.csv"
    path.write_text(text)
    folders = {image: [f"/data/{image}"] for image in ("I32237", "I59692", "I31585")}
    scans = list_scans(read_table(path), folders, [["AD", "NC"]], path, {}, {})
    told = [(s.image, s.subject, s.session, s.date, s.group, s.place) for s in scans]
    assert told == [
        ("I32237", "011_S_0003", "SC", "2005-09-01", "AD", "/data/I32237"),
        ("I59692", "011_S_0003", "M12", "2006-09-12", "AD", "/data/I59692"),
        ("I31585", "011_S_0005", "BL", "2005-09-02", "NC", "/data/I31585"),
    ]
    assert [scan.row for scan in scans] == [2, 3, 4]
    assert [scan.fate for scan in scans] == [None, None, None]


def test_the_search_export_gives_sex_age_visit_and_description_too(tmp_path):
    path = tmp_path / "scans.csv"
    path.write_text(SEARCH_EXPORT)
    scan = list_scans(read_table(path), {"I32237": "x"}, [["AD"]], path, {}, {})[0]
    assert (scan.sex, scan.age, scan.visit) == ("M", "81", "ADNI Screening")
    assert scan.description == "MPR; GradWarp; B1 Correction; N3; Scaled"
    assert scan.subject_label == "011S0003"


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_commas_tabs_and_semicolons_with_or_without_byte_order_mark_read_alike(
    tmp_path, delimiter, encoding, newline
):
    rows = list(csv.reader(io.StringIO(VISIT_LIST)))
    rows[0][0] = f" {rows[0][0]} "  # spaces around a name do not count
    text = newline.join(delimiter.join(cells) for cells in rows)
    path = tmp_path / "scans.txt"
    path.write_bytes(text.encode(encoding))
    assert read_table(path) == list(csv.DictReader(io.StringIO(VISIT_LIST)))


def test_a_cell_with_delimiter_in_quotes_is_one_cell(tmp_path):
    path = tmp_path / "scans.csv"
    path.write_text('Image ID,Description\nI1,"MPR, repeat; ""N3"""\n')
    assert read_table(path) == [{"Image ID": "I1", "Description": 'MPR, repeat; "N3"'}]


def test_a_row_shorter_or_longer_than_the_header_is_kept(tmp_path):
    path = tmp_path / "scans.csv"
    path.write_text("Image ID,Subject\nI1\nI2,b,c,d\n")
    assert read_table(path) == [
        {"Image ID": "I1", "Subject": ""},
        {"Image ID": "I2", "Subject": "b"},
    ]


def test_a_missing_table_is_named_with_its_parameter(tmp_path):
    with pytest.raises(SetupFault, match=r"table is .*absent\.csv, which does not exist"):
        read_table(tmp_path / "absent.csv")


def test_a_table_that_is_no_text_is_refused_by_name(tmp_path):
    path = tmp_path / "scans.xlsx"
    path.write_bytes(b"PK\x03\x04\xff\xfe\x00")
    with pytest.raises(SetupFault, match=r"scans\.xlsx cannot be read as text .* save it as CSV"):
        read_table(path)


@pytest.mark.parametrize("text", ["", "Image ID,Subject,Group,Visit\n"])
def test_a_table_without_rows_is_refused_by_name(tmp_path, text):
    path = tmp_path / "scans.csv"
    path.write_text(text)
    with pytest.raises(SetupFault, match=r"scans\.csv has no rows"):
        read_table(path)


# --- columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", COLUMN_NAMES)
def test_a_column_is_known_by_each_of_its_names_whatever_their_case_and_punctuation(key):
    others = {"image": "Image ID", "subject": "Subject", "diagnosis": "DX", "visit": "VISCODE"}
    others.pop(key, None)
    for name in COLUMN_NAMES[key]:
        for spelt in (name, name.upper(), name.lower().replace(" ", "_")):
            assert find_columns([*others.values(), spelt], {}, "t.csv")[key] == spelt


def test_the_code_of_a_visit_wins_over_its_number():
    header = ["Image.ID", "PTID", "DX", "Visit", "VISCODE"]
    assert find_columns(header, {}, "t.csv")["visit"] == "VISCODE"


@pytest.mark.parametrize(
    ("key", "name"), [("image", "Image ID"), ("subject", "Subject"), ("diagnosis", "Group")]
)
def test_a_missing_column_is_told_with_table_known_names_and_cure(key, name):
    header = [column for column in COLUMNS if column != name]
    with pytest.raises(SetupFault) as fault:
        find_columns(header, {}, "my/scans.csv")
    told = str(fault.value)
    assert "my/scans.csv" in told and "\n" not in told
    assert f"lacks a column for {key}" in told
    assert all(repr(known) in told for known in COLUMN_NAMES[key])
    assert all(column in told for column in header)
    assert "Rename the column, or name it in `columns`" in told


def test_a_table_needs_a_visit_or_a_date_but_not_both():
    needed = ["Image ID", "Subject", "Group"]
    with pytest.raises(SetupFault, match="visit or date"):
        find_columns(needed, {}, "t.csv")
    assert "date" not in find_columns([*needed, "Visit"], {}, "t.csv")
    assert "visit" not in find_columns([*needed, "Acq Date"], {}, "t.csv")


def test_a_column_that_the_user_names_is_taken_even_beside_a_known_name():
    header = ["Scan", "PTID", "Label at visit", "DX", "VISCODE"]
    chosen = {"image": "Scan", "diagnosis": "Label at visit"}
    found = find_columns(header, chosen, "t.csv")
    assert (found["image"], found["diagnosis"]) == ("Scan", "Label at visit")


def test_scans_are_read_from_the_columns_that_the_user_names():
    rows = [{"Scan": "77", "Who": "001_S_0001", "State": "CN", "Code": "m06"}]
    columns = {"image": "Scan", "subject": "Who", "diagnosis": "State", "visit": "Code"}
    (scan,) = list_scans(rows, {"I77": "f"}, [["NC"]], "t.csv", columns, {})
    assert (scan.image, scan.subject, scan.group, scan.session) == (
        "I77",
        "001_S_0001",
        "NC",
        "M06",
    )


def test_a_typing_error_in_a_column_name_gets_a_hint():
    with pytest.raises(SetupFault) as fault:
        find_columns(COLUMNS, {"diagnosis": "Groop"}, "t.csv")
    assert str(fault.value) == (
        "scan table t.csv has no column 'Groop' (diagnosis); did you mean 'Group'?"
    )


def test_a_column_name_that_resembles_none_gets_the_list():
    with pytest.raises(SetupFault) as fault:
        find_columns(COLUMNS, {"diagnosis": "xyz"}, "t.csv")
    assert "'xyz'" in str(fault.value)
    assert all(column in str(fault.value) for column in COLUMNS)


# --- cells ----------------------------------------------------------------------------------------


@given(number=st.integers(0, 10**7), prefix=st.sampled_from(["", "I", "i", "D"]))
def test_an_image_id_stands_with_or_without_its_letter(number, prefix):
    rows = [row(image=f"{prefix}{number}")]
    assert scans_of(rows, folders={f"I{number}": ["f"]})[0].image == f"I{number}"


@pytest.mark.parametrize("image", ["I", "I12a", "S123", "12.0", "I 12"])
def test_an_image_id_that_cannot_be_read_fails_the_scan_naming_it(image):
    fate = only([row(image=image)]).fate
    assert (fate.status, fate.stage) == ("failed", "table")
    assert f"image id {image!r}" in fate.reason
    assert fate.remedy == "correct line 2 of scans.csv"


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2005-09-12", "2005-09-12"),
        ("9/12/2005", "2005-09-12"),
        ("09/02/2005", "2005-09-02"),
        ("9/12/05", "2005-09-12"),
        ("2005/09/12", "2005-09-12"),
        ("20050912", "2005-09-12"),
        ("2005-09-12 00:00:00.0", "2005-09-12"),
        ("", ""),
    ],
)
def test_a_date_comes_in_any_of_its_forms(text, date):
    assert only([row(date=text)]).date == date


@given(day=st.dates(datetime.date(1990, 1, 1), datetime.date(2050, 12, 31)))
def test_both_usual_forms_of_a_date_mean_the_same_day(day):
    american = f"{day.month}/{day.day}/{day.year}"
    scans = scans_of([row(image="I1", date=day.isoformat()), row(image="I2", date=american)])
    assert [scan.date for scan in scans] == [day.isoformat()] * 2


@pytest.mark.parametrize("date", ["13/45/2005", "12 Sep 2005", "2005-13-01", "unknown"])
def test_a_date_that_cannot_be_read_fails_the_scan_naming_it(date):
    fate = only([row(date=date)]).fate
    assert fate.status == "failed"
    assert f"date {date!r} is neither 2005-09-12 nor 9/12/2005" in fate.reason


@pytest.mark.parametrize(
    ("word", "group"),
    [
        ("AD", "AD"),
        ("Dementia", "AD"),
        ("dementia", "AD"),
        ("NC", "NC"),
        ("CN", "NC"),
        ("NL", "NC"),
        ("Normal", "NC"),
        ("MCI", "MCI"),
        ("EMCI", "EMCI"),
        ("LMCI", "LMCI"),
        ("SMC", "SMC"),
    ],
)
def test_a_diagnosis_word_means_its_group_and_stays_as_it_was(word, group):
    scan = only([row(group=word)])
    assert (scan.group, scan.diagnosis) == (group, word)


def test_an_unknown_diagnosis_word_fails_the_scan_naming_word_line_and_cure():
    fate = only([row(group="Patient")]).fate
    assert (fate.status, fate.stage) == ("failed", "table")
    assert fate.reason == "unknown diagnosis word 'Patient'"
    assert "line 2 of scans.csv" in fate.remedy
    assert "`diagnosis_words`" in fate.remedy


def test_a_diagnosis_word_of_the_users_own_is_known_whatever_its_case():
    scan = only([row(group="ALZHEIMER")], words={"AD": ["Alzheimer"]})
    assert scan.fate is None
    assert scan.group == "AD"


@pytest.mark.parametrize(
    ("visit", "session"),
    [
        ("sc", "SC"),
        ("SC", "SC"),
        ("ADNI Screening", "SC"),
        ("bl", "BL"),
        ("ADNI Baseline", "BL"),
        ("m06", "M06"),
        ("m6", "M06"),
        ("M12", "M12"),
        ("m120", "M120"),
        ("m00", "M00"),
        ("ADNI1/GO Month 12", "M12"),
        ("ADNI1/GO Month 6", "M06"),
        ("ADNI2 Year 1 Visit", "ADNI2Year1Visit"),
        ("", "20050912"),
        ("--", "20050912"),
    ],
)
def test_a_visit_becomes_a_session_label(visit, session):
    assert only([row(visit=visit, date="9/12/2005")]).session == session


@pytest.mark.slow
@given(visit=st.text(max_size=20))
def test_a_session_label_has_letters_and_digits_only(visit):
    session = only([row(visit=visit, date="9/12/2005")]).session
    assert session.isascii() and session.isalnum()


def test_a_row_with_several_problems_tells_them_all():
    fate = only([row(image="x", subject="-", group="?", visit="", date="")]).fate
    for told in ("image id 'x'", "subject is empty", "neither visit nor date", "word '?'"):
        assert told in fate.reason
    assert "\n" not in fate.reason + fate.remedy


# --- fates ----------------------------------------------------------------------------------------


def test_a_group_that_does_not_take_part_is_unused_whether_or_not_it_was_downloaded():
    rows = [row(image="I1", group="MCI"), row(image="I2", group="AD")]
    scan = scans_of(rows, folders={"I2": ["f"]})[0]
    assert (scan.fate.status, scan.fate.stage) == ("unused", "table")
    assert "MCI" in scan.fate.reason and "AD, NC" in scan.fate.reason


def test_a_group_that_takes_part_is_processed():
    scans = scans_of([row(image="I1", group="MCI"), row(image="I2")], tasks=[["MCI", "AD"]])
    assert [scan.fate for scan in scans] == [None, None]


def test_an_image_without_folder_fails_naming_image_subject_and_cure():
    rows = [row(image="I1"), row(image="I2", subject="022_S_0007")]
    scan = scans_of(rows, folders={"I1": ["f"]})[1]
    assert (scan.fate.status, scan.fate.stage) == ("failed", "find")
    assert scan.fate.reason == "image id I2 of subject 022_S_0007 has no folder"
    assert "download" in scan.fate.remedy
    assert scan.place == ""


def test_rows_that_say_the_same_of_an_image_count_once():
    first, second = scans_of([row(image="I7", group="CN"), row(image="7", group="Normal")])
    assert first.fate is None
    assert (second.fate.status, second.fate.stage) == ("duplicate", "table")
    assert "line 2 of scans.csv" in second.fate.reason


@pytest.mark.parametrize(
    "other",
    [{"group": "CN"}, {"subject": "022_S_0007"}, {"visit": "m12"}],
    ids=lambda other: next(iter(other)),
)
def test_rows_that_say_different_things_of_an_image_all_fail(other):
    *both, good = scans_of([row(image="I7"), row(image="I7", **other), row(image="I8")])
    for scan in both:
        assert (scan.fate.status, scan.fate.stage) == ("failed", "table")
        assert "lines 2, 3 of scans.csv" in scan.fate.reason
        assert "I7" in scan.fate.reason
    assert good.fate is None


def test_rows_that_spell_the_subject_of_an_image_in_two_ways_say_the_same():
    first, second = scans_of([row(image="I7"), row(image="I7", subject="011s0003")])
    assert (first.fate, second.fate.status) == (None, "duplicate")


def test_subjects_that_differ_only_in_where_a_separator_stands_fail_by_name():
    subjects = ["1-11", "11-1", "111", "1-11", "1-12", "11-3"]
    scans = scans_of([row(f"I{n}", subject=subject) for n, subject in enumerate(subjects)])
    for scan in scans[:4]:
        assert (scan.fate.status, scan.fate.stage) == ("failed", "table")
        assert "subjects '1-11', '11-1', '111' may be one patient or several" in scan.fate.reason
        assert "scans.csv" in scan.fate.remedy
    assert [scan.fate for scan in scans[4:]] == [None, None]


def test_subjects_whose_separators_contradict_each_other_are_two_patients_with_files_each():
    subjects = ["1-11", "11-1", "1_11", "2-22"]
    scans = scans_of([row(f"I{n}", subject=subject) for n, subject in enumerate(subjects)])
    assert [scan.fate for scan in scans] == [None] * 4
    assert [scan.patient for scan in scans] == ["1-11", "11-1", "1-11", "2-22"]
    labels = [scan.subject_label for scan in scans]
    assert labels == ["1U002D11", "11U002D1", "1U002D11", "222"]


def test_a_subject_whose_letters_were_lost_fails_by_name():
    scan = only([row(subject="\N{REPLACEMENT CHARACTER}1")])
    assert scan.fate.status == "failed"
    assert "were lost in another encoding" in scan.fate.reason


def test_a_scan_without_a_diagnosis_is_not_used_and_not_lost():
    scan = only([row(group="")])
    assert (scan.fate.status, scan.fate.stage) == ("unused", "table")
    assert scan.fate.reason == "it has no diagnosis"


def test_a_diagnosis_of_any_length_is_named_in_short():
    assert len(only([row(group="x" * 10_000)]).fate.reason) < 200


def test_a_name_that_is_not_utf_8_is_the_fate_of_its_scan_with_escapes():
    odd = b"/data/M\xfcller/I1".decode("utf-8", "surrogateescape")
    places = {"I1": [odd], "I2": ["/data/I2"], "I3": ["/data/I3"], "I4": [odd, "/data/I4"]}
    rows = [row(image=image) for image in places]
    scans = list_scans(
        rows, places, [("AD",)], "scans.csv", {}, {}, companions={"I2": [f"{odd}.xml"]}
    )
    assert [scan.fate and scan.fate.status for scan in scans] == [
        "failed",
        "failed",
        None,
        "failed",
    ]
    for scan in scans[:2]:
        assert scan.fate.stage == "find"
        assert "/data/M\\xfcller/I1" in scan.fate.reason
        assert "rename" in scan.fate.remedy
    assert repr(scans).encode()


def test_an_image_of_thousands_of_folders_names_the_first():
    reason = only([row(image="I1")], folders={"I1": list(map(str, range(5000))), "I999": ["f"]})
    assert "has 5000 folders: 0, 1, 2, 3, 4 and 4995 more" in reason.fate.reason


def test_words_of_other_scripts_are_not_all_the_same():
    assert len({plain("Größe"), plain("Grüße"), plain("визит"), plain("基线")}) == 4
    scans = scans_of(
        [row("I1", visit="基线"), row("I2", visit="визит")],
        select={**EVERYTHING, "visits": ["визит"]},
    )
    assert [scan.fate and scan.fate.status for scan in scans] == ["unused", None]


@pytest.mark.parametrize("other", ["011S0003", "011-s-0003", "011 S0003", " 011_S_0003 "])
def test_a_spelling_with_fewer_or_other_separators_is_no_doubt(other):
    scans = scans_of([row(image="I1"), row(image="I2", subject=other, visit="m12")])
    assert [(scan.patient, scan.fate) for scan in scans] == [("011S0003", None)] * 2


def test_subjects_of_other_letters_than_ascii_are_patients_with_files_of_their_own_each():
    subjects = ["Jürg", "Jrg", "Jurg", "陈"]
    scans = scans_of([row(image=f"I{n}", subject=s) for n, s in enumerate(subjects)])
    assert [scan.fate for scan in scans] == [None] * 4
    assert [scan.patient for scan in scans] == ["JÜRG", "JRG", "JURG", "陈"]
    assert [scan.subject_label for scan in scans] == ["JU00FCrg", "Jrg", "Jurg", "U9648"]


def test_a_table_that_leaves_nothing_to_process_stops_with_its_commonest_reasons():
    rows = [row(image=f"I{n}", group="MCI") for n in range(5)] + [row(image="I9", group="AD")]
    with pytest.raises(SetupFault) as fault:
        scans_of(rows, folders={})
    told = str(fault.value)
    assert "scans.csv has no scan to process" in told
    assert "5 x its group MCI is not among the classes" in told
    assert "1 x image id I9 of subject 011_S_0003 has no folder" in told


cells = st.fixed_dictionaries(
    {
        "Image ID": st.sampled_from(["I1", "1", "I2", "2", "3", "I4", "x", ""]) | st.text(),
        "Subject": st.sampled_from(["011_S_0003", "022_S_0007", ""]) | st.text(),
        "Group": st.sampled_from(["AD", "Dementia", "CN", "NL", "MCI", "SMC", "?", ""]),
        "Visit": st.sampled_from(["sc", "m12", "ADNI1/GO Month 24", ""]) | st.text(max_size=5),
        "Acq Date": st.sampled_from(["2005-09-12", "9/12/2005", "soon", ""]),
        "Description": st.sampled_from(["MPR", ""]),
    }
)


@given(rows=st.lists(cells, max_size=12), downloaded=st.sets(st.integers(1, 4)))
def test_no_row_is_dropped_and_each_has_either_a_folder_or_a_fate(rows, downloaded):
    rows = [*rows, row(image="I999", subject="999_S_0999")]
    folders = {f"I{number}": [f"/data/{number}"] for number in downloaded} | {"I999": ["/data/999"]}
    scans = list_scans(rows, folders, [["AD", "NC"]], "scans.csv", {}, {})

    assert len(scans) == len(rows)
    assert [scan.row for scan in scans] == list(range(2, len(rows) + 2))
    assert [scan.subject for scan in scans] == [row["Subject"] for row in rows]
    processed = [scan for scan in scans if scan.fate is None]
    assert len({scan.image for scan in processed}) == len(processed)
    for scan in processed:
        assert [scan.place] == folders[scan.image]
        assert scan.group in ("AD", "NC")
    for scan in scans:
        if scan.fate is not None:
            assert scan.place == ""
            assert scan.fate.status in ("failed", "unused", "duplicate")
            assert scan.fate.reason
            assert scan.fate.remedy or scan.fate.status != "failed"


# --- tasks and new scans --------------------------------------------------------------------------


def test_a_scan_takes_part_if_any_task_has_its_group():
    rows = [row(image=f"I{n}", group=word) for n, word in enumerate(("AD", "CN", "LMCI", "EMCI"))]
    scans = scans_of(rows, tasks=[("AD", "NC"), ("LMCI", "NC")])
    assert [scan.fate is None for scan in scans] == [True, True, True, False]
    assert scans[3].fate.reason == "its group EMCI is not among the classes AD, NC, LMCI"
    assert [class_in(scan, ("AD", "NC")) for scan in scans] == ["AD", "NC", "", ""]
    assert [class_in(scan, ("LMCI", "NC")) for scan in scans] == ["", "NC", "LMCI", ""]


def followed(subject, *visits, image=0):
    """Rows of a patient, a visit each: month and diagnosis."""
    return [
        row(image=f"I{image + n}", subject=subject, visit=f"m{month:02d}", group=word)
        for n, (month, word) in enumerate(visits)
    ]


CONVERTS = followed("001_S_0001", (0, "LMCI"), (24, "Dementia"), image=10)
STAYS = followed("002_S_0002", (0, "MCI"), (12, "MCI"), (36, "CN"), image=20)
LEAVES = followed("003_S_0003", (0, "EMCI"), (24, "MCI"), image=30)


def test_a_task_over_derived_labels_takes_the_scans_that_have_one_and_says_why_the_others_do_not():
    rows = [*CONVERTS, *STAYS, *LEAVES]
    scans = {scan.image: scan for scan in scans_of(rows, tasks=[("pMCI", "sMCI"), ("AD", "sMCI")])}
    assert {i: s.progression for i, s in scans.items() if s.progression} == {
        "I10": "pMCI",
        "I20": "sMCI",
    }
    assert [i for i, s in scans.items() if s.fate is None] == ["I10", "I11", "I20"]
    assert class_in(scans["I10"], ("pMCI", "sMCI")) == "pMCI"
    assert class_in(scans["I10"], ("AD", "sMCI")) == ""
    assert class_in(scans["I10"], ("AD", "LMCI")) == "LMCI"
    assert class_in(scans["I11"], ("AD", "sMCI")) == "AD"
    told = "its group is {}, but neither sMCI nor pMCI: {}"
    reasons = {i: scans[i].fate.reason for i in ("I21", "I30", "I31")}
    assert reasons == {
        "I21": told.format("MCI", "not the first visit with MCI"),
        "I30": told.format("EMCI", "followed for 24 of 36 months"),
        "I31": told.format("MCI", "not the first visit with MCI"),
    }
    assert scans["I22"].fate.reason == "its group NC is not among the classes pMCI, sMCI, AD"
    assert {scans[i].fate.status for i in ("I21", "I22", "I30", "I31")} == {"unused"}


def test_horizon_and_visit_are_settings_of_the_list():
    rows = [*CONVERTS, *STAYS, *LEAVES]
    scans = scans_of(rows, tasks=[("pMCI", "sMCI")], horizon_months=12, visit="any")
    labels = [(s.image, s.progression) for s in scans if s.fate is None]
    assert labels == [("I20", "sMCI"), ("I21", "sMCI"), ("I30", "sMCI")]


def test_a_label_that_no_task_has_is_told_with_the_group():
    scans = scans_of([*CONVERTS, *STAYS], tasks=[("AD", "sMCI")])
    assert scans[0].fate.reason == "its group LMCI (pMCI) is not among the classes AD, sMCI"


def test_without_a_derived_class_no_label_is_derived():
    assert {s.progression for s in scans_of([*CONVERTS, *STAYS], tasks=[("AD", "MCI")])} == {""}


def test_visits_decide_whatever_became_of_their_images():
    """The conversion shows in a row without image, without folder, or of an unreadable image."""
    for image in ("", "I77", "x"):
        rows = [CONVERTS[0], {**CONVERTS[1], "Image ID": image}]
        scans = scans_of(rows, tasks=[("pMCI", "sMCI")], folders={"I10": ["f"]})
        assert scans[0].progression == "pMCI"
        assert scans[0].place == "f"
        assert scans[1].fate is not None


def test_a_row_that_is_no_scan_has_no_label():
    rows = [*CONVERTS, CONVERTS[0], row(image="I10", visit="soon", date="soon", group="MCI")]
    first, _, again, bad = scans_of(rows, tasks=[("pMCI", "sMCI")])
    assert (again.fate.status, bad.fate.status) == ("duplicate", "failed")
    assert [scan.progression for scan in (first, again, bad)] == ["pMCI", "", ""]


def test_a_row_that_names_no_image_is_no_lost_scan():
    scan = only([row(image="", group="MCI")])
    assert (scan.fate.status, scan.fate.stage) == ("unused", "table")
    assert scan.fate.reason == "the line names no image"
    assert scan.group == "MCI"
    scan = only([row(image="", group="?")])
    assert scan.fate.status == "unused"
    assert scan.fate.reason == "the line names no image; unknown diagnosis word '?'"


def test_a_task_in_which_a_scan_could_have_two_classes_is_refused():
    with pytest.raises(SetupFault, match="classes is pMCI, LMCI, which has pMCI beside LMCI"):
        scans_of([row()], tasks=[("AD", "NC"), ("pMCI", "LMCI")])


def test_new_scans_need_no_diagnosis():
    rows = [
        row(image="I1", group=""),
        row(image="I2", group="Patient"),
        row(image="I3", group="Dementia"),
        row(image="I4", group="CN", visit=""),
        row(image="x", group="CN"),
    ]
    scans = scans_of(rows, tasks=None, folders={f"I{n}": [f"f{n}"] for n in (1, 2, 3, 4)})
    told = [(s.group, s.diagnosis, s.place) for s in scans[:3]]
    assert told == [("", "", "f1"), ("", "Patient", "f2"), ("AD", "Dementia", "f3")]
    assert [scan.fate for scan in scans[:3]] == [None] * 3
    assert scans[3].fate.reason == "neither visit nor date is given"
    assert scans[4].fate.status == "failed"
    assert [class_in(scan, ("AD", "NC")) for scan in scans[:3]] == ["", "", "AD"]


def test_a_table_of_new_scans_needs_no_column_for_the_diagnosis():
    rows = [{"Image ID": "I1", "Subject": "A", "Visit": "bl"}]
    (scan,) = list_scans(rows, {"I1": ["f"]}, None, "new.csv", {}, {})
    assert (scan.group, scan.session, scan.place, scan.fate) == ("", "BL", "f", None)
    with pytest.raises(SetupFault, match="lacks a column for diagnosis"):
        list_scans(rows, {"I1": ["f"]}, [("AD", "NC")], "new.csv", {}, {})
    with pytest.raises(SetupFault, match="has no column 'DX'"):
        list_scans(rows, {"I1": ["f"]}, None, "new.csv", {"diagnosis": "DX"}, {})


# --- the archive's tree ---------------------------------------------------------------------------


def test_the_folders_of_a_tree_reach_the_scans_of_a_table(tmp_path):
    folder = tmp_path / "011_S_0003" / "MPR" / "2005-09-01" / "S13893"
    folder.mkdir(parents=True)
    (folder / "ADNI_011_S_0003_S13893_I14782.dcm").touch()
    scans = scans_of([row(image="14782")], folders=find_images([tmp_path]).images)
    assert scans[0].place == str(folder)


def test_an_image_downloaded_twice_fails_and_names_both_folders():
    scan, other = scans_of(
        [row(image="1"), row(image="2")], folders={"I1": ["a/I1", "b/I1"], "I2": ["c/I2"]}
    )
    assert (scan.fate.status, scan.fate.stage) == ("failed", "find")
    assert "a/I1, b/I1" in scan.fate.reason
    assert other.fate is None


def test_an_unclosed_quote_is_refused_and_swallows_no_rows(tmp_path):
    path = tmp_path / "scans.csv"
    path.write_text('Image ID,Subject,Group,Visit\n1,011_S_0001,"AD,sc\n2,011_S_0002,CN,sc\n')
    with pytest.raises(SetupFault, match="not well-formed"):
        read_table(path)


def test_na_is_a_missing_value(tmp_path):
    path = tmp_path / "scans.csv"
    path.write_text(
        "Image ID,Subject,Group,Visit,Acq Date\n"
        "1,011_S_0001,AD,NA,2005-09-12\n2,011_S_0002,CN,sc,NA\n"
    )
    scans = scans_of(read_table(path), folders={"I1": ["a"], "I2": ["b"]})
    assert [scan.session for scan in scans] == ["20050912", "SC"]
    assert [scan.fate for scan in scans] == [None, None]


def test_a_subject_too_long_for_a_file_name_is_a_fate():
    scan, _ = scans_of([row(image="1", subject="A1" * 100), row(image="2")])
    assert scan.fate.status == "failed"
    assert "longer than" in scan.fate.reason


@pytest.mark.parametrize("image", ["I١٢", "I１２", "ı12"])
def test_digits_of_other_scripts_are_no_image_id(image):
    assert "is not digits" in only([row(image=image)]).fate.reason


def test_a_month_of_endless_digits_is_no_month():
    assert "is longer than" in only([row(visit="m" + "9" * 5000)]).fate.reason
