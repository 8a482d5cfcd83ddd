"""Change this -> exactly these rules run again.

What a changed setting or module reruns follows from comparing two plans, job by job. The tests
marked `slow` ask Snakemake itself, on a finished run, whether it agrees.
"""

import copy
import dataclasses
import os
import random
import shutil
import time
from collections import Counter

import pytest

from voxplain.cohort.selection import EVERYTHING
from voxplain.models import MODELS
from voxplain_workflow.planning.code import Codes
from voxplain_workflow.planning.settings import read_schema
from voxplain_workflow.running.estimate import SCAN_CHAIN
from workflow.conftest import ROOT, TARGETS, TINY, snakemake
from workflow.plans import jobs_of, reruns, rules_of

COMPARE = {"compare_methods"}
# What many rules say of networks and heatmaps is put together on one page.
TRUST = {"report_trust"}
MEASURE = {"localise_heatmaps", "compare_localisation"} | TRUST
# What is to be found is another, for heatmaps and for the difference without a network.
LOCALISE = {"localise_difference"} | MEASURE
FOLLOW = {"change_areas", "compare_faithfulness"} | TRUST
FORGET = {"randomise_layers", "compare_randomisation"} | TRUST
TELL = {"compare_faithfulness", "compare_randomisation"} | TRUST
AVERAGE = {"average_heatmaps", "tabulate_areas", "show_truth"} | COMPARE | MEASURE | FOLLOW
COMBINE = {"combine_heatmaps"} | AVERAGE
EXPLAIN = {"explain_scans"} | COMBINE | FORGET
# By methods whose maps are not remade while the network forgets.
EXPLAIN_OTHERS = EXPLAIN - FORGET | TRUST
SUMMARISE = {"evaluate_folds", "summarise_networks"} | TRUST
MEASURES = {"evaluate_network"} | SUMMARISE
BASELINE = {"fit_baseline", "summarise_networks"} | TRUST
EVALUATE = {"train_network"} | MEASURES
TRAIN = EVALUATE | EXPLAIN
FIT = {"fit_statistics"} | TRAIN
DIFFER = {"map_group_difference", "localise_difference"}
AUDIT = {"audit_split", "report_splits"} | FIT | DIFFER | BASELINE
COLLECT = {"collect_scans", "check_scans", "show_quality"}
DRAW = {"draw_quality"} | COLLECT
QUALITY = {"assess_quality"} | DRAW | AUDIT
REGISTER = {"register_to_template", "carry_truth", "measure_areas"} | QUALITY
CORRECT = {"correct_intensity"} | REGISTER
STRIP = {"strip_skull"} | CORRECT
CHOOSE = {"choose_skull_tool"} | STRIP
CONVERT = {"convert_series"} | STRIP
SIMULATE = {"simulate_scan", "check_simulation"} | CONVERT
COHORT = SIMULATE | {"write_scan_table"}
# Other folds leave the fixed split and its heatmaps alone, and the other way round.
FOLDS = {"audit_split", "report_splits", "fit_statistics"} | EVALUATE | BASELINE
FIXED = AUDIT - {"evaluate_folds"}

# All that draws, and what follows: no scan is registered anew, no network trained.
FIGURES = (
    {
        *(
            "check_simulation",
            "evaluate_folds",
            "summarise_networks",
            "compare_methods",
            "show_truth",
        ),
        *("compare_localisation", "compare_faithfulness", "compare_randomisation"),
    }
    | DRAW
    | TRUST
)

SLICES = {"compare_methods", "compare_localisation", "show_truth"} | DRAW | TRUST

# A healthy twin is a scan of its own, and finished with the scan that it belongs to.
TWIN = {*SCAN_CHAIN, "measure_residual"} - {"draw_quality"} | COLLECT

