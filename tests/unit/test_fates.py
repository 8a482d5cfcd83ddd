import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.cohort.fates import (
    COLUMNS,
    MEASURES,
    check_tools_of_cohort,
    collect_fates,
    count_lost,
    lost_scans,
    read_fates,
    summarise,
    write_fates,
)
from voxplain.cohort.usable import check_lost_of_split, check_tools_of_split
from voxplain.faults import DataFault, Fate, SetupFault, failed
from voxplain.tables import MISSING

KNOWN = {
    "subject": "011_S_0003",
    "session": "SC",
    "visit": "sc",
    "date": "2005-09-12",
    "diagnosis": "Dementia",
    "group": "AD",
    "sex": "F",
    "age": "71",
    "description": "MPR; GradWarp",
}
QUALITY = {
    "brain_volume_ml": 1200.5,
    "largest_part": 1.0,
    "border_share": 0.0,
    "overlap": 0.95,
    "similarity": 0.8,
}
PROCESSING = {
    "ConversionNote": "1 slice was missing and filled from the neighbours",
    "SkullStrippingTool": "bet",
    "SkullStrippingToolVersion": "6.0.7",
    "SkullStrippingRung": "neck",
    "BiasFieldCorrection": "N4",
}


def processed(image):
    return {"image": image, **KNOWN, "preprocessed": f"derivatives/{image}.nii.gz"}


def quality(status="usable", stage="quality", reason="", remedy="", **more):
    return {"Fate": Fate(status, stage, reason, remedy).as_dict(), **more}


def table_of(*fates):
    """A table with scans of the fates given."""
    return [
        {
            **dict.fromkeys(COLUMNS, MISSING),
            "image": f"I{number}",
            "subject": "011_S_0003",
            "fate": fate,
            "stage": "register",
            "reason": "it is broken",
            "remedy": "mend it",
        }
        for number, fate in enumerate(fates)
    ]


def test_a_usable_scan_carries_its_measures_its_tools_and_its_volume():
    (told,) = collect_fates(
        [processed("I1")], {"I1": quality(Quality=QUALITY, Processing=PROCESSING)}
    )
    assert tuple(told) == COLUMNS
    assert (told["fate"], told["stage"], told["reason"]) == ("usable", "quality", MISSING)
    assert {measure: float(told[measure]) for measure in MEASURES} == QUALITY
    assert told["conversion"] == "1 slice was missing and filled from the neighbours"
    assert told["skull_tool"] == "bet"
    assert told["skull_tool_version"] == "6.0.7"
    assert told["skull_rung"] == "neck"
    assert told["bias_correction"] == "N4"
    assert told["preprocessed"] == "derivatives/I1.nii.gz"
    assert told["description"] == "MPR; GradWarp"


def test_an_excluded_scan_keeps_its_measures_and_its_volume():
    written = quality("excluded", reason="overlap", Quality=QUALITY, Processing=PROCESSING)
    (told,) = collect_fates([processed("I1")], {"I1": written})
    assert (told["fate"], told["reason"]) == ("excluded", "overlap")
    assert told["overlap"] == "0.95"
    assert told["preprocessed"] == "derivatives/I1.nii.gz"


def test_a_failed_scan_has_a_reason_and_a_remedy_and_no_volume():
    fault = DataFault("file a.dcm is truncated", "download the image again")
    written = {"Fate": failed("convert", fault).as_dict()}
    (told,) = collect_fates([processed("I1")], {"I1": written})
    assert (told["fate"], told["stage"]) == ("failed", "convert")
    assert told["reason"] == "file a.dcm is truncated"
    assert told["remedy"] == "download the image again"
    assert told["preprocessed"] == MISSING
    assert {told[measure] for measure in MEASURES} == {MISSING}


def test_a_scan_whose_fate_was_known_before_needs_no_quality():
    rows = [
        {"image": "I1", **KNOWN, "fate": "unused", "stage": "table", "reason": "its group is MCI"},
        {"image": "I2", **KNOWN, "fate": "duplicate", "stage": "table", "reason": "line 2"},
        processed("I2"),
    ]
    told = collect_fates(rows, {"I2": quality(Quality=QUALITY)})
    assert [(row["image"], row["fate"]) for row in told] == [
        ("I1", "unused"),
        ("I2", "duplicate"),
        ("I2", "usable"),
    ]
    assert told[1]["overlap"] == MISSING


def test_a_zero_is_a_value_and_not_a_missing_one():
    (told,) = collect_fates([processed("I1")], {"I1": quality(Quality=QUALITY)})
    assert told["border_share"] == "0.0"


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)


@given(reasons=st.lists(words, min_size=1, max_size=5))
def test_a_table_is_read_back_as_it_was_written(tmp_path_factory, reasons):
    rows = [processed(f"I{number}") for number in range(len(reasons))]
    written = {f"I{n}": quality("failed", reason=reason) for n, reason in enumerate(reasons)}
    table = collect_fates(rows, written)
    path = tmp_path_factory.getbasetemp() / "fates.tsv"
    write_fates(path, table)
    assert read_fates(path) == table
    assert path.read_text(encoding="utf-8").split("\n")[0].split("\t") == list(COLUMNS)


