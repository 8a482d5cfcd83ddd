import datetime
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.cohort.plan import DESCRIPTION, EXPORT_COLUMNS, plan_cohort
from voxplain.cohort.progression import derive_progression
from voxplain.cohort.scans import list_scans
from voxplain.faults import SetupFault

AD = {"patients": 6, "severity": [0.7, 1.0]}
CN = {"patients": 6, "severity": [0, 0]}
VISITS = {"sc": 1.0, "m12": 0.5, "m24": 0.5}


def plan(**changes):
    return plan_cohort(
        **{
            "seed": 1,
            "groups": {"AD": AD, "CN": CN},
            "visits": VISITS,
            "age": [60, 85],
            "ageing_per_decade": 0.02,
            "progression_per_year": 0.1,
            "heads": ["packaged"],
            **changes,
        }
    )


seeds = st.integers(0, 2**31)


@given(seed=seeds)
def test_the_same_seed_plans_the_same_cohort_and_another_seed_another(seed):
    assert plan(seed=seed) == plan(seed=seed)
    seeds_of_one = {scan.anatomy_seed for scan in plan(seed=seed)}
    seeds_of_other = {scan.anatomy_seed for scan in plan(seed=seed + 1)}
    assert not seeds_of_one & seeds_of_other


@given(seed=seeds, more=st.integers(1, 10))
def test_more_patients_do_not_change_the_others(seed, more):
    few = plan(seed=seed)
    many = plan(seed=seed, groups={"AD": {**AD, "patients": 6 + more}, "CN": CN})
    assert len(many) > len(few)
    assert [scan for scan in many if scan in few] == few


@given(seed=seeds, share=st.floats(0.1, 1.0))
def test_a_further_visit_does_not_change_the_earlier_scans(seed, share):
    few = plan(seed=seed)
    many = plan(seed=seed, visits={**VISITS, "m36": share})
    assert [scan for scan in many if scan.visit != "ADNI1/GO Month 36"] == few


@given(seed=seeds)
def test_a_further_group_does_not_change_the_others(seed):
    two = plan(seed=seed)
    three = plan(seed=seed, groups={"AD": AD, "CN": CN, "MCI": {**AD, "severity": [0.2, 0.4]}})
    assert [scan for scan in three if scan.group != "MCI"] == two
    assert sum(scan.group == "MCI" for scan in three) >= 6


@given(seed=seeds, share=st.floats(0, 1))
def test_the_share_of_one_visit_does_not_change_the_next_one(seed, share):
    visits = {**VISITS, "m12": share}
    last = [scan for scan in plan(seed=seed) if scan.visit == "ADNI1/GO Month 24"]
    moved = [scan for scan in plan(seed=seed, visits=visits) if scan.visit == "ADNI1/GO Month 24"]
    assert moved == last


@given(
    seed=seeds,
    patients=st.lists(st.integers(0, 120), min_size=1, max_size=6),
    visits=st.lists(st.sampled_from(["m06", "m12", "m18", "m24", "m36"]), unique=True),
)
def test_image_ids_subjects_and_folders_are_unique_and_of_the_archives_form(seed, patients, visits):
    names = ["AD", "CN", "MCI", "EMCI", "LMCI", "SMC"]
    groups = {
        name: {"patients": count, "severity": [0, 1]}
        for name, count in zip(names, patients, strict=False)
    }
    scans = plan(seed=seed, groups=groups, visits={"sc": 1.0, **dict.fromkeys(visits, 0.7)})
    assert len({scan.image for scan in scans}) == len(scans)
    assert len({scan.folder for scan in scans}) == len(scans)
    assert len({scan.subject for scan in scans}) == sum(patients)
    assert len({(scan.anatomy_seed, scan.scan_seed) for scan in scans}) == len(scans)
    for scan in scans:
        assert re.fullmatch(r"\d{3}_S_\d{4}", scan.subject)
        assert re.fullmatch(r"I\d{6,8}", scan.image)
        assert scan.folder.startswith(f"{scan.subject}/{DESCRIPTION}/20")
        assert scan.folder.endswith(f".0/{scan.image}")


