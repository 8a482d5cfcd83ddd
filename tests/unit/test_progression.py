import datetime
import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.cohort.progression import (
    MCI_GROUPS,
    PROGRESSIVE,
    STABLE,
    check_task,
    derive_progression,
)
from voxplain.cohort.scan import Scan
from voxplain.faults import Fate, SetupFault

START = datetime.date(2005, 9, 12)


def scan(number, month, group, subject="011_S_0003", date="", session=None, fate=None):
    """A visit; a month of None gives an unreadable label."""
    if session is None:
        session = "later" if month is None else f"M{month:02d}"
    return Scan(
        row=number + 2,
        image=f"I{number}",
        subject=subject,
        session=session,
        visit=session,
        date=date,
        diagnosis=group,
        group=group,
        sex="F",
        age="70",
        description="",
        fate=fate,
    )


def patient(*visits, **more):
    """Visits given as months and groups; image ids count up from I0."""
    return [scan(number, month, group, **more) for number, (month, group) in enumerate(visits)]


def dated(*visits):
    """Visits given as days since the first, and groups; months are unknown."""
    return [
        scan(n, None, group, date=(START + datetime.timedelta(days)).isoformat(), session=f"V{n}")
        for n, (days, group) in enumerate(visits)
    ]


def labels(scans, horizon=36, visit="any"):
    return {i: p.label for i, p in derive_progression(scans, horizon, visit).items()}


def reason(scans, image="I0", horizon=36, visit="any"):
    progression = derive_progression(scans, horizon, visit)[image]
    assert progression.label == ""
    assert "\n" not in progression.reason
    return progression.reason


# --- the rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["MCI", "EMCI", "LMCI"])
def test_ad_within_the_horizon_is_progressive_and_otherwise_stable(group):
    assert labels(patient((0, group), (36, "AD"))) == {"I0": PROGRESSIVE}
    assert labels(patient((0, group), (12, "NC"), (36, "SMC"))) == {"I0": STABLE}


@pytest.mark.parametrize("group", ["AD", "NC", "SMC"])
def test_only_scans_with_mci_have_a_label_or_a_reason(group):
    assert list(labels(patient((0, group), (36, "MCI"), (72, "AD")))) == ["I1"]


def test_a_shorter_follow_up_has_no_label():
    assert reason(patient((0, "MCI"), (24, "MCI"))) == "followed for 24 of 36 months"
    assert reason(patient((0, "MCI"))) == "followed for 0 of 36 months"
    assert labels(patient((0, "MCI"), (24, "MCI")), horizon=24) == {"I0": STABLE, "I1": ""}


def test_ad_before_or_at_the_scan_has_no_label():
    """A reversion; and two rows of one visit that disagree."""
    assert reason(patient((0, "AD"), (12, "MCI"), (60, "MCI")), "I1") == (
        "AD before the scan, or with it"
    )
    assert reason(patient((0, "MCI"), (0, "AD"), (60, "MCI"))) == "AD before the scan, or with it"


def test_a_later_visit_without_ad_does_not_undo_progression():
    assert labels(patient((0, "MCI"), (12, "AD"), (24, "MCI"), (60, "NC")))["I0"] == PROGRESSIVE


def test_ad_after_the_horizon_is_stable_if_a_visit_at_the_horizon_had_no_ad():
    assert labels(patient((0, "MCI"), (36, "MCI"), (48, "AD")))["I0"] == STABLE
    message = reason(patient((0, "MCI"), (24, "MCI"), (48, "AD")))
    assert message == "followed for 24 of 36 months without AD, then seen with it after 48"
    # Back to MCI at month 60: the time of progression is still unknown.
    assert labels(patient((0, "MCI"), (24, "MCI"), (48, "AD"), (60, "MCI")))["I0"] == ""


def test_the_horizon_counts_from_each_scan():
    scans = patient((0, "MCI"), (24, "LMCI"), (48, "AD"), (60, "AD"))
    assert labels(scans) == {"I0": "", "I1": PROGRESSIVE}
    assert labels(scans, horizon=48) == {"I0": PROGRESSIVE, "I1": PROGRESSIVE}
    assert labels(scans, horizon=24) == {"I0": STABLE, "I1": PROGRESSIVE}
    assert labels(scans, horizon=12) == {"I0": STABLE, "I1": ""}


