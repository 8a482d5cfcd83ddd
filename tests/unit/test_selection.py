"""Which scans of a table are used, and the reasons for excluding the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.cohort.demographics import read_tesla
from voxplain.cohort.scans import list_scans
from voxplain.cohort.selection import EVERYTHING
from voxplain.faults import SetupFault
from voxplain_workflow.planning.settings import read_schema
from workflow.conftest import ROOT

COLUMNS = {
    "image": "Image ID",
    "subject": "PTID",
    "group": "DX",
    "visit": "VISCODE",
    "date": "EXAMDATE",
    "description": "Description",
    "sex": "PTGENDER",
    "age": "AGE",
    "phase": "COLPROT",
    "field": "FLDSTRENG",
}
SCAN = {
    "image": "I1",
    "subject": "011_S_0003",
    "group": "AD",
    "visit": "sc",
    "date": "2005-09-01",
    "description": "MPR; GradWarp; N3",
    "sex": "Male",
    "age": "70.5",
    "phase": "ADNI1",
    "field": "1.5 Tesla MRI",
}
# Is selected by every setting below.
GOOD = {**SCAN, "image": "I900", "subject": "999_S_0999"}


def row(**values):
    return {COLUMNS[key]: value for key, value in {**SCAN, **values}.items()}


def fates(rows, select, **more):
    folders = {value["Image ID"]: ["somewhere"] for value in rows}
    scans = list_scans(
        rows, folders, [["AD", "NC"]], "t.csv", {}, {}, select={**EVERYTHING, **select}, **more
    )
    return {scan.image: scan.fate for scan in scans}


def fate_of(select, **values):
    """The fate of an excluded scan; None for a selected one."""
    good = {COLUMNS[key]: value for key, value in GOOD.items()}
    return fates([row(**values), good], select)["I1"]


def test_the_defaults_of_the_schema_select_every_scan():
    described = read_schema(ROOT / "schemas/config.schema.yaml")
    (cohort,) = (
        part["properties"]["select"]
        for part in described["$defs"].values()
        if "select" in part.get("properties", {})
    )
    assert {key: schema["default"] for key, schema in cohort["properties"].items()} == EVERYTHING
    assert fate_of({}, sex="", age="", phase="", field="", description="") is None


@pytest.mark.parametrize(
    ("select", "fits", "fails"),
    [
        ({"visits": ["sc", "m12"]}, {"visit": "m12"}, {"visit": "m24"}),
        ({"visits": ["M12"]}, {"visit": "ADNI1/GO Month 12"}, {"visit": "sc"}),
        ({"visits": ["ADNI Screening"]}, {"visit": "adni screening"}, {"visit": "bl"}),
        ({"phases": ["ADNI 1"]}, {"phase": "ADNI1"}, {"phase": "ADNIGO"}),
        ({"field_strengths": [1.5]}, {"field": "1.494"}, {"field": "3"}),
        ({"field_strengths": [3]}, {"field": "2.89"}, {"field": "1.5 Tesla MRI"}),
        ({"description": "n3|B1"}, {"description": "MPR; N3"}, {"description": "MPR"}),
        ({"not_description": "repeat"}, {}, {"description": "MP-RAGE REPEAT"}),
        ({"sex": "female"}, {"sex": "F"}, {"sex": "Male"}),
        ({"age": [60, 70.5]}, {"age": "70.5"}, {"age": "70.6"}),
    ],
)
def test_a_scan_that_meets_the_selection_is_used(select, fits, fails):
    good = {COLUMNS[key]: value for key, value in {**GOOD, **fits}.items()}
    by_image = fates([row(**fits), row(**fails, image="I2"), good], select)
    assert by_image["I1"] is None
    assert by_image["I2"].status == "unused"
    assert next(iter(fails.values())) in by_image["I2"].reason


@pytest.mark.parametrize(
    ("select", "values", "reason"),
    [
        ({"age": [60, 90]}, {"age": ""}, "its age (not in the table) is not one from 60 to 90"),
        ({"age": [60, 90]}, {"age": "seventy"}, "its age 'seventy' is not one from 60 to 90"),
        ({"sex": "male"}, {"sex": ""}, "its sex (not in the table) is not male"),
        ({"field_strengths": [1.5]}, {"field": ""}, "(not in the table) is none of 1.5 T"),
        ({"phases": ["ADNI1"]}, {"phase": ""}, "its phase (not in the table) is none of ADNI1"),
    ],
)
def test_a_missing_value_is_not_guessed(select, values, reason):
    fate = fate_of(select, **values)
    assert (fate.status, fate.stage) == ("unused", "table")
    assert reason in fate.reason


@pytest.mark.parametrize(
    ("text", "tesla"),
    [
        ("1.5", 1.5),
        ("3T", 3),
        ("3.0 Tesla", 3),
        ("Acquisition Plane=SAGITTAL;Slice Thickness=1.2;Field Strength=2.89;Coil=BODY", 2.89),
        ("", None),
        ("Slice Thickness=1.2", None),
        ("unknown", None),
    ],
)
def test_a_field_strength_is_read_in_the_forms_of_tables(text, tesla):
    assert read_tesla(text) == tesla


def test_the_first_of_several_is_the_earliest_then_the_lowest_image_id():
    rows = [
        row(image="I7", visit="m12", date="2006-09-01"),
        row(image="I5", date="2005-09-01"),
        row(image="I4", date="2005-09-01"),
        row(image="I8", visit="m12", date="2006-08-01"),
        row(image="I9", subject="012_S_0004"),
    ]
    usable = {
        keep: [image for image, fate in fates(rows, {"keep": keep}).items() if fate is None]
        for keep in ("all", "first_of_visit", "first_of_patient")
    }
    assert usable["all"] == ["I7", "I5", "I4", "I8", "I9"]
    assert usable["first_of_visit"] == ["I4", "I8", "I9"]
    assert usable["first_of_patient"] == ["I4", "I9"]
    later = fates(rows, {"keep": "first_of_patient"})["I7"]
    assert later.reason == "image I4 is the patient's first scan (select.keep)"


def test_without_dates_the_order_follows_from_the_visits():
    rows = [row(image=f"I{10 - n}", visit=v, date="") for n, v in enumerate(["m24", "m06", "sc"])]
    by_image = fates(rows, {"keep": "first_of_patient"})
    assert [image for image, fate in by_image.items() if fate is None] == ["I8"]


def test_an_excluded_scan_is_not_the_first_one():
    rows = [
        row(image="I1", description="repeat"),
        row(image="I2", visit="m06", date="2006-03-01", group="unheard of"),
        row(image="I3", visit="m12", date="2006-09-01"),
    ]
    by_image = fates(rows, {"keep": "first_of_patient", "not_description": "repeat"})
    assert [
        by_image[image].status if by_image[image] else None for image in ("I1", "I2", "I3")
    ] == [
        "unused",
        "failed",
        None,
    ]


def test_a_change_of_diagnosis_is_seen_at_excluded_visits():
    visits = [("I1", "sc", "MCI"), ("I2", "m12", "MCI"), ("I3", "m24", "AD")]
    rows = [row(image=i, visit=v, group=g, date="") for i, v, g in visits]
    select = {**EVERYTHING, "visits": ["sc"]}
    folders = {image: ["somewhere"] for image, _, _ in visits}
    scans = list_scans(rows, folders, [["pMCI", "sMCI"]], "t.csv", {}, {}, select=select)
    assert [scan.progression for scan in scans if scan.fate is None] == ["pMCI"]


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"description": "MPR("}, "select.description is 'MPR(', which is no regular expression"),
        ({"age": [90, 60]}, r"select.age is [90, 60]; expected the least age, then the greatest"),
    ],
)
def test_an_invalid_selection_is_refused(select, message):
    with pytest.raises(SetupFault) as fault:
        fate_of(select)
    assert message in str(fault.value)


def test_a_selection_by_a_missing_column_is_refused():
    rows = [{key: value for key, value in row().items() if key != "COLPROT"}]
    with pytest.raises(SetupFault, match=r"lacks a column for phase .*'Phase' or 'COLPROT'"):
        fates(rows, {"phases": ["ADNI1"]})


def test_a_selection_without_scans_is_refused_with_the_reason():
    with pytest.raises(SetupFault, match="no scan to process: 1 x its sex 'Male' is not female"):
        fates([row()], {"sex": "female"})


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "image": st.integers(1, 50).map(lambda n: f"I{n}"),
                "subject": st.sampled_from(["011_S_0003", "012_S_0004"]),
                "visit": st.sampled_from(["sc", "m12", "M 12", "?"]),
                "date": st.sampled_from(["", "2005-09-01", "2006-01-01"]),
                "age": st.sampled_from(["", "65", "90", "old"]),
                "field": st.text(max_size=8),
            }
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda by_image: by_image["image"],
    ),
    st.sampled_from(["first_of_visit", "first_of_patient"]),
)
def test_one_scan_of_each_is_kept_and_every_other_has_a_reason(scans, keep):
    rows = [row(**values) for values in scans]
    try:
        by_image = fates(rows, {"keep": keep, "age": [60, 80], "field_strengths": [1.5]})
    except SetupFault as fault:
        assert "no scan to process" in str(fault)  # every scan is excluded, with a reason
        return
    usable = [values for values in scans if by_image[values["image"]] is None]
    visits = [
        v["visit"].replace(" ", "").upper() if keep == "first_of_visit" else "" for v in usable
    ]
    pairs = list(zip((v["subject"] for v in usable), visits, strict=True))
    assert len(pairs) == len(set(pairs)) >= 1
    assert all(values["age"] == "65" for values in usable)
