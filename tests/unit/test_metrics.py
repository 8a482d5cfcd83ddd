import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from voxplain.faults import SetupFault
from voxplain.tables import write_tsv
from voxplain.training.cross_validation import cross_validation_table, pool_folds
from voxplain.training.metrics import MEASURES, measure, per_patient
from voxplain.training.predictions import predictions_table

CLASSES = ["AD", "NC"]


def predictions(rows, classes=CLASSES):
    """A table of ``(patient, class, probability of the first class, ...)``."""
    members = pd.DataFrame(
        [(f"I{n}", patient, group) for n, (patient, group, *_) in enumerate(rows)],
        columns=["image", "patient", "class"],
    )
    given = np.array([row[2:] for row in rows], float).reshape(len(rows), -1)
    return predictions_table(members, np.hstack([given, 1 - given.sum(1, keepdims=True)]), classes)


ROWS = [
    ("P1", "AD", 0.9),
    ("P1", "AD", 0.4),
    ("P2", "AD", 0.6),
    ("P3", "NC", 0.7),
    ("P4", "NC", 0.2),
]


# --- tables ---------------------------------------------------------------------------------------


def test_the_table_says_who_was_what_and_what_was_predicted():
    members = pd.DataFrame(
        {
            "image": ["I7", "I8", "I9"],
            "path": ["a", "b", "c"],
            "class": ["NC", "AD", "MCI"],
            "patient": ["P2", "P1", "P3"],
        },
        index=[5, 9, 2],
    )
    probabilities = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]])
    table = predictions_table(members, probabilities, ["AD", "MCI", "NC"])
    assert table.to_dict("list") == {
        "image": ["I7", "I8", "I9"],
        "patient": ["P2", "P1", "P3"],
        "class": ["NC", "AD", "MCI"],
        "predicted": ["NC", "AD", "MCI"],
        "probability_AD": [0.1, 0.5, 0.2],
        "probability_MCI": [0.2, 0.3, 0.5],
        "probability_NC": [0.7, 0.2, 0.3],
    }
    assert list(members.columns) == ["image", "path", "class", "patient"]


def test_a_patients_probability_is_the_mean_over_their_scans():
    table = per_patient(predictions(ROWS), CLASSES).set_index("patient")
    assert list(table.index) == ["P1", "P2", "P3", "P4"]
    assert table["probability_AD"].tolist() == pytest.approx([0.65, 0.6, 0.7, 0.2])
    assert table["probability_NC"].tolist() == pytest.approx([0.35, 0.4, 0.3, 0.8])
    assert table["class"].tolist() == ["AD", "AD", "NC", "NC"]
    assert table["predicted"].tolist() == ["AD", "AD", "AD", "NC"]


def test_the_mean_decides_and_not_the_majority_of_a_patients_scans():
    rows = [("P1", "AD", 0.45), ("P1", "AD", 0.45), ("P1", "AD", 0.9)]
    assert predictions(rows)["predicted"].tolist() == ["NC", "NC", "AD"]
    assert per_patient(predictions(rows), CLASSES)["predicted"].tolist() == ["AD"]