def test_only_scans_of_the_first_visit_have_a_label_and_later_ones_a_reason():
    scans = patient((0, "NC"), (6, "MCI"), (6, "MCI"), (12, "EMCI"), (24, "AD"))
    assert labels(scans) == dict.fromkeys(["I1", "I2", "I3"], PROGRESSIVE)
    assert labels(scans, visit="first") == {"I1": PROGRESSIVE, "I2": PROGRESSIVE, "I3": ""}
    assert reason(scans, "I3", visit="first") == "not the first visit with MCI"


def test_scans_of_one_visit_on_two_days_are_both_of_the_first_visit():
    scans = [
        scan(0, None, "MCI", date="2005-09-12", session="SC"),
        scan(1, None, "MCI", date="2005-09-26", session="SC"),
        scan(2, None, "AD", date="2006-09-12", session="M12"),
    ]
    assert labels(scans, visit="first") == {"I0": PROGRESSIVE, "I1": PROGRESSIVE}


# --- visits that count ----------------------------------------------------------------------------


def test_every_row_of_the_patient_counts_whatever_its_fate():
    failed = Fate("failed", "find", "no folder")
    scans = [
        scan(0, 0, "MCI"),
        scan(1, 24, "AD", fate=failed, subject="011s0003"),
        scan(2, 0, "MCI", subject="022_S_0007"),
        scan(3, 36, "MCI", subject="022_S_0007", fate=Fate("unused", "table", "no image")),
    ]
    assert labels(scans) == {"I0": PROGRESSIVE, "I2": STABLE, "I3": ""}


def test_a_visit_without_known_diagnosis_is_ignored():
    assert reason(patient((0, "MCI"), (36, ""))) == "followed for 0 of 36 months"


def test_rows_without_subject_are_different_patients():
    scans = patient((0, "MCI"), (12, "AD"), subject="")
    assert reason(scans) == "the subject is empty"


def test_of_rows_that_name_one_image_the_one_without_fate_is_the_scan():
    bad = Fate("failed", "table", "unreadable")
    scans = [
        scan(0, 0, "MCI", subject="022_S_0007", fate=bad),
        scan(0, 0, "MCI"),
        scan(1, 12, "AD"),
    ]
    assert labels(scans) == {"I0": PROGRESSIVE}


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "later", "label"),
    [
        (1095, "AD", PROGRESSIVE),  # three years
        (1095 + 91, "AD", PROGRESSIVE),  # three months late
        (1095 + 93, "AD", ""),  # too late, and the time between is unknown
        (1095 - 90, "MCI", STABLE),
        (1095 - 93, "MCI", ""),
        (1, "AD", PROGRESSIVE),
    ],
)
def test_dates_are_compared_with_a_tolerance_of_three_months(days, later, label):
    assert labels(dated((0, "MCI"), (days, later)))["I0"] == label


def test_a_visit_at_the_horizon_counts_although_the_scan_is_before_the_baseline():
    """Screening scans are weeks before month 0, and month 36 is three years after month 0."""
    scans = [
        scan(0, None, "MCI", date="2005-09-01", session="SC"),
        scan(1, 36, "AD", date="2008-10-20"),
        scan(2, None, "MCI", date="2005-09-01", session="SC", subject="022_S_0007"),
        scan(3, 30, "MCI", date="2008-04-20", subject="022_S_0007"),
    ]
    assert labels(scans) == {"I0": PROGRESSIVE, "I2": "", "I3": ""}


def test_dates_are_preferred_to_months():
    scans = [
        scan(0, 0, "MCI", date="2005-09-12"),
        scan(1, 48, "AD", date="2007-09-12"),
    ]
    assert labels(scans) == {"I0": PROGRESSIVE}


def test_months_are_used_if_one_visit_has_no_date():
    scans = [scan(0, 12, "MCI", date="2005-09-12"), scan(1, 36, "AD")]
    assert labels(scans) == {"I0": PROGRESSIVE}
    assert labels(scans, horizon=12) == {"I0": ""}


@pytest.mark.parametrize("session", ["SC", "BL"])
def test_screening_and_baseline_are_month_zero(session):
    scans = [scan(0, None, "MCI", session=session), scan(1, 36, "MCI")]
    assert labels(scans)["I0"] == STABLE