def test_the_largest_group_still_has_subjects_of_the_archives_form():
    scans = plan(groups={"AD": {"patients": 1000, "severity": [1, 1]}}, visits={"sc": 1.0})
    assert len({scan.subject for scan in scans}) == 1000
    assert all(re.fullmatch(r"\d{3}_S_\d{4}", scan.subject) for scan in scans)


def test_every_patient_has_the_first_visit_whatever_its_share():
    scans = plan(visits={"bl": 0.0, "m12": 0.0})
    assert len(scans) == 12
    assert {scan.visit for scan in scans} == {"ADNI Baseline"}


def test_the_share_of_a_visit_is_about_the_share_of_patients_who_have_it():
    groups = {"AD": {"patients": 1000, "severity": [1, 1]}}
    visits = Counter(s.visit for s in plan(groups=groups, visits={"sc": 1.0, "m12": 0.3}))
    assert visits["ADNI Screening"] == 1000
    assert visits["ADNI1/GO Month 12"] == pytest.approx(300, abs=60)  # four standard deviations


@given(seed=seeds, count=st.integers(1, 4), turns=st.integers(1, 3))
def test_every_group_gets_the_heads_equally_often(seed, count, turns):
    heads = [f"head{number}" for number in range(count)]
    size = {"patients": count * turns}
    scans = plan(seed=seed, groups={"AD": {**AD, **size}, "CN": {**CN, **size}}, heads=heads)
    for group in ("AD", "CN"):
        dealt = {scan.subject: scan.head for scan in scans if scan.group == group}
        assert Counter(dealt.values()) == dict.fromkeys(heads, turns)


@given(
    seed=seeds, count=st.integers(1, 6), more=st.lists(st.integers(0, 9), min_size=2, max_size=2)
)
def test_heads_are_used_as_evenly_as_possible_in_a_group(seed, count, more):
    heads = [f"head{number}" for number in range(count)]
    groups = {
        name: {"patients": count + extra, "severity": [0, 1]}
        for name, extra in zip(("AD", "CN"), more, strict=True)
    }
    scans = plan(seed=seed, groups=groups, heads=heads)
    for group in groups:
        dealt = Counter({s.subject: s.head for s in scans if s.group == group}.values())
        assert dealt.keys() == set(heads)
        assert max(dealt.values()) - min(dealt.values()) <= 1


@pytest.mark.parametrize("short", ["AD", "CN"])
def test_a_head_used_by_one_group_only_is_refused(short):
    groups = {"AD": {**AD, "patients": 4}, "CN": {**CN, "patients": 4}}
    groups[short]["patients"] = 3
    heads = ["head1", "head2", "head3", "head4"]
    with pytest.raises(SetupFault, match=f"3 patients of group {short} for 4 heads") as fault:
        plan(groups=groups, heads=heads)
    assert "at least 4 patients" in str(fault.value)
    # An empty group is allowed.
    groups[short]["patients"] = 0
    assert {scan.head for scan in plan(groups=groups, heads=heads)} == set(heads)


@pytest.mark.slow
def test_anatomy_never_repeats_between_patients():
    many = {name: {"patients": 1000, "severity": [0, 1]} for name in ("AD", "CN", "MCI")}
    for seed in range(20):
        scans = plan(seed=seed, groups=many, visits={"sc": 1.0})
        assert len({scan.anatomy_seed for scan in scans}) == 3000


def test_a_number_drawn_twice_is_drawn_again_for_the_later_patient_only(monkeypatch):
    before = plan()
    drawn = random.Random.getrandbits

    def colliding(self, bits):
        # As if the first patient of CN had drawn the first number of AD.
        value = drawn(self, bits)
        return before[0].anatomy_seed if value == first_of_cn.anatomy_seed else value

    first_of_cn = next(scan for scan in before if scan.group == "CN")
    monkeypatch.setattr(random.Random, "getrandbits", colliding)
    after = plan()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert {a.subject for a, _ in changed} == {first_of_cn.subject}
    for a, b in changed:
        assert a == replace(b, anatomy_seed=a.anatomy_seed)
    assert len({scan.anatomy_seed for scan in after}) == 12