# Key, as its place in the schema -> a new value -> the rules that run again.
SIMULATION = "cohorts.tiny.simulation"
TABLE = {
    "tasks": ([["AD", "NC", "MCI"]], SIMULATE),
    "progression.horizon_months": (24, set()),  # no task asks who turns AD
    "progression.visit": ("any", set()),
    "template": ("templateflow", {"make_template", "make_atlas", "make_regions"} | REGISTER),
    "resolution_mm": (3, {"make_template", "make_atlas", "make_regions"} | REGISTER),
    "skull.tool": ("auto", CHOOSE),
    "skull.bet.fractional_intensity": (0.4, set()),
    "skull.bet.robust_centre": (True, set()),
    "skull.deepbet.threshold": (0.4, STRIP),
    "skull.deepbet.dilate": (1, STRIP),
    "skull.ladder": (["neck"], STRIP),
    "skull.neck_mm": (160, STRIP),
    "skull.gate.min_brain_volume_ml": (710, STRIP),
    "skull.gate.max_brain_volume_ml": (2310, STRIP),
    "skull.gate.min_largest_part": (0.97, STRIP),
    "skull.gate.max_border_share": (0.06, STRIP),
    "skull.gate.min_overlap": (0.91, STRIP),
    "skull.gate.min_similarity": (0.41, STRIP),
    "conversion.missing_slices": (2, CONVERT),
    "conversion.max_slice_mm": (3.5, CONVERT),
    "conversion.trust": ("sform", CONVERT),
    "conversion.unoriented": ("LAS", CONVERT),
    "bias_correction": ("never", CORRECT),
    "intensity_scale": ("white_matter", CORRECT),
    "registration.transform": ("affine", REGISTER),
    "registration.seed": (43, REGISTER),
    "quality.min_brain_volume_ml": (710, QUALITY),
    "quality.max_brain_volume_ml": (2310, QUALITY),
    "quality.min_largest_part": (0.97, QUALITY),
    "quality.max_border_share": (0.06, QUALITY),
    "quality.min_overlap": (0.91, QUALITY),
    "quality.min_similarity": (0.51, QUALITY),
    "quality.keep": (["I1001000"], QUALITY),
    "report.subjects": (False, set()),
    "report.viewed_scans": (1, set()),
    "report.radiological": (True, {"compare_methods", "show_truth"} | TRUST),
    "max_failed": (0.1, {"check_scans"}),
    "keep_intermediates": (False, set()),
    "splits.folds": (3, FOLDS),
    "splits.repeats": (2, FOLDS),
    "splits.stratify": (False, FOLDS),
    "splits.fixed_test_patients": (2, FIXED),
    "splits.group_by": ("patient", set()),  # by head, see test_splits_by_head.py
    "splits.fixed_draw": ("as_published", FIXED),
    "splits.external": ([], set()),  # with another cohort, see test_all_methods.py
    "splits.seed": (2, AUDIT),
    "normalisation.sd_floor": (0.2, FIT),
    "normalisation.fit_on": (3, FIT),
    "models.rieke.pools": ([2, 2, 2, 2], TRAIN),
    "models.rieke.dropout": (0.5, TRAIN),
    "models.rieke.optimiser": ("sgd", TRAIN),
    "models.rieke.learning_rate": (0.001, TRAIN),
    "models.rieke.batch_size": (2, TRAIN),
    "models.rieke.epochs": (3, TRAIN),
    "models.rieke.every_class": (True, TRAIN),
    "training.precision": ("bfloat16", TRAIN),
    "training.deterministic": (False, TRAIN),
    "training.seeds": ([1, 2], TRAIN | {"compare_runs"}),
    "training.tensorboard": (True, {"write_events"}),
    "evaluation.roc_auc": ("hard_labels", MEASURES | BASELINE),
    "evaluation.baselines": (["areas"], {"summarise_networks"} | TRUST),
    "device": ("auto", set()),
    "threads": (3, TRAIN),
    "heatmaps.methods": (
        ["occlusion", "sensitivity", "summary"],
        COMBINE | {"compare_randomisation"},
    ),
    "heatmaps.splits": ("all", EXPLAIN | DIFFER | {"compare_runs"}),
    "heatmaps.target": ("predicted", EXPLAIN),
    "heatmaps.chunk_size": (1, EXPLAIN),
    "heatmaps.keep_scans": (False, set()),
    "heatmaps.cohorts": ([], set()),  # nothing is explained any more
    "cohorts.tiny.models": (["rieke"], set()),  # the only one here
    "sa_ucm.levels": (2, EXPLAIN_OTHERS),
    "sa_ucm.most_segments": (8, EXPLAIN_OTHERS),
    "cam.layer": ("features.10", EXPLAIN_OTHERS),
    "cam.placement": ("stretch", EXPLAIN_OTHERS),
    "smoothgrad.samples": (3, EXPLAIN_OTHERS),
    "smoothgrad.noise": (0.2, EXPLAIN_OTHERS),
    "smoothgrad.seed": (1, EXPLAIN_OTHERS),
    "integrated_gradients.steps": (4, EXPLAIN_OTHERS),
    "lrp.composite": ("epsilon", set()),  # not among the methods here
    "summary.methods": (["sensitivity", "occlusion"], COMBINE),
    "summary.normalise": ("rank", COMBINE),
    "occlusion.size_mm": (20, EXPLAIN),
    "occlusion.stride_mm": (20, EXPLAIN),
    "occlusion.spread": ("average", EXPLAIN),
    "voxel_occlusion.size_voxels": (3, EXPLAIN_OTHERS),
    "voxel_occlusion.stride_voxels": (2, EXPLAIN_OTHERS),
    "areas.placement": (
        "as_published",
        {"make_atlas", "measure_areas"} | EXPLAIN_OTHERS | BASELINE,
    ),
    "areas.share_of": ("atlas", {"tabulate_areas"} | COMPARE),
    "areas.top": (5, COMPARE),
    "areas.least_ml": (1, COMPARE),
    "localisation.regions": (["cortex"], LOCALISE),
    "localisation.truth_threshold": (0.1, LOCALISE | {"show_truth"}),
    "localisation.residual": (True, TWIN | LOCALISE | {"show_truth"}),
    "localisation.residual_threshold": (0.2, set()),  # no residual here
    "localisation.smoothing_mm": ([8], LOCALISE),
    "localisation.draws": (500, {"compare_localisation"} | TRUST),
    "faithfulness.scans": (1, FOLLOW),
    "faithfulness.steps": (5, FOLLOW),
    "faithfulness.random_orders": (3, FOLLOW),
    "faithfulness.seed": (2, FOLLOW | FORGET),
    "faithfulness.randomised_scans": (2, FORGET),
    "faithfulness.randomise": (["sensitivity"], {"compare_randomisation"} | TRUST),
    f"{SIMULATION}.preset": ("hippocampal", SIMULATE),
    f"{SIMULATION}.seed": (4, COHORT),
    f"{SIMULATION}.first_number": (100, COHORT),
    f"{SIMULATION}.groups.AD.converts": (0.5, set()),  # AD is what others turn into
    f"{SIMULATION}.groups.AD.patients": (4, COHORT),
    f"{SIMULATION}.groups.AD.severity": ([0.5, 0.6], SIMULATE),
    f"{SIMULATION}.visits": ({"sc": 1.0, "m12": 1.0}, COHORT),
    f"{SIMULATION}.age": ([70, 80], COHORT),
    f"{SIMULATION}.ageing_per_decade": (0.03, SIMULATE),
    f"{SIMULATION}.progression_per_year": (0.2, set()),  # only first visits here
    f"{SIMULATION}.atrophy.areas": (["Hippocampus"], SIMULATE),
    f"{SIMULATION}.atrophy.max_loss": (0.2, SIMULATE),
    f"{SIMULATION}.atrophy.extent": (0.5, SIMULATE),
    f"{SIMULATION}.atrophy.asymmetry": (0.3, SIMULATE),
    f"{SIMULATION}.atrophy.spread": (0.2, SIMULATE),
    f"{SIMULATION}.shortcut.kind": ("scanner", SIMULATE),
    f"{SIMULATION}.shortcut.group": ("CN", set()),  # nobody carries one here
    f"{SIMULATION}.shortcut.share": (0.5, set()),
    f"{SIMULATION}.shortcut.strength": (0.2, set()),
    f"{SIMULATION}.shortcut.area": ("Cuneus_R", set()),
    f"{SIMULATION}.shortcut.sd_mm": (20, set()),
    f"{SIMULATION}.scanner.motion.share": (0.9, SIMULATE),
    f"{SIMULATION}.scanner.motion.translation_mm": (3, set()),  # nobody moves here
    f"{SIMULATION}.scanner.motion.rotation_deg": (3, set()),
    f"{SIMULATION}.scanner.deformation_mm": (2.0, SIMULATE),
    f"{SIMULATION}.scanner.rotation_deg": (5, SIMULATE),
    f"{SIMULATION}.scanner.translation_mm": (5, SIMULATE),
    f"{SIMULATION}.scanner.bias": (0.1, SIMULATE),
    f"{SIMULATION}.scanner.noise": (0.02, SIMULATE),
    f"{SIMULATION}.scanner.gain": (0.1, SIMULATE),
    f"{SIMULATION}.scanner.voxel_size_mm": ([2.5, 2.6], SIMULATE),
    f"{SIMULATION}.heads": (
        ["head.nii.gz"],
        {"choose_skull_tool", "strip_head", "register_head"} | SIMULATE,
    ),
}
# Rows whose value is the default: what another one does is tested where they say.
DEFAULTS = {"splits.group_by", "splits.external"}
# Keys that say where a user's own scans are: another source altogether (test_archive.py).
OTHER_SOURCE = {
    "cohorts",
    "cohorts.tiny.train",
    "apply.networks",
    "apply.cohorts",
    "cohorts.tiny.source",
    "cohorts.tiny.table",
    "cohorts.tiny.images",
    "cohorts.tiny.images_are",
    "cohorts.tiny.files",
    "cohorts.tiny.diagnosis_words",
    *(
        f"cohorts.tiny.columns.{name}"
        for name in ("image", "subject", "diagnosis", "visit", "date", "description", "sex", "age")
    ),
    "cohorts.tiny.columns.phase",
    "cohorts.tiny.columns.field_strength",
    *(f"cohorts.tiny.select.{name}" for name in EVERYTHING),
}


