"""The arithmetic of the estimate; tests/workflow compares its counts with Snakemake's."""

import re

import numpy as np
import pytest

from voxplain.anatomy.template import make_template
from voxplain.atlas import read_aal
from voxplain.models import MODELS
from voxplain.relevance import METHODS
from voxplain.relevance.regions import Regions
from voxplain_workflow.planning.plan import Plan
from voxplain_workflow.planning.work import (
    AREAS,
    BRAIN,
    BRAIN_VOXELS,
    GRADIENT,
    GRID,
    PASSES_OF_START,
    count_cubes,
    count_passes,
    count_regions,
    count_work,
)
from voxplain_workflow.running.estimate import (
    INTERMEDIATE,
    Row,
    count_submissions,
    describe_estimate,
    estimate,
    expected_seconds,
    read_costs,
)

# All methods that apply to rieke, and the number of those that use the network.
OF_RIEKE = [name for name, method in METHODS.items() if not method.models]
EXPLAINED = len(OF_RIEKE) - 1
# 200 scans; the fixed split tests 60 of them.
COHORT = {
    "source": "simulated",
    "simulation": {
        "seed": 1,
        "groups": {
            "AD": {"patients": 100, "severity": [0.5, 1]},
            "CN": {"patients": 100, "severity": [0, 0]},
        },
        "visits": {"sc": 1.0},
    },
}
FAITHFULNESS = {"scans": 8, "steps": 20, "random_orders": 5, "randomised_scans": 2}


def plan(**change):
    config = {
        "cohorts": {"one": COHORT},
        "resolution_mm": 1,
        "splits": {"folds": 5, "fixed_test_patients": 30},
        "models": {"rieke": {"epochs": 20}},
        "heatmaps": {"methods": OF_RIEKE, "splits": "fixed", "chunk_size": 10},
        "faithfulness": FAITHFULNESS,
        "localisation": {"residual": False},
        "device": "auto",
        **change,
    }
    return Plan.build(config)


def work_of(**change):
    return count_work(plan(**change))


def rows_of(**change):
    planned = plan(**change)
    return {row.rule: row for row in estimate(count_work(planned), planned.settings, read_costs())}


SETTINGS = plan().settings


@pytest.mark.slow
def test_the_template_has_the_size_that_the_estimate_assumes():
    _, mask, grid = make_template("packaged", 1)
    assert grid.shape == GRID
    for axis, (start, end) in enumerate(BRAIN):
        filled = mask.any(axis=tuple(a for a in range(3) if a != axis)).nonzero()[0]
        assert (filled[0], filled[-1] + 1) == (start, end)
    assert mask.sum() == BRAIN_VOXELS
    assert len(read_aal().names) == AREAS


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [2, 3, 4])
def test_a_coarser_brain_has_as_many_fewer_voxels(resolution):
    _, mask, _ = make_template("packaged", resolution)
    voxels = count_regions({**SETTINGS, "resolution_mm": resolution})["voxel_occlusion"]
    assert voxels == pytest.approx(mask.sum(), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("resolution", "size", "stride"), [(2, 40, 12), (4, 40, 40), (4, 12, 4)])
def test_the_count_of_cubes_is_at_most_a_fourth_too_high(resolution, size, stride):
    _, mask, _ = make_template("packaged", resolution)
    edge, step = round(size / resolution), round(stride / resolution)
    centres = np.stack(np.meshgrid(*(range(0, n, step) for n in mask.shape)), axis=-1)
    true = Regions.cubes(centres, edge, mask.shape).touching(mask).sum()
    assert true <= count_cubes(size, stride, resolution) < 1.25 * true


def test_every_method_and_transform_has_a_cost():
    from voxplain.anatomy.register import TRANSFORMS

    assert read_costs()["transforms"].keys() == TRANSFORMS.keys()
    passes = count_passes(count_regions(SETTINGS), SETTINGS)
    assert passes.keys() | {"summary"} == METHODS.keys()
    assert all(model.passes > 0 for model in MODELS.values())
    assert passes["sensitivity"] == passes["guided_backprop"] == GRADIENT
    # Many regions need fewer passes than regions, but more than the first passes.
    for method, regions in count_regions(SETTINGS).items():
        assert PASSES_OF_START < passes[method] < regions


def test_one_more_region_costs_the_same_in_every_method():
    none, one, many = (
        count_passes(dict.fromkeys(count_regions(SETTINGS), count), SETTINGS)
        for count in (0, 1, 100)
    )
    for method in count_regions(SETTINGS):
        assert none[method] == PASSES_OF_START
        assert many[method] - none[method] == pytest.approx(100 * (one[method] - none[method]))


def test_work_grows_with_seeds_and_epochs():
    once, twice = (
        work_of(training={"seeds": seeds}, models={"rieke": {"epochs": epochs}})
        for seeds, epochs in (([1], 20), ([1, 2], 40))
    )
    assert once["train_network"].jobs == 6
    assert twice["train_network"].jobs == 12
    assert twice["train_network"].units == 4 * once["train_network"].units
    assert twice["explain_scans"].jobs == 2 * once["explain_scans"].jobs == 2 * EXPLAINED * 6
    assert once["average_heatmaps"].jobs == 2 * once["tabulate_areas"].jobs == 2 * len(OF_RIEKE)
    assert twice["fit_statistics"] == once["fit_statistics"]


