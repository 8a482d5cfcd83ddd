import os

import numpy as np
import pandas as pd
import pytest

from voxplain.comparison.models import NetworkPredictions, Summary
from voxplain.comparison.retraining import pairs_of_runs, spread_rows
from voxplain.training.cross_validation import cross_validation_table
from voxplain.training.predictions import predictions_table
from voxplain_workflow.running.summary import (
    summarise_accuracy,
    summarise_applied,
    summarise_comparison,
    summarise_faithfulness,
    summarise_localisation,
    summarise_networks,
    summarise_run,
    summarise_spread,
)

CLASSES = ["AD", "NC"]
METHODS = ["sensitivity", "occlusion"]
LOOK = {"sep": "\t", "index": False, "na_rep": "n/a"}


def predictions(probabilities, groups):
    members = pd.DataFrame(
        [(f"I{n}", f"P{n}", group) for n, group in enumerate(groups)],
        columns=["image", "patient", "class"],
    )
    p = np.array(probabilities)
    return predictions_table(members, np.stack([p, 1 - p], axis=1), CLASSES)


def write_cross_validation(place, tables):
    """As the workflow writes it."""
    place.mkdir(parents=True, exist_ok=True)
    table = cross_validation_table(tables, CLASSES).assign(model="rieke (pools 2,2,2,1)")
    table.to_csv(place / "cross_validation.tsv", float_format="%.4f", **LOOK)


def write_comparison(folder, distances, tops, model="rieke"):
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["class", "method_a", "method_b", "distance"]
    table = pd.DataFrame(distances, columns=columns).assign(model=model)
    table.to_csv(folder / "distances.tsv", float_format="%.6g", **LOOK)
    columns = ["method", "class", "by", "rank", "area", "share", "density"]
    table = pd.DataFrame(tops, columns=columns).assign(model=model)
    table.to_csv(folder / "top_areas.tsv", float_format="%.6g", **LOOK)


def matrix(group, distance):
    return [(group, a, b, 0.0 if a == b else distance) for a in METHODS for b in METHODS]


TOPS = [
    ("sensitivity", "AD", "sum", 1, "Temporal_Mid", 0.0734, 1.5),
    ("sensitivity", "AD", "sum", 2, "Hippocampus", 0.05, 4.25),
    ("sensitivity", "AD", "density", 1, "Hippocampus", 0.05, 4.25),
    ("sensitivity", "NC", "sum", 1, "Hippocampus", 0.06, 5.0),
    ("sensitivity", "NC", "density", 1, "Hippocampus", 0.06, 5.0),
    ("occlusion", "AD", "sum", 1, "Temporal_Mid", 0.3, 2.0),
    ("occlusion", "AD", "density", 1, "Temporal_Mid", 0.3, 2.0),
]


@pytest.fixture
def place(tmp_path):
    place = tmp_path / "results" / "demo" / "ad-nc" / "rieke"
    tables = {
        (1, 1, 1): predictions([0.9, 0.1], ["AD", "NC"]),
        (1, 2, 1): predictions([0.8, 0.3, 0.6, 0.2], ["AD", "AD", "NC", "NC"]),
    }
    write_cross_validation(place, tables)
    for seed in (1, 2):
        distances = [*matrix("AD", 12.346e-4 * seed), *matrix("NC", 0.5e-4)]
        write_comparison(place / "fixed" / f"seed-{seed}", distances, TOPS)
    return place


def read(path):
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).to_dict("records")


# --- accuracy -------------------------------------------------------------------------------------


def test_mean_sd_and_pooled_accuracy_are_shown_per_scan_and_per_patient(place):
    lines = summarise_accuracy(read(place / "cross_validation.tsv")).splitlines()
    assert lines[0] == (
        "Cross-validation of rieke (pools 2,2,2,1) (mean ± SD over folds; pooled over folds)"
    )
    assert lines[1] == "  per scan:"
    assert lines[2] == "    accuracy 0.75 ± 0.35; 0.67"
    assert lines[3] == "    balanced accuracy 0.75 ± 0.35; 0.67"
    assert lines[4] == "    roc auc 0.88 ± 0.18; 0.89"
    assert lines[5] == "    sensitivity 0.75 ± 0.35; 0.67"
    assert lines[6] == "    specificity 0.75 ± 0.35; 0.67"
    assert lines[7] == "  per patient:"
    assert len(lines) == 13


def test_a_measure_that_no_fold_has_is_shown_as_missing(tmp_path):
    write_cross_validation(tmp_path, {(1, 1, 1): predictions([0.9, 0.2], ["AD", "AD"])})
    text = summarise_accuracy(read(tmp_path / "cross_validation.tsv"))
    assert "accuracy 0.50 ± n/a; 0.50" in text
    assert "roc auc n/a ± n/a; n/a" in text
    assert "nan" not in text