# All settings of a network reach its training in one param: rieke's stand for those of the others.
OTHER_NETWORKS = {
    f"models.{name}.{key}"
    for name, model in MODELS.items()
    if name != "rieke"
    for key in {*model.options, *dataclasses.asdict(model.recipe)}
}


# With the stages that the real run of the tests leaves out.
WHOLE = {key: value for key, value in TINY.items() if key != "bias_correction"}
WHOLE["skull"] = {"tool": "deepbet"}


def changed(key, value, config=TINY):
    config = copy.deepcopy(config)
    *path, last = key.split(".")
    place = config
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    return config


def changes(config=WHOLE, before=WHOLE, **edited):
    """The jobs that run again after a run of the tiny cohort."""
    return reruns(jobs_of(before), jobs_of(config, **edited))


def count(jobs, rule):
    return sum(job["rule"] == rule for job in jobs)


@pytest.mark.parametrize("key", TABLE)
def test_a_changed_key_reruns_exactly_these_rules(key):
    value, rules = TABLE[key]
    jobs = changes(changed(key, value, WHOLE))
    # A tool chosen anew (heads need it early) is an input of skull stripping, nothing else.
    assert rules_of(jobs) == rules - ({"choose_skull_tool"} if key.endswith("heads") else set())
    shown = 0 if key in DEFAULTS else 1
    assert count(jobs, "report_results") == shown, "it shows the configuration"