@pytest.mark.parametrize("groups", [["NC", "AD"], ["AD", "NC"]])
def test_a_patient_whose_label_changes_counts_as_diseased(groups):
    rows = [("P1", group, 0.5) for group in groups]
    assert per_patient(predictions(rows), CLASSES)["class"].tolist() == ["AD"]
    other = per_patient(predictions(rows), ["NC", "AD"])
    assert other["class"].tolist() == ["NC"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_class_is_predicted_where_a_probability_is_not_finite(value):
    members = pd.DataFrame(
        {"image": ["I7", "I8"], "patient": ["P1", "P2"], "class": ["AD", "NC"]}, index=[4, 2]
    )
    probabilities = np.array([[0.5, 0.5], [value, 0.5]])
    with pytest.raises(SetupFault, match=r"probabilities of I8 are not finite .*1 of 2"):
        predictions_table(members, probabilities, CLASSES)


@pytest.mark.parametrize("compute", [measure, per_patient])
def test_a_table_with_a_missing_probability_is_not_measured(compute):
    """Neither counted as a prediction nor left out of a patient's mean."""
    table = predictions(ROWS)
    table.loc[1, "probability_AD"] = np.nan
    with pytest.raises(SetupFault, match="probabilities of I1 are not finite"):
        compute(table, CLASSES)


# --- measures -------------------------------------------------------------------------------------


def test_measures_per_scan_are_what_one_counts_by_hand():
    told = measure(predictions(ROWS), CLASSES)
    assert told == {
        "n": 5,
        "accuracy": pytest.approx(3 / 5),
        "balanced_accuracy": pytest.approx((2 / 3 + 1 / 2) / 2),
        "roc_auc": pytest.approx(4 / 6),  # of six pairs, .4 < .7 and .6 < .7 are the wrong way
        "sensitivity": pytest.approx(2 / 3),
        "specificity": pytest.approx(1 / 2),
        "confusion": [[2, 1], [1, 1]],
    }
    assert all(type(told[name]) is float for name in MEASURES)


def test_measures_per_patient_are_what_one_counts_by_hand():
    assert measure(per_patient(predictions(ROWS), CLASSES), CLASSES) == {
        "n": 4,
        "accuracy": pytest.approx(3 / 4),
        "balanced_accuracy": pytest.approx((1 + 1 / 2) / 2),
        "roc_auc": pytest.approx(2 / 4),
        "sensitivity": 1,
        "specificity": pytest.approx(1 / 2),
        "confusion": [[2, 0], [1, 1]],
    }


def naive_auc(of_class, of_others):
    pairs = [(a > b) + 0.5 * (a == b) for a in of_class for b in of_others]
    return sum(pairs) / len(pairs)


scores = st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(0, 10)), min_size=2, max_size=25)


@given(scores=scores)
def test_the_roc_auc_is_the_share_of_pairs_in_the_right_order_and_half_the_ties(scores):
    ad, nc = ([p / 10 for group, p in scores if group == wanted] for wanted in CLASSES)
    assume(ad and nc)
    table = predictions([("P", group, p / 10) for group, p in scores])
    told = measure(table, CLASSES)
    assert told["roc_auc"] == pytest.approx(naive_auc(ad, nc))
    assert told["sensitivity"] == pytest.approx(np.mean([p >= 0.5 for p in ad]))
    assert told["specificity"] == pytest.approx(np.mean([p < 0.5 for p in nc]))
    both = (told["sensitivity"] + told["specificity"]) / 2
    assert told["balanced_accuracy"] == pytest.approx(both)
    right = sum(p >= 0.5 for p in ad) + sum(p < 0.5 for p in nc)
    assert told["accuracy"] == pytest.approx(right / len(scores))
    assert np.sum(told["confusion"]) == told["n"] == len(scores)


def test_hard_labels_give_the_balanced_accuracy_as_roc_auc():
    hard = [(patient, group, float(p > 0.5)) for patient, group, p in ROWS]
    told = measure(predictions(hard), CLASSES)
    assert told["roc_auc"] == pytest.approx(told["balanced_accuracy"])


@given(scores=scores)
def test_the_published_roc_auc_is_the_balanced_accuracy_whatever_the_probabilities(scores):
    assume(len({group for group, _ in scores}) == 2)
    table = predictions([("P", group, p / 10) for group, p in scores])
    usual, published = measure(table, CLASSES), measure(table, CLASSES, "hard_labels")
    assert published["roc_auc"] == pytest.approx(usual["balanced_accuracy"])
    assert {**published, "roc_auc": 0} == {**usual, "roc_auc": 0}


def test_the_published_roc_auc_is_that_of_hard_labels_as_scores():
    told = measure(predictions(ROWS), CLASSES, "hard_labels")
    assert told["roc_auc"] == pytest.approx(naive_auc([1, 0, 1], [1, 0]))
    assert measure(predictions(ROWS), CLASSES)["roc_auc"] != told["roc_auc"]


def test_an_unknown_roc_auc_is_refused_by_what_is_allowed():
    with pytest.raises(SetupFault, match="'labels'; allowed: probabilities, hard_labels"):
        measure(predictions(ROWS), CLASSES, "labels")


