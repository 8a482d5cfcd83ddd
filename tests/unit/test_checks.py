"""Faults of parameters, and the keys of the configuration that they become."""

import ast
import copy
import dataclasses
import re

import pytest
import yaml

from voxplain.faults import DataFault, ParameterFault, SetupFault
from voxplain_workflow.naming import naming
from voxplain_workflow.planning.checks import check_target
from voxplain_workflow.planning.plan import Plan
from voxplain_workflow.planning.splits import split_cohort
from workflow.conftest import ROOT, TINY

LIBRARY = ROOT / "scripts/voxplain"
# Parameters of the library whose names are also names of sections.
PARAMETERS = ("conversion", "select")


def refusal(keys, fault, hints=None):
    with pytest.raises(SetupFault) as raised, naming(keys, hints):
        raise fault
    return raised.value


def planned(**settings):
    """What is said of settings that cannot be planned."""
    try:
        plan = Plan.build({**copy.deepcopy(TINY), **settings})
    except SetupFault as fault:
        return str(fault)
    return str(plan.fault)


# --- the mapping ----------------------------------------------------------------------------------


def test_a_fault_reads_well_by_its_parameter():
    fault = ParameterFault("folds", "is 5, but class AD has 3 patients")
    assert str(fault) == "folds is 5, but class AD has 3 patients"
    assert fault.parameter == "folds"


def test_the_key_takes_the_parameters_place():
    told = refusal({"folds": "splits.folds"}, ParameterFault("folds", "is 5; folds are few"))
    assert str(told) == "config: splits.folds is 5; folds are few"
    assert not isinstance(told, ParameterFault)


def test_an_entry_of_a_parameter_is_one_of_the_key():
    fault = ParameterFault("select.age", "is [90, 60]")
    told = refusal({"select": "cohorts.own.select"}, fault)
    assert str(told) == "config: cohorts.own.select.age is [90, 60]"


def test_hints_follow_where_their_parameter_has_a_part_in_the_fault():
    keys, hints = {"folds": "splits.folds"}, {"heads": "by patient more are allowed"}
    told = refusal(keys, ParameterFault("folds", "is 3", "heads"), hints)
    assert str(told) == "config: splits.folds is 3; by patient more are allowed"
    assert str(refusal(keys, ParameterFault("folds", "is 3"), hints)) == "config: splits.folds is 3"


def test_a_hint_may_belong_to_the_parameter_itself():
    told = refusal({"target": "heatmaps.target"}, ParameterFault("target", "is x"), {"target": "y"})
    assert str(told) == "config: heatmaps.target is x; y"


@pytest.mark.parametrize(
    "fault",
    [ParameterFault("seed", "is -1"), SetupFault("no such tool"), DataFault("cut off", "look")],
)
def test_any_other_fault_goes_on_as_it_is(fault):
    with pytest.raises(type(fault)) as raised, naming({"folds": "splits.folds"}):
        raise fault
    assert raised.value is fault


def test_a_context_around_another_names_what_that_one_does_not_know():
    with (
        pytest.raises(SetupFault, match=r"^config: the grid of resolution_mm is small$"),
        naming({"grid_shape": "the grid of resolution_mm"}),
        naming({"pools": "models.rieke.pools"}),
    ):
        raise ParameterFault("grid_shape", "is small")


# --- the plan's use of it -------------------------------------------------------------------------