def test_every_key_of_the_schema_has_a_row():
    schema = read_schema(ROOT / "schemas/config.schema.yaml")

    def leaves(described, path):
        while "$ref" in described:
            described = {
                **schema["$defs"][described["$ref"].rsplit("/", 1)[1]],
                **{k: v for k, v in described.items() if k != "$ref"},
            }
        children = described.get("properties", {})
        others = described.get("additionalProperties")
        if path == "cohorts":
            yield path
            yield from leaves(others, "cohorts.tiny")
        elif path.endswith("simulation.groups"):
            yield from leaves(others, f"{path}.AD")
        elif children:
            for key, child in children.items():
                yield from leaves(child, f"{path}.{key}" if path else key)
        else:
            yield path

    assert set(leaves(schema, "")) == TABLE.keys() | OTHER_SOURCE | OTHER_NETWORKS


def test_one_more_patient_simulates_and_processes_only_that_one():
    jobs = changes(changed(f"{SIMULATION}.groups.AD.patients", 4, WHOLE))
    assert {count(jobs, rule) for rule in (*SCAN_CHAIN, "carry_truth")} == {1}
    assert rules_of(jobs) == COHORT, "the scan, its splits, and what follows from them"


@pytest.mark.parametrize(
    ("key", "value"), [("occlusion.size_mm", 20), ("voxel_occlusion.size_voxels", 3)]
)
def test_one_occlusions_size_touches_one_method_and_no_training(key, value):
    jobs = changes(changed(key, value, WHOLE))
    (explained,) = (job for job in jobs if job["rule"] == "explain_scans")
    assert explained["wildcards"]["method"] == key.split(".")[0]
    assert count(jobs, "average_heatmaps") == 4, "of both classes, its own and the summary's"