# --- shortcuts ------------------------------------------------------------------------------------

MARK = {"kind": "mark", "group": "AD", "share": 1.0}


def test_without_a_shortcut_no_scan_carries_one():
    assert not any(scan.shortcut for scan in plan())
    assert plan(shortcut={**MARK, "kind": "none"}) == plan()


@pytest.mark.parametrize("kind", ["mark", "scanner"])
def test_a_shortcut_is_carried_by_its_group_and_changes_nothing_else(kind):
    scans = plan(shortcut={**MARK, "kind": kind})
    assert {scan.group for scan in scans if scan.shortcut} == {"AD"}
    assert all(scan.shortcut for scan in scans if scan.group == "AD")
    assert [replace(scan, shortcut=False) for scan in scans] == plan()


@given(seed=seeds, share=st.floats(0.05, 1), more=st.floats(0, 1))
def test_a_larger_share_keeps_the_carriers_of_the_shortcut(seed, share, more):
    few, many = (
        {s.image for s in plan(seed=seed, shortcut={**MARK, "share": min(p, 1)}) if s.shortcut}
        for p in (share, share + more)
    )
    assert few <= many


def test_about_the_set_share_of_a_groups_scans_carries_the_shortcut():
    groups = {"AD": {**AD, "patients": 900}, "CN": CN}
    scans = plan(groups=groups, visits={"sc": 1.0}, shortcut={**MARK, "share": 0.7})
    assert sum(scan.shortcut for scan in scans) == pytest.approx(630, abs=55)


def test_a_shortcut_depends_on_the_diagnosis_of_the_visit():
    scans = plan(groups={"MCI": {**MCI, "converts": 1.0}}, visits=YEARLY, shortcut=MARK)
    assert [scan.shortcut for scan in scans] == [scan.group == "AD" for scan in scans]
    assert 0 < sum(scan.shortcut for scan in scans) < len(scans)


def of_patients(scans):
    patients = {}
    for scan in scans:
        patients.setdefault(scan.subject, []).append(scan)
    return patients.values()


@given(
    seed=seeds,
    bounds=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    rate=st.floats(0.01, 1),
)
def test_severity_starts_in_its_range_and_grows_with_time_up_to_one(seed, bounds, rate):
    groups = {"AD": {"patients": 8, "severity": bounds}}
    visits = {"sc": 1.0, "m12": 1.0, "m24": 1.0}
    for first, *later in of_patients(
        plan(seed=seed, groups=groups, visits=visits, progression_per_year=rate)
    ):
        assert bounds[0] - 1e-6 <= first.severity <= bounds[1] + 1e-6
        for years, scan in enumerate(later, start=1):
            expected = min(first.severity * (1 + rate * years), 1)
            assert scan.severity == pytest.approx(expected, abs=2e-5)


@given(seed=seeds)
def test_a_healthy_patient_stays_healthy_and_ages(seed):
    for visits in of_patients(plan(seed=seed, groups={"CN": CN}, visits={"sc": 1, "m24": 1})):
        first, second = visits
        assert first.severity == second.severity == 0
        assert second.age == pytest.approx(first.age + 2, abs=0.02)
        for scan in visits:
            assert 60 <= scan.age <= 87
            assert scan.ageing == pytest.approx(0.02 * (scan.age - 60) / 10, abs=2e-5)


def test_ageing_is_zero_before_sixty():
    scans = plan(age=[30, 50])
    assert {scan.ageing for scan in scans} == {0}


@given(seed=seeds)
def test_the_visits_of_a_patient_share_anatomy_head_and_sex_and_lie_months_apart(seed):
    for scans in of_patients(plan(seed=seed, visits={"sc": 1, "m06": 1, "m12": 1})):
        assert len({(s.anatomy_seed, s.head, s.sex, s.group) for s in scans}) == 1
        assert len({s.scan_seed for s in scans}) == 3
        days = [datetime.datetime.fromisoformat(s.acquired) for s in scans]
        assert (days[1] - days[0]).days == pytest.approx(183, abs=1)
        assert (days[2] - days[0]).days == pytest.approx(365, abs=1)