# --- comparison -----------------------------------------------------------------------------------


def test_the_distances_of_both_classes_are_in_one_table(place):
    lines = summarise_comparison(place / "fixed" / "seed-1")
    assert lines[0] == (
        "Distances of the methods' average heatmaps, AD / NC in 1e-4 (rieke, fixed, seed-1)"
    )
    assert [line.split() for line in lines[1:4]] == [
        ["sensitivity", "occlusion"],
        ["sensitivity", "0.00", "/", "0.00", "12.35", "/", "0.50"],
        ["occlusion", "12.35", "/", "0.50", "0.00", "/", "0.00"],
    ]


def test_many_methods_are_shown_by_nearest_and_farthest_method(tmp_path):
    methods = [f"m{number}" for number in range(7)]
    folder = tmp_path / "fixed" / "seed-1"
    by_pair = {
        (group, a, b): abs(i - j) * scale * 1e-4
        for group, scale in (("AD", 1), ("NC", 2))
        for i, a in enumerate(methods)
        for j, b in enumerate(methods)
    }
    distances = [
        (*key, None if "m3" in key[1:] and key[1] != key[2] else value)
        for key, value in by_pair.items()
    ]
    write_comparison(folder, distances, [])
    lines = summarise_comparison(folder)
    assert lines[1].split() == ["the", "nearest", "the", "farthest"]
    assert lines[2].split() == ["m0", "m1", "1.00", "/", "2.00", "m6", "6.00", "/", "12.00"]
    assert lines[4].split() == ["m2", "m1", "1.00", "/", "2.00", "m6", "4.00", "/", "8.00"]
    assert lines[5].split() == ["m3"]
    assert max(map(len, lines[:9])) < 100


def test_the_columns_of_a_table_are_aligned(place):
    header, first, second = summarise_comparison(place / "fixed" / "seed-1")[1:4]
    assert header.index("sensitivity") == first.index("0.00") == second.index("12.35")
    assert header.index("occlusion") == first.index("12.35") == second.index("0.00")


def section(lines, title):
    start = next(n for n, line in enumerate(lines) if line.startswith(title))
    return [line.split() for line in lines[start + 1 : start + 5]]


def test_the_top_areas_are_shown_by_sum_in_percent_and_by_density(place):
    lines = summarise_comparison(place / "fixed" / "seed-1")
    missing = ["(the", "average", "map", "is", "0)"]
    assert section(lines, "Areas with most relevance by sum") == [
        ["sensitivity", "AD", "Temporal_Mid", "7.3%", "Hippocampus", "5.0%"],
        ["sensitivity", "NC", "Hippocampus", "6.0%"],
        ["occlusion", "AD", "Temporal_Mid", "30.0%"],
        ["occlusion", "NC", *missing],
    ]
    assert section(lines, "Areas with most relevance by density") == [
        ["sensitivity", "AD", "Hippocampus", "4.2"],
        ["sensitivity", "NC", "Hippocampus", "5.0"],
        ["occlusion", "AD", "Temporal_Mid", "2.0"],
        ["occlusion", "NC", *missing],
    ]
    assert lines[-1].startswith(f"  files: {place / 'fixed' / 'seed-1'}/")


def test_a_map_of_zeros_has_no_distance(tmp_path):
    folder = tmp_path / "fixed" / "seed-1"
    distances = [
        ("AD", a, b, 0.0 if a == b == "sensitivity" else None) for a in METHODS for b in METHODS
    ]
    write_comparison(folder, distances, [])
    lines = summarise_comparison(folder)
    assert lines[2].split() == ["sensitivity", "0.00", "n/a"]
    assert lines[3].split() == ["occlusion", "n/a", "n/a"]
    assert section(lines, "Areas with most relevance by sum")[0][:3] == [
        "sensitivity",
        "AD",
        "(the",
    ]


# --- localisation ---------------------------------------------------------------------------------