def test_one_methods_module_reruns_its_own_methods_only():
    jobs = changes(edited=[("voxplain/relevance/gradient.py", "\nADDED = 1\n")])
    explained = {job["wildcards"]["method"] for job in jobs if job["rule"] == "explain_scans"}
    # grad_cam takes a gradient, too.
    gradients = {"sensitivity", "guided_backprop", "smoothgrad", "integrated_gradients"}
    assert explained == {*gradients, "grad_cam"}


def test_one_more_network_or_task_trains_only_its_own():
    config = {**WHOLE, "models": {**TINY["models"], "voxcnn": {"epochs": 2}}}
    jobs = changes(config)
    assert count(jobs, "train_network") == 3
    assert count(jobs, "evaluate_folds") == 1
    assert not [job for job in jobs if job["wildcards"].get("model") == "rieke"]
    config = {**WHOLE, "tasks": [["AD", "NC"], ["AD", "MCI"]]}
    jobs = changes(config)
    assert count(jobs, "train_network") == 3
    assert count(jobs, "simulate_scan") == 3
    assert not [job for job in jobs if job["wildcards"].get("task") == "AD-NC"]


@pytest.mark.parametrize(
    ("key", "value", "trained"), [("splits.repeats", 2, 2), ("training.seeds", [1, 2], 3)]
)
def test_one_more_repeat_or_seed_trains_only_the_new_networks(key, value, trained):
    jobs = [job for job in changes(changed(key, value, WHOLE)) if job["rule"] == "train_network"]
    assert len(jobs) == trained
    for job in jobs:
        wildcards = job["wildcards"]
        assert wildcards["seed"] == "2" or wildcards["split"].startswith("repeat-2")


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("voxplain/anatomy/quality.py", STRIP),
        ("voxplain/anatomy/skull.py", CHOOSE),
        ("voxplain/anatomy/ladder.py", STRIP),
        ("voxplain/anatomy/register.py", STRIP),
        ("voxplain/store.py", REGISTER),
        ("voxplain/training/cropped.py", TRAIN),
        ("voxplain/training/predictions.py", TRAIN | BASELINE),
        ("voxplain/plots/slices.py", SLICES),
        ("voxplain/plots/figures.py", FIGURES),
        ("voxplain_workflow/jobs/frame.py", set()),
        ("voxplain_workflow/running/start.py", set()),
        ("voxplain_workflow/naming.py", set()),
        ("voxplain/cohort/fates.py", COLLECT),
        ("voxplain/cohort/usable.py", AUDIT),
        ("voxplain/comparison/localisation.py", LOCALISE | TELL),
        ("voxplain/comparison/faithfulness.py", FOLLOW | FORGET),
        ("voxplain/comparison/faithfulness_tables.py", TELL),
        ("voxplain/relevance/randomisation.py", FORGET),
        ("voxplain/relevance/deletion.py", FOLLOW),
        ("voxplain/comparison/difference.py", DIFFER | TRUST | {"compare_localisation"}),
        ("voxplain/cohort/dicom.py", SIMULATE),
        ("voxplain/cohort/scan.py", {"report_splits"}),
        ("voxplain/cohort/split_names.py", {"report_splits"} | SUMMARISE | BASELINE),
        ("voxplain/cohort/names.py", {"report_splits"} | COLLECT),
        ("voxplain/cohort/words.py", CONVERT),
        ("voxplain/relevance/door.py", EXPLAIN),
        ("voxplain/cohort/dicom_images.py", CONVERT),
        ("voxplain/cohort/dicom_choice.py", CONVERT),
        ("voxplain/cohort/dicom_slices.py", CONVERT),
        ("voxplain/cohort/dicom_streams.py", CONVERT),
        ("voxplain/cohort/orientation.py", CONVERT),
        ("voxplain/cohort/outliers.py", {"show_quality"}),
        ("voxplain/relevance/gradient.py", EXPLAIN),
        ("voxplain/relevance/combine.py", COMBINE),
        ("voxplain/comparison/models.py", SUMMARISE),
        ("voxplain/models/rieke.py", TRAIN),
        (
            "voxplain/comparison/distance.py",
            COMPARE | {"compare_localisation", "show_truth"} | TRUST,
        ),
        ("voxplain/training/metrics.py", MEASURES | BASELINE),
        ("voxplain/comparison/auc.py", SUMMARISE),
        ("voxplain/comparison/baselines.py", BASELINE),
        ("correct_intensity.py", CORRECT),
    ],
)
def test_a_change_of_code_reruns_the_rules_that_run_it(module, rules):
    assert rules_of(changes(edited=[(module, "\nADDED = 1\n")])) == rules