def test_of_three_classes_the_first_is_measured_against_all_others():
    classes = ["AD", "MCI", "NC"]
    rows = [
        ("P1", "AD", 0.6, 0.3),
        ("P2", "AD", 0.2, 0.5),
        ("P3", "MCI", 0.5, 0.3),
        ("P4", "MCI", 0.1, 0.8),
        ("P5", "NC", 0.3, 0.4),
        ("P6", "NC", 0.0, 0.1),
        ("P7", "NC", 0.1, 0.2),
    ]
    table = predictions(rows, classes)
    told = measure(table, classes)
    assert told["confusion"] == [[1, 1, 0], [1, 1, 0], [0, 1, 2]]
    assert told["accuracy"] == pytest.approx(4 / 7)
    assert told["balanced_accuracy"] == pytest.approx((1 / 2 + 1 / 2 + 2 / 3) / 3)
    assert told["sensitivity"] == pytest.approx(1 / 2)
    assert told["specificity"] == pytest.approx(4 / 5)
    areas = [
        naive_auc([0.6, 0.2], [0.5, 0.1, 0.3, 0.0, 0.1]),
        naive_auc([0.3, 0.8], [0.3, 0.5, 0.4, 0.1, 0.2]),
        naive_auc([0.3, 0.9, 0.7], [0.1, 0.3, 0.2, 0.1]),
    ]
    assert told["roc_auc"] == pytest.approx(np.mean(areas))
    hard = [
        naive_auc([1, 0], [1, 0, 0, 0, 0]),
        naive_auc([0, 1], [0, 1, 1, 0, 0]),
        naive_auc([0, 1, 1], [0, 0, 0, 0]),
    ]
    assert measure(table, classes, "hard_labels")["roc_auc"] == pytest.approx(np.mean(hard))


@pytest.mark.parametrize(
    ("group", "sensitivity", "specificity", "confusion"),
    [("AD", 0.5, None, [[1, 1], [0, 0]]), ("NC", None, 0.5, [[0, 0], [1, 1]])],
)
def test_what_needs_a_class_that_is_missing_is_none(group, sensitivity, specificity, confusion):
    told = measure(predictions([("P1", group, 0.8), ("P2", group, 0.3)]), CLASSES)
    assert told == {
        "n": 2,
        "accuracy": 0.5,
        "balanced_accuracy": None,
        "roc_auc": None,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "confusion": confusion,
    }


# --- cross-validation -----------------------------------------------------------------------------


def folds():
    """Two folds of unequal size: all right in the first, half in the second."""
    first = predictions([("P1", "AD", 0.9), ("P2", "NC", 0.1)])
    second = predictions(
        [("P3", "AD", 0.8), ("P3", "AD", 0.3), ("P4", "NC", 0.6), ("P5", "NC", 0.2)]
    )
    return {(1, 1, 4): first, (1, 2, 4): second}


def row_of(table, level, split, **where):
    chosen = table[(table["level"] == level) & (table["split"] == split)]
    for key, value in where.items():
        chosen = chosen[chosen[key] == value]
    (row,) = chosen.to_dict("records")
    return row


def test_folds_mean_sd_and_pooled_measures_are_what_one_computes_by_hand():
    table = cross_validation_table(folds(), CLASSES)
    assert list(table.columns) == ["level", "split", "repeat", "fold", "seed", "n", *MEASURES]
    splits = ["repeat-1_fold-1", "repeat-1_fold-2", "pooled", "mean", "sd", "pooled mean"]
    assert table["split"].tolist() == 2 * splits
    assert table["level"].tolist() == ["scan"] * 6 + ["patient"] * 6

    first = row_of(table, "scan", "repeat-1_fold-1")
    assert (first["repeat"], first["fold"], first["seed"], first["n"]) == (1, 1, 4, 2)
    assert first["accuracy"] == first["roc_auc"] == 1
    second = row_of(table, "scan", "repeat-1_fold-2")
    assert (second["n"], second["accuracy"], second["roc_auc"]) == (4, 0.5, 0.75)
    assert row_of(table, "scan", "mean")["accuracy"] == pytest.approx(0.75)
    assert row_of(table, "scan", "sd")["accuracy"] == pytest.approx(0.5 / np.sqrt(2))
    assert row_of(table, "scan", "sd")["roc_auc"] == pytest.approx(0.25 / np.sqrt(2))
    pooled = row_of(table, "scan", "pooled")
    assert (pooled["repeat"], pooled["seed"], pooled["n"]) == (1, 4, 6)
    assert pooled["accuracy"] == pytest.approx(4 / 6)
    assert pooled["roc_auc"] == pytest.approx(naive_auc([0.9, 0.8, 0.3], [0.1, 0.6, 0.2]))
    assert row_of(table, "scan", "pooled mean")["accuracy"] == pytest.approx(4 / 6)

    assert row_of(table, "patient", "repeat-1_fold-2")["n"] == 3
    of_patients = row_of(table, "patient", "pooled")
    assert of_patients["n"] == 5
    assert of_patients["accuracy"] == pytest.approx(4 / 5)
    assert row_of(table, "patient", "mean")["accuracy"] == pytest.approx((1 + 2 / 3) / 2)