def test_every_cell_of_a_table_is_one_line_without_tabs():
    written = quality("failed", reason="two\nlines\tand  a tab")
    (told,) = collect_fates([processed("I1")], {"I1": written})
    assert told["reason"] == "two lines and a tab"


def test_the_lost_scans_are_those_that_failed_or_were_excluded():
    table = table_of("usable", "failed", "excluded", "unused", "duplicate")
    table[2]["remedy"] = MISSING
    assert lost_scans(table) == [
        "I1 (011_S_0003) failed in register: it is broken -> mend it",
        "I2 (011_S_0003) excluded in register: it is broken",
    ]


def test_scans_that_were_not_wanted_do_not_count_as_lost():
    verdict = count_lost(table_of(*["usable"] * 19, "failed", *["unused"] * 40), 0.05, "t.tsv")
    assert verdict == {"scans": 60, "failed": 1, "unused": 40, "usable": 19, "max_failed": 0.05}


def test_more_lost_scans_than_allowed_stop_the_run_with_their_list():
    table = table_of(*["usable"] * 18, "failed", "excluded", *["unused"] * 100)
    with pytest.raises(SetupFault) as fault:
        count_lost(table, 0.05, "results/demo/scans.tsv")
    first, *listed = str(fault.value).splitlines()
    assert "2 of 20 scans were lost" in first
    assert "max_failed = 0.05" in first
    assert "results/demo/scans.tsv" in first
    assert listed == lost_scans(table)


@given(usable=st.integers(1, 60), failed_scans=st.integers(0, 60), excluded=st.integers(0, 60))
def test_the_run_goes_on_where_the_lost_share_is_within_the_limit(usable, failed_scans, excluded):
    table = table_of(*["usable"] * usable, *["failed"] * failed_scans, *["excluded"] * excluded)
    lost = failed_scans + excluded
    for limit in (0.0, 0.25, 0.5, 1.0):  # exact in binary
        if lost <= limit * (lost + usable):
            assert count_lost(table, limit, "t.tsv")["usable"] == usable
        else:
            with pytest.raises(SetupFault, match=f"{lost} of {lost + usable} scans"):
                count_lost(table, limit, "t.tsv")


@pytest.mark.parametrize("fates", [("failed", "excluded"), ("unused",), ()])
def test_a_cohort_without_a_usable_scan_stops_the_run_whatever_is_allowed(fates):
    with pytest.raises(SetupFault):
        count_lost(table_of(*fates), 1.0, "t.tsv")


def test_the_summary_counts_the_fates_and_lists_the_lost():
    told = summarise(table_of("usable", "usable", "failed", "unused"))
    assert told.splitlines() == [
        "4 scans: 2 usable, 1 failed, 1 unused",
        "  I2 (011_S_0003) failed in register: it is broken -> mend it",
    ]


def test_a_long_list_of_lost_scans_is_cut_with_a_count():
    lines = summarise(table_of(*["failed"] * 30), most=20).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  ... and 10 more"


# --- what may be used together --------------------------------------------------------------------


def stripped(tool, version="6.0.7"):
    return {"Processing": {"SkullStrippingTool": tool, "SkullStrippingToolVersion": version}}


def test_a_split_may_lose_as_many_scans_as_are_left_to_lose():
    check_lost_of_split([], 5, 0, "fixed", "adni")
    check_lost_of_split(["I1", "I2"], 5, 2, "fixed", "adni")
    with pytest.raises(SetupFault) as fault:
        check_lost_of_split(["I1", "I2"], 5, 1, "fixed", "adni")
    assert str(fault.value) == (
        "2 of the 5 scans of split fixed were lost in processing, and with those lost before more "
        "than max_failed allows; see results/adni/scans.tsv, and that of the cohort tested on"
    )


def test_where_too_many_were_lost_before_a_split_is_refused_that_lost_none():
    with pytest.raises(SetupFault, match="0 of the 5 scans of split fixed were lost"):
        check_lost_of_split([], 5, -1, "fixed", "adni")


def test_a_split_is_stripped_by_one_tool():
    check_tools_of_split(set(), "fixed")
    check_tools_of_split({"bet"}, "fixed")
    with pytest.raises(SetupFault) as fault:
        check_tools_of_split({"deepbet", "bet"}, "fixed")
    assert str(fault.value) == (
        "split fixed mixes scans stripped by bet and deepbet, whose masks differ as much as groups "
        "do; strip all scans by one of them"
    )


def test_a_cohort_is_stripped_by_one_version_of_one_tool():
    check_tools_of_cohort([], "adni")
    # A scan that failed before its skull was removed says nothing of tools.
    check_tools_of_cohort([stripped("bet"), {}, {"Processing": None}, stripped("bet")], "adni")
    with pytest.raises(SetupFault) as fault:
        check_tools_of_cohort([stripped("deepbet", "1.0"), stripped("bet")], "adni")
    assert str(fault.value) == (
        "cohort adni was stripped by several tools (bet 6.0.7, deepbet 1.0), whose masks differ as "
        "much as groups do; strip all scans by one of them, or, where only the version differs, "
        "run again with --forcerun strip_skull"
    )
    with pytest.raises(SetupFault, match=r"several tools \(bet 6.0.6, bet 6.0.7\)"):
        check_tools_of_cohort([stripped("bet"), stripped("bet", "6.0.6")], "adni")