@pytest.mark.parametrize("module", ["voxplain/relevance/gradient.py", "train_network.py"])
def test_a_comment_reruns_nothing(module):
    assert not changes(edited=[(module, "\n# a comment\n")])


def test_each_job_has_the_fingerprint_of_its_own_script_and_choice():
    """And not another rule's; see tests/unit/test_selected.py for what each of these covers."""
    codes = Codes(ROOT / "scripts")
    selecting = {
        "train_network": lambda w: codes.of_training(w["model"]),
        "change_areas": lambda w: codes.of_changing_areas(w["model"]),
        "explain_scans": lambda w: codes.of_explaining(w["model"], w["method"]),
        "randomise_layers": lambda w: codes.of_randomising(w["model"], w["method"]),
        "report_results": lambda w: codes.of_report(["rieke"], WHOLE["heatmaps"]["methods"]),
    }
    rules = set()
    for job in jobs_of(WHOLE):
        if job["rule"] not in TARGETS:
            code = selecting.get(job["rule"], lambda w, rule=job["rule"]: codes.of_script(rule))
            assert job["params"]["code"] == repr(code(job["wildcards"])), job["rule"]
            rules.add(job["rule"])
    assert rules >= {*selecting, "report_trust", "strip_skull"}


# --- whether Snakemake agrees, on a finished run ------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    [
        "resolution_mm",
        "skull.deepbet.threshold",
        "quality.keep",
        "max_failed",
        "splits.folds",
        "models.rieke.epochs",
        "heatmaps.methods",
        "heatmaps.cohorts",
        "summary.normalise",
        "localisation.residual",
        "areas.top",
        f"{SIMULATION}.groups.AD.patients",
    ],
)
def test_snakemake_agrees_on_a_finished_run(tiny_run, key):
    value, rules = TABLE[key]
    run = snakemake(tiny_run, "-n", config=changed(key, value))
    assert run.status == 0, run.said
    assert run.rules == rules
    again = Counter(job["rule"] for job in changes(changed(key, value), before=TINY))
    assert run.jobs == {**again, "all": 1}


@pytest.mark.slow
def test_snakemake_agrees_on_an_edited_module(tiny_run, checkout):
    module, added = "voxplain/store.py", "\nADDED = 1\n"
    path = checkout / "scripts" / module
    path.write_text(path.read_text() + added)
    run = snakemake(tiny_run, "-n", root=checkout, config=TINY)
    assert run.status == 0, run.said
    again = changes(TINY, before=TINY, edited=[(module, added)])
    assert run.jobs == {**Counter(job["rule"] for job in again), "all": 1}


@pytest.mark.slow
def test_keys_of_what_does_not_take_part_rerun_nothing(tiny_run):
    """All at once: were one of them to rerun anything, so would all."""
    config = TINY
    for key, (value, rules) in TABLE.items():
        # Without heatmaps, keys of heatmaps would be of what does not take part.
        if not rules and key != "heatmaps.cohorts":
            config = changed(key, value, config)
    run = snakemake(tiny_run, "-n", config=config)
    assert run.status == 0, run.said
    assert not run.rules, run.said
    assert run.jobs["report_results"] == 1, "it shows the configuration"