def test_a_visit_code_without_a_month_is_refused_by_name():
    with pytest.raises(SetupFault, match="has a visit 'month 6'; allowed: sc, bl, m06"):
        plan(visits={"sc": 1, "month 6": 1})


def test_the_table_of_a_plan_is_read_back_as_its_scans():
    planned = plan()
    rows = [scan.table_row() for scan in planned]
    assert all(tuple(row) == EXPORT_COLUMNS for row in rows)
    folders = {scan.image: [scan.folder] for scan in planned}
    scans = list_scans(rows, folders, [["AD", "NC"]], "scans.csv", {}, {})
    assert [scan.fate for scan in scans] == [None] * len(planned)
    for scan, original in zip(scans, planned, strict=True):
        assert (scan.image, scan.subject, scan.diagnosis, scan.sex) == (
            original.image,
            original.subject,
            original.group,
            original.sex,
        )
        assert scan.date == original.acquired[:10]
        assert scan.place == original.folder
        month = re.search(r"Month (\d+)", original.visit)
        assert scan.session == (f"M{int(month[1]):02d}" if month else "SC")
        assert int(scan.age) == int(original.age)


def test_a_scan_as_dict_is_sorted_and_complete():
    scan = plan()[0]
    assert list(scan.as_dict()) == sorted(scan.as_dict())
    assert scan.as_dict() == asdict(scan)