def test_a_scan_without_date_and_month_has_no_label():
    scans = [scan(0, None, "MCI", session="Year2"), scan(1, 36, "MCI")]
    assert reason(scans) == "neither date nor month of visit 'Year2' is known"


def test_ad_at_an_unknown_time_gives_no_label():
    scans = [scan(0, 0, "MCI"), scan(1, None, "AD"), scan(2, 36, "MCI")]
    assert reason(scans) == "the time between the scan and a visit with AD is not known"


def test_another_visit_at_an_unknown_time_is_ignored():
    scans = [scan(0, 0, "MCI"), scan(1, None, "MCI"), scan(2, 36, "MCI")]
    assert labels(scans)["I0"] == STABLE


# --- laws -----------------------------------------------------------------------------------------

GROUPS = ["AD", "NC", "SMC", *MCI_GROUPS]
histories = st.dictionaries(
    st.integers(0, 12).map(lambda half: 6 * half), st.sampled_from(GROUPS), min_size=1
).map(lambda visits: patient(*sorted(visits.items())))


@given(history=histories, horizon=st.sampled_from([12, 24, 36]))
def test_each_label_agrees_with_a_naive_rule(history, horizon):
    months = [int(visit.session[1:]) for visit in history]
    groups = [visit.group for visit in history]
    expected = {}
    for place, (month, group) in enumerate(zip(months, groups, strict=True)):
        if group not in MCI_GROUPS:
            continue
        after = list(zip(months[place:], groups[place:], strict=True))
        healthy = [m for m, _ in itertools.takewhile(lambda visit: visit[1] != "AD", after)]
        if "AD" in groups[:place]:
            label = ""
        elif any(g == "AD" and m <= month + horizon for m, g in after):
            label = PROGRESSIVE
        else:
            label = STABLE if max(healthy) >= month + horizon else ""
        expected[f"I{place}"] = label
    assert labels(history, horizon) == expected


@given(history=histories, data=st.data())
def test_the_order_of_the_rows_does_not_matter(history, data):
    mixed = data.draw(st.permutations(history))
    for visit in ("first", "any"):
        assert labels(history, visit=visit) == labels(mixed, visit=visit)


@given(history=histories)
def test_every_scan_has_a_label_or_a_reason(history):
    of_any = derive_progression(history, 36, "any")
    of_first = derive_progression(history, 36, "first")
    assert list(of_any) == list(of_first)
    assert all(bool(one.label) != bool(one.reason) for one in of_any.values())
    if of_any:
        first, *later = of_any
        assert of_first[first] == of_any[first]
        assert {of_first[image].label for image in later} <= {""}


@given(history=histories)
def test_months_and_dates_give_the_same_labels(history):
    days = [round(int(visit.session[1:]) * 365.25 / 12) for visit in history]
    groups = [visit.group for visit in history]
    assert labels(history) == labels(dated(*zip(days, groups, strict=True)))


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("derived", [("sMCI",), ("pMCI",), ("pMCI", "sMCI")])
@pytest.mark.parametrize("group", MCI_GROUPS)
def test_a_task_has_derived_labels_or_the_groups_that_they_come_from(derived, group):
    with pytest.raises(SetupFault, match=f"{' and '.join(derived)} beside {group}") as fault:
        check_task([*derived, group])
    assert f"classes is {', '.join(derived)}, {group}" in str(fault.value)
    assert "allowed" in str(fault.value)
    check_task([*derived, "AD", "NC", "SMC"])
    check_task([group, "AD", "NC"])


def test_a_task_names_each_class_once():
    with pytest.raises(SetupFault, match="classes is AD, NC, AD, which names a class twice"):
        check_task(["AD", "NC", "AD"])


@pytest.mark.parametrize("horizon", [0, -12, float("nan")])
def test_a_horizon_must_be_positive(horizon):
    with pytest.raises(SetupFault, match=f"horizon_months is {horizon}; allowed: more than 0"):
        derive_progression([], horizon, "any")


def test_an_unknown_visit_setting_is_refused_with_the_allowed_ones():
    with pytest.raises(SetupFault, match="visit is 'last'; allowed: first, any"):
        derive_progression([], 36, "last")


def test_deriving_labels_needs_the_standard_library_only(repository):
    code = (
        "import sys, voxplain.cohort.progression, voxplain.cohort.scans\n"
        "outside = {name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "print(sorted(outside & {'numpy', 'scipy', 'pandas', 'torch', 'sklearn'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