@pytest.mark.slow
def test_an_edited_entry_of_a_registry_reruns_what_it_decides(tiny_run, checkout):
    path = checkout / "scripts/voxplain/relevance/__init__.py"
    text = path.read_text()
    for told in ("number of noisy copies", "_GRADIENT = 3"):  # for people, and for the estimate
        assert told in text
    path.write_text(text.replace("number of noisy", "how many noisy").replace("NT = 3", "NT = 4"))
    assert "Nothing to be done" in snakemake(tiny_run, "-n", root=checkout, config=TINY).said
    filled_in = '"mask": "[x, y, z] bool; the voxels that get noise",'
    assert filled_in in text
    path.write_text(text.replace(filled_in, ""))
    run = snakemake(tiny_run, "-n", root=checkout, config=TINY)
    assert run.jobs["explain_scans"] == 1, run.said
    assert "method=smoothgrad" in run.said
    assert run.rules == EXPLAIN_OTHERS
    path.write_text(text.replace('sources=("zeiler2014",)', 'sources=("zeiler2014", "wen2020")'))
    run = snakemake(tiny_run, "-n", root=checkout, config=TINY)
    assert not run.rules, run.said
    assert run.jobs["report_results"] == 1, "it cites them"


@pytest.mark.slow
def test_a_reordered_config_and_other_cores_rerun_nothing(tiny_run):
    def reordered(value):
        if isinstance(value, dict):
            return {key: reordered(value[key]) for key in reversed(value)}
        return value

    config = reordered(TINY)
    # The order of groups is the order of their patients' numbers; it is no matter of style.
    simulation = config["cohorts"]["tiny"]["simulation"]
    simulation["groups"] = TINY["cohorts"]["tiny"]["simulation"]["groups"]
    run = snakemake(tiny_run, "-n", "--cores", "1", config=config)
    assert "Nothing to be done" in run.said, run.said


@pytest.mark.slow
def test_a_fresh_clone_with_copied_results_reruns_nothing(tiny_run, checkout, tmp_path):
    """The code's times are new, those of results came along (cp -a, rsync -a)."""
    place = tmp_path / "copied"
    shutil.copytree(tiny_run, place, symlinks=True)
    for number, path in enumerate(checkout.rglob("*")):
        os.utime(path, (time.time() + number, time.time() + number))
    run = snakemake(place, "-n", root=checkout, config=TINY)
    assert run.status == 0, run.said
    assert "Nothing to be done" in run.said, run.said


@pytest.mark.slow
def test_results_that_lost_their_times_need_one_touch(tiny_run, tmp_path):
    """Files are compared by content, but of a folder of DICOM files only its time is known."""
    place = tmp_path / "copied"
    shutil.copytree(tiny_run, place, symlinks=True, copy_function=shutil.copyfile)
    paths = list(place.rglob("*"))
    random.Random(1).shuffle(paths)
    for number, path in enumerate(paths):
        os.utime(path, (time.time() - number, time.time() - number))
    run = snakemake(place, "--touch", config=TINY)
    assert run.status == 0, run.said
    run = snakemake(place, "-n", config=TINY)
    assert "Nothing to be done" in run.said, run.said


@pytest.mark.slow
def test_touched_scripts_and_comments_rerun_nothing(tiny_run, checkout):
    later = time.time() + 60
    for path in (checkout / "scripts").rglob("*.py"):
        path.write_text(f"# a comment\n{path.read_text()}\n\n# another\n")
        os.utime(path, (later, later))
    run = snakemake(tiny_run, "-n", root=checkout, config=TINY)
    assert run.status == 0, run.said
    assert "Nothing to be done" in run.said, run.said


@pytest.mark.slow
def test_a_touched_volume_reruns_nothing_and_a_changed_one_does(tiny_run, tmp_path):
    finished = tmp_path / "finished"
    shutil.copytree(tiny_run, finished, symlinks=True)
    corrected = sorted(finished.glob("results/tiny/derivatives/**/*desc-corrected_T1w.nii.gz"))
    later = time.time() + 60
    os.utime(corrected[0], (later, later))
    assert "Nothing to be done" in snakemake(finished, "-n", config=TINY).said
    corrected[0].write_bytes(corrected[1].read_bytes())
    os.utime(corrected[0], (later, later))
    run = snakemake(finished, "-n", config=TINY)
    assert run.jobs["register_to_template"] == 1
    # (Truth is carried of a scan with a disease.)
    assert run.rules | {"carry_truth"} == REGISTER
