"""A change of a registry entry changes the fingerprints of the jobs that select it."""

import shutil
from pathlib import Path

import pytest

from selecting import codes_of
from voxplain_workflow.planning.fingerprint import fingerprint

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
NETWORKS, METHODS = "voxplain/models/__init__.py", "voxplain/relevance/__init__.py"
OF_METHODS = ("explain_scans", "randomise_layers")


@pytest.fixture(scope="module")
def before():
    return codes_of(SCRIPTS)


def changed(before, tmp_path, name, old, new):
    """Jobs whose fingerprint changes, appears or disappears with another text of a registry."""
    copy = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new, 1))
    after = codes_of(copy)
    return {job for job in before.keys() | after.keys() if before.get(job) != after.get(job)}


def jobs_of_methods(before, *names):
    """All jobs that explain by these methods."""
    return {job for job in before if job[0] in OF_METHODS and job[-1] in names}


def jobs_of_network(before, name):
    """All jobs that load this network, or that may load any network."""
    return {job for job in before if job[0] != "report_results" and {name, "any"} & set(job)}


def test_every_entry_has_its_own_fingerprint(before):
    assert len(set(before.values())) == len(before)


def test_no_other_script_reaches_a_registry(before, tmp_path):
    copy = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (NETWORKS, METHODS):
        (copy / name).write_text((copy / name).read_text() + "\nADDED = 1\n")
    reach = {
        script.stem
        for script in SCRIPTS.glob("*.py")
        if fingerprint(script, SCRIPTS) != fingerprint(copy / script.name, copy)
    }
    assert reach == {job[0] for job in before}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"voxplain.models.shapes.plan_voxcnn"', '"voxplain.models.shapes.plan_rieke"'),
        ('"voxplain.models.voxcnn"', '"voxplain.models.rieke"'),
    ],
    ids=["planner", "module"],
)
def test_the_definition_of_a_network_counts_for_the_jobs_that_load_it(before, tmp_path, old, new):
    jobs = changed(before, tmp_path, NETWORKS, old, new)
    assert jobs == jobs_of_network(before, "voxcnn")
    assert {job[0] for job in jobs} == {
        *("train_network", "change_areas", "explain_scans", "randomise_layers", "apply_network")
    }


@pytest.mark.parametrize(
    ("old", "new", "methods"),
    [
        ('"mask": "[x, y, z] bool; the voxels that get noise",', "", ["smoothgrad"]),
        (
            '_MEMORY = {"',
            '_MEMORY = {"labels": "areas", "mask": "the brain", "',
            ["area_occlusion", "occlusion", "sa_ucm", "voxel_occlusion"],
        ),
        (
            '"lrp": Method(\n        "voxplain.relevance.lrp"',
            '"lrp": Method(\n        "voxplain.relevance.gradient"',
            ["lrp"],
        ),
        ('(Simonyan et al. 2014)",', '(Simonyan et al. 2014)", explains="logit",', ["sensitivity"]),
    ],
    ids=["options", "options of several", "module", "explains"],
)
def test_the_options_and_target_of_a_method_count_for_its_jobs(before, tmp_path, old, new, methods):
    jobs = changed(before, tmp_path, METHODS, old, new)
    assert jobs == jobs_of_methods(before, *methods)
    assert {job[1] for job in jobs} > {"any", "rieke", "voxcnn"}


def test_a_new_network_of_a_method_counts_for_its_jobs_only(before, tmp_path):
    """With one more network of `cam`, the heatmaps of the others are not made again."""
    jobs = changed(
        before,
        tmp_path,
        METHODS,
        'models=("voxresnet_gap", "voxresnet_shallow_gap")',
        'models=("voxcnn", "voxresnet_shallow_gap", "voxresnet_gap")',
    )
    assert jobs == {
        ("explain_scans", "voxcnn", "cam"),
        ("randomise_layers", "voxcnn", "cam"),
        ("explain_scans", "any", "cam"),
    }


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (NETWORKS, "ten convolutions", "10 convolutions"),
        (NETWORKS, "passes=2,", "passes=3,"),
        (NETWORKS, "layers=13", "layers=14"),
        (NETWORKS, 'Recipe("adam", 2.7e-5', 'Recipe("adam", 3e-5'),
        (NETWORKS, '_VOXRESNET_RECIPE = Recipe("sgd"', '_VOXRESNET_RECIPE = Recipe("adam"'),
        (METHODS, "number of noisy copies", "how many copies"),
        (METHODS, "_GRADIENT = 3", "_GRADIENT = 4"),
        (METHODS, 'per="samples"', "per=None"),
        (METHODS, '"samples": "number', '"seed": "of it", "samples": "number'),
        (METHODS, '"layer": "name of', '"layer": "the name of'),
    ],
)
def test_descriptions_estimates_and_recipes_do_not_count(before, tmp_path, name, old, new):
    """A recipe is part of the settings of a training, which count themselves."""
    assert changed(before, tmp_path, name, old, new) == set()


@pytest.mark.parametrize(
    ("name", "old", "new", "of"),
    [
        (NETWORKS, 'sources=("rieke2018",)', 'sources=("rieke2018", "wen2020")', "rieke"),
        (METHODS, 'sources=("bach2015",)', "sources=()", "lrp"),
    ],
)
def test_papers_count_where_they_are_cited(before, tmp_path, name, old, new, of):
    assert changed(before, tmp_path, name, old, new) == {("report_results", of)}


def test_one_more_entry_changes_no_other_job(before, tmp_path):
    method = '"another": Method("voxplain.relevance.gradient", "one more"),\n    "lrp": Method('
    jobs = changed(before, tmp_path / "method", METHODS, '"lrp": Method(', method)
    assert jobs
    assert all("another" in job for job in jobs)
    network = (
        '"another": Model("voxplain.models.rieke", "one more", "voxplain.models.shapes.plan_rieke",'
        '\n _VOXRESNET_RECIPE, passes=1, layers=7),\n    "voxcnn": Model('
    )
    jobs = changed(before, tmp_path / "network", NETWORKS, '"voxcnn": Model(', network)
    # An applied network may be any.
    assert ("apply_network", "any") in jobs
    assert all({"another", "any"} & set(job) for job in jobs)