def test_a_target_is_refused_by_its_key_with_the_task():
    with pytest.raises(SetupFault) as told:
        check_target("MCI", "AD-NC", ["AD", "NC"])
    assert str(told.value) == (
        "config: heatmaps.target is 'MCI'; allowed: disease, predicted, true, AD, NC; these are "
        "the classes of task AD-NC"
    )


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (
            {"splits": {**TINY["splits"], "folds": 9}},
            ("splits.folds is 9, but class AD has 3", "(cohort tiny, task AD-NC)"),
        ),
        (
            {"splits": {**TINY["splits"], "fixed_test_patients": 3}},
            ("splits.fixed_test_patients is 3, but class AD has 3",),
        ),
        (
            {"splits": {**TINY["splits"], "group_by": "head"}},
            ("splits.folds is", "made from 1 heads", "splits.group_by", "simulation.heads"),
        ),
        (
            {"models": {"voxcnn": {"pools": [3, 3, 3, 3]}}},
            ("models.voxcnn.pools is 3,3,3,3, with which", "a smaller resolution_mm"),
        ),
        ({"tasks": [["AD", "NC"], ["MCI", "sMCI"]]}, ("tasks.1 is MCI, sMCI, which has sMCI",)),
    ],
)
def test_what_the_library_refuses_is_told_by_its_key(settings, parts):
    message = planned(**settings)
    assert message.startswith("config: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_an_external_test_that_cannot_be_is_told_by_its_cohort():
    tiny = Plan.build(TINY).cohorts["tiny"]
    healthy = [scan for scan in tiny.all_scans if scan.group == "NC"]
    other = dataclasses.replace(tiny, name="other", planned={}, all_scans=healthy)
    settings = {
        **{"group_by": "patient", "seed": 1, "repeats": 1, "folds": 2, "stratify": True},
        **{"fixed_draw": "hash", "fixed_test_patients": 1},
        "external": [{"train": "tiny", "test": "other"}],
    }
    with pytest.raises(SetupFault) as told:
        split_cohort(tiny, {"tiny": tiny, "other": other}, ["AD", "NC"], settings)
    assert str(told.value) == (
        "config: splits.external.0.test is cohort other, which has no scan of class AD to test (3 "
        "of its patients are in the training cohort too and left out); leave the test out, or the "
        "task; give each simulated cohort another first_number"
    )


def test_a_grid_too_small_is_told_by_the_resolution(monkeypatch):
    monkeypatch.setattr("voxplain_workflow.planning.plan.TEMPLATE_SHAPE", (40, 44, 40))
    assert planned().startswith(
        "config: resolution_mm is 4, so that the grid is 10x11x10 voxels, too small for model rieke"
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"source": "adni", "table": "no.csv", "images": "."}, "table is no.csv, which does not"),
        ({"source": "adni", "table": "scans.csv", "images": "no"}, "images has no, which does not"),
        ({"source": "bids", "images": "no"}, "images is no, a BIDS dataset that does not exist"),
        ({"source": "bids", "images": "."}, "cohorts.own.files is the pattern"),
        (
            {"source": "bids", "images": ".", "table": "no.tsv"},
            "table is no.tsv, which does not exist",
        ),
        (
            {"source": "adni", "table": "scans.csv", "images": ".", "select": {"age": [90, 60]}},
            "select.age is [90, 60]; expected the least age",
        ),
        (
            {
                **{"source": "adni", "table": "scans.csv", "images": "."},
                "select": {"description": "MPR("},
            },
            "select.description is 'MPR(', which is no regular expression",
        ),
    ],
)
def test_what_cannot_be_read_is_told_by_the_key_of_its_cohort(
    tmp_path, monkeypatch, section, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans.csv").write_text(
        "Image Data ID,Subject,Group,Visit,Age,Description\nI1,011_S_0001,AD,sc,70,MPR\n"
    )
    (tmp_path / "011_S_0001/MPR/2005-09-12_10_00_00.0/I1").mkdir(parents=True)
    told = planned(cohorts={"own": section}, tasks=[["AD"]])
    assert told.startswith("config: cohorts.own.")
    assert message in told


# --- the library ----------------------------------------------------------------------------------


def words(path):
    """The strings of a module that are no docstrings, with their lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    holders = ast.Module | ast.ClassDef | ast.FunctionDef
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, holders) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.lineno, node.value


def test_no_message_of_the_library_names_a_key_of_the_configuration():
    schema = yaml.safe_load((ROOT / "schemas/config.schema.yaml").read_text(encoding="utf-8"))
    sections = {*schema["properties"], "simulation"} - set(PARAMETERS)
    keys = re.compile(rf"config:|(?<![\w./])({'|'.join(sections)})\.[a-z<]|resolution_mm")
    found = [
        f"{path.relative_to(LIBRARY)}:{line}: {text}"
        for path in sorted(LIBRARY.rglob("*.py"))
        for line, text in words(path)
        if keys.search(text)
    ]
    assert not found