def test_every_network_and_task_adds_its_jobs():
    models = {"rieke": {"epochs": 20}, "voxresnet_gap": {"epochs": 20}}
    methods = {"heatmaps": {"methods": list(METHODS), "splits": "fixed", "chunk_size": 10}}
    one = rows_of()
    only_rieke = {"one": {**COHORT, "models": ["rieke"]}}
    assert rows_of(models=models, cohorts=only_rieke, **methods) == one
    both = rows_of(models=models, **methods)
    assert both["train_network"].jobs == 2 * one["train_network"].jobs
    assert both["train_network"].cpu_h > 10 * one["train_network"].cpu_h
    # cam applies to the second network only.
    assert both["explain_scans"].jobs == one["explain_scans"].jobs / EXPLAINED * (2 * EXPLAINED + 1)
    assert both["summarise_networks"].jobs == one["summarise_networks"].jobs == 1


def test_a_coarser_grid_costs_less_where_it_is_the_template_grid():
    fine, coarse = rows_of(), rows_of(resolution_mm=2)
    assert coarse["train_network"].cpu_h == pytest.approx(fine["train_network"].cpu_h / 8, rel=0.01)
    assert coarse["strip_skull"] == fine["strip_skull"]
    assert coarse["explain_scans"].kept_gb == pytest.approx(fine["explain_scans"].kept_gb / 8)


def test_faithfulness_is_counted_in_forward_passes():
    def changed(**change):
        return work_of(faithfulness={**FAITHFULNESS, **change})

    work = work_of()
    # Deletion and insertion of 20 steps each, by every method and in five random orders.
    assert work["change_areas"].jobs == 1
    assert work["change_areas"].units == 8 * 2 * 20 * (len(OF_RIEKE) + 5)
    assert changed(scans=100)["change_areas"].units == 60 / 8 * work["change_areas"].units
    assert work["randomise_layers"].jobs == EXPLAINED
    assert work["randomise_layers"].units == pytest.approx(work["explain_scans"].units * 7 * 2 / 60)
    one = changed(randomise=["sensitivity"])["randomise_layers"]
    assert (one.jobs, one.units) == (1, 7 * 2 * GRADIENT)
    none = changed(scans=0, randomised_scans=0)
    rules = {"change_areas", "compare_faithfulness", "randomise_layers", "compare_randomisation"}
    assert work.keys() - none.keys() == rules


def test_gpu_hours_are_estimated_where_a_gpu_may_be_used():
    assert rows_of(device="cpu")["train_network"].gpu_h == 0
    assert 0 < rows_of()["train_network"].gpu_h < rows_of()["train_network"].cpu_h
    assert rows_of()["register_to_template"].gpu_h == 0


def test_deleted_files_count_as_temporary_disk_space():
    kept = rows_of()["register_to_template"]
    removed = rows_of(keep_intermediates=False)["register_to_template"]
    assert kept.passing_gb == 0
    assert removed.kept_gb + removed.passing_gb == pytest.approx(kept.kept_gb)
    assert removed.kept_gb < 0.12 * kept.kept_gb
    kept, removed = (
        rows_of(heatmaps={"methods": OF_RIEKE, "splits": "fixed", "keep_scans": keep})
        for keep in (True, False)
    )
    assert removed["explain_scans"].kept_gb == kept["explain_scans"].passing_gb == 0
    assert removed["explain_scans"].passing_gb == kept["explain_scans"].kept_gb


def test_the_queue_sees_groups_of_ten_scans():
    rows = rows_of()
    grouped, single = count_submissions(list(rows.values()))
    assert single == sum(row.jobs for row in rows.values())
    assert single - grouped == 7 * 200 - 20


def test_a_cohort_of_one_class_is_preprocessed_only():
    rows = rows_of(tasks=[["AD"]])
    assert "train_network" not in rows
    assert rows["simulate_scan"].jobs == 100


def test_every_job_has_an_expected_time_and_a_target_has_none():
    planned = plan(device="cpu")
    seconds = expected_seconds(planned)
    assert seconds["all"] == 0
    row = rows_of(device="cpu")["train_network"]
    assert seconds["train_network"] == pytest.approx(3600 * row.cpu_h / row.jobs)
    # On a cluster there may be a GPU.
    config = {"cohorts": {"one": COHORT}, "device": "auto"}
    local_jobs, cluster_jobs = (
        expected_seconds(Plan.build(config, local=local)) for local in (True, False)
    )
    assert cluster_jobs["train_network"] <= local_jobs["train_network"]
    assert cluster_jobs["strip_skull"] == local_jobs["strip_skull"]


def test_a_plan_with_a_fault_has_no_expected_times():
    assert expected_seconds(plan(splits={"fixed_test_patients": 100})) == {}


def test_the_text_names_hours_disk_and_jobs():
    rows = [
        Row("convert_series", 1000, 3.5, 0, 8.0, 2.0),
        Row("train_network", 6, 100.0, 1.0, 0.5, 0),
    ]
    text = describe_estimate(969, rows)
    assert "969 scans" in text
    assert re.search(r"^total +1,006 +103\.50 +1\.00 +10\.50$", text, re.M)
    assert "Without a GPU:  103.5 CPU hours." in text
    assert "3.5 CPU hours and 1.0 GPU hours" in text
    assert "assumed, not measured" in text
    assert "8.5 GB stay. Up to 2.0 GB more are removed on the way." in text
    assert "106 jobs through profiles/slurm, 1,006 without its groups" in text


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("sub-1_ses-M0_acq-I1_T1w.nii.gz", True),
        ("sub-1_ses-M0_acq-I1_desc-brain_mask.nii.gz", True),
        ("sub-1_ses-M0_acq-I1_desc-corrected_T1w.nii.gz", True),
        ("sub-1_ses-M0_acq-I1_from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.h5", True),
        ("sub-1_ses-M0_acq-I1_T1w.json", False),
        ("sub-1_ses-M0_acq-I1_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz", False),
        ("sub-1_ses-M0_acq-I1_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz", False),
    ],
)
def test_intermediate_volumes_are_known_by_name(name, passes):
    assert bool(INTERMEDIATE.search(name)) == passes