def test_repeats_and_seeds_are_pooled_each_by_itself():
    one = folds()
    wrong = predictions([("P1", "AD", 0.1), ("P2", "NC", 0.9)])
    tables = {**one, (2, 1, 4): wrong, (2, 2, 4): one[1, 2, 4], (1, 1, 5): one[1, 1, 4]}
    table = cross_validation_table(tables, CLASSES)
    pooled = {
        (repeat, seed): row_of(table, "scan", "pooled", repeat=repeat, seed=seed)
        for repeat, seed in [(1, 4), (2, 4), (1, 5)]
    }
    assert {key: row["n"] for key, row in pooled.items()} == {(1, 4): 6, (2, 4): 6, (1, 5): 2}
    expected = [4 / 6, 2 / 6, 1]
    assert [row["accuracy"] for row in pooled.values()] == pytest.approx(expected)
    assert row_of(table, "scan", "pooled mean")["accuracy"] == pytest.approx(np.mean(expected))
    assert row_of(table, "scan", "mean")["accuracy"] == pytest.approx((1 + 0.5 + 0 + 0.5 + 1) / 5)


def test_pools_hold_the_folds_of_a_repeat_and_seed():
    tables = {**folds(), (2, 1, 4): folds()[1, 2, 4], (1, 1, 5): folds()[1, 1, 4]}
    pools = pool_folds(tables)
    assert list(pools) == [(1, 4), (2, 4), (1, 5)]
    assert pools[1, 4]["patient"].tolist() == ["P1", "P2", "P3", "P3", "P4", "P5"]
    assert pools[1, 4].index.tolist() == list(range(6))
    pd.testing.assert_frame_equal(pools[2, 4], tables[2, 1, 4])


def test_the_published_roc_auc_reaches_every_row():
    table = cross_validation_table(folds(), CLASSES, roc_auc="hard_labels")
    rows = table[table["split"] != "sd"]
    np.testing.assert_allclose(rows["roc_auc"], rows["balanced_accuracy"])
    usual = cross_validation_table(folds(), CLASSES)
    assert not np.allclose(usual["roc_auc"], table["roc_auc"])


def test_a_fold_that_lacks_a_class_counts_where_it_can():
    tables = {**folds(), (1, 3, 4): predictions([("P6", "AD", 0.2)])}
    table = cross_validation_table(tables, CLASSES)
    lacking = row_of(table, "scan", "repeat-1_fold-3")
    assert lacking["accuracy"] == lacking["sensitivity"] == 0
    assert np.isnan(
        [lacking["roc_auc"], lacking["specificity"], lacking["balanced_accuracy"]]
    ).all()
    mean = row_of(table, "scan", "mean")
    assert mean["accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert mean["roc_auc"] == pytest.approx((1 + 0.75) / 2)
    assert row_of(table, "scan", "pooled")["n"] == 7


def test_whole_numbers_are_written_as_such_and_what_is_missing_is_named(tmp_path):
    path = tmp_path / "cross_validation.tsv"
    table = cross_validation_table(folds(), CLASSES)
    write_tsv(table, path, floats=None)
    lines = path.read_text().splitlines()
    assert lines[1].startswith("scan\trepeat-1_fold-1\t1\t1\t4\t2\t1.0\t")
    assert lines[3].startswith("scan\tpooled\t1\tn/a\t4\t6\t")
    assert lines[4].startswith("scan\tmean\tn/a\tn/a\tn/a\tn/a\t0.75\t")