def test_the_imports_of_the_snakefile_need_no_numerical_library(repository):
    code = (
        "import sys\n"
        "import voxplain.cohort.plan, voxplain.cohort.scans, voxplain.cohort.fates\n"
        "import voxplain_workflow.planning.settings, voxplain_workflow.planning.fingerprint\n"
        "heavy = {'numpy', 'scipy', 'pandas', 'torch', 'ants', 'nibabel', 'sklearn', 'matplotlib',"
        " 'pydicom'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_an_inserted_visit_does_not_change_the_other_scans():
    few = plan(visits={"sc": 1.0, "m12": 1.0})
    more = plan(visits={"sc": 1.0, "m06": 1.0, "m12": 1.0})
    assert len(more) > len(few)
    assert [scan for scan in more if scan.visit != "ADNI1/GO Month 6"] == few


# --- converters -----------------------------------------------------------------------------------

YEARLY = {"sc": 1.0, "m12": 1.0, "m24": 1.0, "m36": 1.0, "m48": 1.0}
MCI = {"patients": 8, "severity": [0.2, 0.4]}


@given(seed=seeds)
def test_a_share_of_zero_does_not_change_the_cohort(seed):
    groups = {"AD": {**AD, "converts": 0}, "CN": {**CN, "converts": 0.0}}
    assert plan(seed=seed, groups=groups) == plan(seed=seed)


@given(seed=seeds, share=st.floats(0, 1))
def test_converting_changes_only_the_later_rows_to_ad(seed, share):
    stable = plan(seed=seed, groups={"MCI": MCI}, visits=YEARLY)
    converting = plan(seed=seed, groups={"MCI": {**MCI, "converts": share}}, visits=YEARLY)
    assert [replace(scan, group="MCI") for scan in converting] == stable
    for visits in of_patients(converting):
        groups = [scan.group for scan in visits]
        assert groups[0] == "MCI"
        assert groups in [["MCI"] * n + ["AD"] * (5 - n) for n in range(1, 6)]
        if "AD" in groups:
            assert groups[3] == "AD"  # within 36 months


@given(seed=seeds, share=st.floats(0, 1), more=st.floats(0, 1))
def test_a_larger_share_keeps_the_converters_and_their_months(seed, share, more):
    few, many = (
        plan(seed=seed, groups={"MCI": {**MCI, "converts": min(total, 1)}}, visits=YEARLY)
        for total in (share, share + more)
    )
    assert {s.image for s in few if s.group == "AD"} <= {s.image for s in many if s.group == "AD"}
    late = {scan.subject for scan in few if scan.group == "AD"}
    again = [scan for scan in many if scan.subject in late]
    assert again == [scan for scan in few if scan.subject in late]


def test_the_share_converts_at_uniform_months_up_to_36():
    groups = {"MCI": {"patients": 990, "severity": [0.2, 0.4], "converts": 0.4}}
    scans = plan(groups=groups, visits=YEARLY)
    first = Counter(
        min(visit_month_of(scan) for scan in visits if scan.group == "AD")
        for visits in of_patients(scans)
        if visits[-1].group == "AD"
    )
    assert sum(first.values()) == pytest.approx(0.4 * 990, abs=62)  # four standard deviations
    assert set(first) == {12, 24, 36}
    for count in first.values():
        assert count == pytest.approx(0.4 * 990 / 3, abs=43)


def test_conversion_is_independent_of_site_and_sex():
    groups = {"MCI": {"patients": 990, "severity": [0.2, 0.4], "converts": 0.5}}
    scans = plan(groups=groups, visits={"sc": 1.0, "m36": 1.0})
    converters = {scan.subject for scan in scans if scan.group == "AD"}
    first = [scan for scan in scans if scan.visit == "ADNI Screening"]
    for key in (lambda scan: scan.subject[:3], lambda scan: scan.sex):
        for value in {key(scan) for scan in first}:
            converting = [scan.subject in converters for scan in first if key(scan) == value]
            spread = 4.5 * 0.5 / len(converting) ** 0.5
            assert sum(converting) / len(converting) == pytest.approx(0.5, abs=spread)


def visit_month_of(scan):
    month = re.search(r"Month (\d+)", scan.visit)
    return int(month[1]) if month else 0


def test_converters_are_the_progressive_ones_of_the_table():
    planned = plan(groups={"MCI": {**MCI, "patients": 20, "converts": 0.5}}, visits=YEARLY)
    rows = [scan.table_row() for scan in planned]
    folders = {scan.image: [scan.folder] for scan in planned}
    scans = list_scans(rows, folders, [["pMCI", "sMCI"]], "scans.csv", {}, {})
    labels = {i: p.label for i, p in derive_progression(scans, 36, "first").items() if p.label}
    expected = {
        visits[0].image: "pMCI" if visits[-1].group == "AD" else "sMCI"
        for visits in of_patients(planned)
    }
    assert labels == expected
    assert set(labels.values()) == {"pMCI", "sMCI"}
    assert {scan.image for scan in scans if scan.fate is None} == set(labels)


# --- several cohorts ------------------------------------------------------------------------------


@given(seed=seeds, first=st.integers(61, 5000))
def test_cohorts_with_different_first_numbers_share_no_patients_or_images(seed, first):
    one, other = plan(seed=seed), plan(seed=seed + 1, first_number=first)
    for key in ("subject", "image"):
        assert not {getattr(s, key) for s in one} & {getattr(s, key) for s in other}
    assert not {s.subject[-4:] for s in one} & {s.subject[-4:] for s in other}


@given(seed=seeds, first=st.integers(0, 5000))
def test_the_first_number_changes_names_only(seed, first):
    shifted = plan(seed=seed, first_number=first)
    named = {"image": "", "subject": ""}
    assert [replace(s, **named) for s in shifted] == [replace(s, **named) for s in plan(seed=seed)]
    for scan, original in zip(shifted, plan(seed=seed), strict=True):
        assert int(scan.subject[-4:]) == int(original.subject[-4:]) + first
        assert int(scan.image[1:]) == int(original.image[1:]) + 1000 * first


def test_a_number_of_more_than_four_digits_is_refused():
    groups = {"AD": {"patients": 1000, "severity": [1, 1]}}
    assert plan(groups=groups, visits={"sc": 1.0}, first_number=8)
    with pytest.raises(SetupFault, match="1000 patients of group AD") as fault:
        plan(groups=groups, visits={"sc": 1.0}, first_number=10)
    assert "start at 10" in str(fault.value)