def write_localisation(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["method", "region", "smoothing_mm", "measure", "mean", "times_chance"]
    pd.DataFrame(rows, columns=columns).to_csv(
        folder / "localisation.tsv", float_format="%.6g", **LOOK
    )


def test_the_method_that_finds_the_atrophy_best_is_first(place):
    folder = place / "fixed" / "seed-1"
    rows = [
        (method, region, width, measure, mean + width / 120, (mean + width / 120) / 0.02)
        for method, mean in (("sensitivity", 0.1), ("occlusion", 0.31), ("silent", np.nan))
        for region in ("truth", "cortex")
        for width in (0, 12)
        for measure in ("average_precision", "mass")
    ]
    write_localisation(folder, rows)
    lines = summarise_localisation(folder)
    assert "what was simulated" in lines[1]
    assert lines[2].split() == ["as", "it", "is", "smoothed", "12", "mm"]
    assert [line.split()[0] for line in lines[3:6]] == ["occlusion", "sensitivity", "silent"]
    assert lines[3].split()[1:] == [
        "0.31",
        "(15.5",
        "x",
        "chance)",
        "0.41",
        "(20.5",
        "x",
        "chance)",
    ]
    assert lines[5].split()[1:3] == ["n/a", "(n/a"]
    assert "what was simulated" in summarise_run(place, ["fixed"])


def test_real_scans_have_no_localisation_summary(tmp_path):
    write_localisation(tmp_path, [("sensitivity", "cortex", 0, "average_precision", 0.3, 1.1)])
    assert summarise_localisation(tmp_path) == []


# --- faithfulness ---------------------------------------------------------------------------------


def write_faithfulness(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["method", "class", "measure", "mean", "chance"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "faithfulness.tsv", **LOOK)


def write_randomisation(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["method", "step", "layer", "mean"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "randomisation.tsv", **LOOK)


def test_the_most_faithful_method_is_first_in_its_class(place):
    folder = place / "fixed" / "seed-1"
    values = {("sensitivity", "AD"): (0.6, 0.5), ("occlusion", "AD"): (0.25, 0.75)}
    values |= {(method, "NC"): (0.125, 0.25) for method, _ in values}
    write_faithfulness(
        folder,
        [
            (method, group, measure, mean, 0.0625)
            for (method, group), (deletion, insertion) in values.items()
            for measure, mean in (
                ("deletion", deletion),
                ("insertion", insertion),
                ("faithfulness", insertion - deletion),
                ("gain", insertion - deletion - 0.0625),
            )
        ],
    )
    assert "Faithfulness" in summarise_run(place, ["fixed"])
    rows = [("sensitivity", 1, "fc", 0.9), ("sensitivity", 2, "conv", 0.375)]
    write_randomisation(folder, rows)
    lines = [line.split() for line in summarise_faithfulness(folder)[5:-1]]
    assert lines[0] == ["occlusion", "AD", "0.25", "0.75", "0.50", "0.06", "-"]
    assert lines[1] == ["sensitivity", "AD", "0.60", "0.50", "-0.10", "0.06", "0.38"]
    assert [line[:2] for line in lines[2:]] == [["sensitivity", "NC"], ["occlusion", "NC"]]


def test_randomisation_alone_is_summarised_and_no_files_give_no_text(tmp_path):
    assert summarise_faithfulness(tmp_path) == []
    write_randomisation(tmp_path, [("grad_cam", 1, "fc", np.nan), ("lrp", 1, "fc", 0.5)])
    lines = [line.split() for line in summarise_faithfulness(tmp_path)[5:-1]]
    assert lines == [
        ["grad_cam", "-", "-", "-", "-", "-", "n/a"],
        ["lrp", "-", "-", "-", "-", "-", "0.50"],
    ]


# --- over several networks ------------------------------------------------------------------------


def write_spread(path):
    """Two seeds that change occlusion by more than the distance of the methods for NC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = [("fixed", 1), ("fixed", 2)]
    shares = {
        "AD": {"sensitivity": (0.1, 0.1), "occlusion": (0.5, 0.6)},
        "NC": {"sensitivity": (0.1, 0.1), "occlusion": (0.1, 0.3)},
    }
    tables = []
    for group, of_methods in shares.items():

        def read(method, run, of_methods=of_methods):
            share = of_methods[method][run[1] - 1]
            return np.array([share, 1 - share])

        rows = spread_rows(read, METHODS, runs, pairs_of_runs(runs, "seeds"))
        tables.append(pd.DataFrame(rows).assign(**{"class": group, "model": "rieke"}))
    pd.concat(tables).to_csv(path, float_format="%.6g", **LOOK)


def test_distances_within_noise_are_marked_and_floors_are_on_the_diagonal(tmp_path):
    path = tmp_path / "fixed" / "retraining.tsv"
    write_spread(path)
    root = 2**0.5 * 1e4
    lines = summarise_spread(path)
    assert "mean ± SD over seeds (rieke, fixed)" in lines[0]
    assert [line.split() for line in lines[1:7]] == [
        ["AD", "sensitivity", "occlusion"],
        ["sensitivity", "0.00"],
        [
            "occlusion",
            f"{0.45 * root:.2f}",
            "±",
            f"{0.05 * 2**0.5 * root:.2f}",
            f"{0.1 * root:.2f}",
        ],
        ["NC", "sensitivity", "occlusion"],
        ["sensitivity", "0.00"],
        ["occlusion", f"~{0.1 * root:.2f}", "±", f"{0.1 * 2**0.5 * root:.2f}", f"{0.2 * root:.2f}"],
    ]
    assert "with another seed" in lines[7]
    assert lines[8].split()[0] == "~"
    assert lines[9] == f"  files: {path}, {path.with_suffix('.png')}"


def test_the_table_over_seeds_replaces_the_tables_of_each_seed(place):
    write_spread(place / "fixed" / "retraining.tsv")
    text = summarise_run(place, ["fixed"])
    assert text.count("Distances of the methods' average heatmaps") == 1
    assert text.count("Areas with most relevance by sum") == 1
    assert f"Of seed-1; every seed's tables: {place}/fixed/seed-*/" in text
    assert "one training" not in text
    write_spread(place / "folds" / "retraining.tsv")
    assert "mean ± SD over folds (rieke, folds)" in summarise_run(place, ["fixed"])
    assert "on other folds" in summarise_run(place, ["fixed"])


def test_one_training_shows_how_to_measure_the_noise(place):
    for path in (place / "fixed" / "seed-2").iterdir():
        path.unlink()
    (place / "fixed" / "seed-2").rmdir()
    text = summarise_run(place, ["fixed"])
    assert "noise of retraining, one training cannot tell" in text
    assert "training.seeds: [0, 1, 2]" in text


# --- all networks ---------------------------------------------------------------------------------


def test_baselines_are_below_the_networks_with_intervals_and_differences(tmp_path):
    groups = ["AD", "NC"] * 4
    fields = {"cohort": "a", "tested_on": "a", "task": "AD-NC", "classes": CLASSES, "seed": 0}
    networks = [
        NetworkPredictions(
            **fields, model=model, kind=kind, split=split, predictions=predictions(given, groups)
        )
        for model, kind, given in (
            ("rieke", "network", [0.9, 0.1] * 4),
            ("baseline: age and sex", "baseline", [0.5] * 8),
        )
        for split in ("repeat-1_fold-1", "fixed")
    ]
    summary = Summary(networks)
    summary.rows().to_csv(tmp_path / "summary.tsv", float_format="%.4f", **LOOK)
    differences = summary.differences()
    differences.to_csv(tmp_path / "against_baselines.tsv", float_format="%.4f", **LOOK)
    lines = summarise_networks(tmp_path / "summary.tsv").splitlines()
    assert "baselines" in lines[1]
    assert [line.split()[2] for line in lines[3:7]] == ["rieke", "rieke", "baseline:", "baseline:"]
    assert lines[3].endswith("1.00 ± n/a [1.00, 1.00]")
    assert lines[5].endswith("0.50 ± n/a [0.50, 0.50]")
    assert lines[11].split() == [
        *("a", "AD-NC", "rieke", "-", "baseline:", "age", "and", "sex"),
        *("+0.50", "[0.50,", "0.50]"),
    ]
    assert len(lines) == 13, "the fixed split has no line there"


# --- a run ----------------------------------------------------------------------------------------


def test_a_run_shows_accuracy_and_every_seed_of_the_requested_splits(place):
    text = summarise_run(place, ["fixed"])
    assert text.index("Cross-validation") < text.index("seed-1)") < text.index("seed-2)")
    assert f"table: {place / 'cross_validation.tsv'}" in text
    assert f"{place}/{{learning_curves,roc,confusion}}.png" in text
    assert "24.69 / 0.50" in text
    assert "Distances" not in summarise_run(place, ["repeat-1_fold-1"])


def test_results_of_an_earlier_run_are_not_shown(place):
    for path in place.rglob("*.tsv"):
        os.utime(path, (1000, 1000))
    os.utime(place / "fixed" / "seed-2" / "distances.tsv", (2000, 2000))
    text = summarise_run(place, ["fixed"], since=1500)
    assert "seed-2)" in text
    assert "seed-1)" not in text
    assert "Cross-validation" not in text
    assert summarise_run(place, ["fixed"], since=3000) == ""


def test_a_run_without_results_has_an_empty_summary(tmp_path):
    assert summarise_run(tmp_path / "results", ["fixed"]) == ""


def test_new_scans_are_counted_by_prediction_unless_the_table_is_older(tmp_path):
    place = tmp_path / "results/other/applied/first"
    place.mkdir(parents=True)
    table = pd.DataFrame({"image": ["I1", "I2", "I3"], "predicted": ["NC", "AD", "NC"]})
    table.to_csv(place / "predictions.tsv", **LOOK)
    text = summarise_applied(place)
    assert "Network first on other: 3 scans, predicted 1 AD, 2 NC" in text
    assert f"table: {place}/predictions.tsv" in text
    assert summarise_applied(place, since=os.stat(place / "predictions.tsv").st_mtime + 1) == ""
    assert summarise_applied(tmp_path / "results/other/applied/none") == ""
