import numpy as np
import pandas as pd
import pytest

from voxplain.comparison.auc import draw_aucs, interval
from voxplain.comparison.models import (
    BASELINE,
    EVALUATIONS,
    NETWORK,
    NetworkPredictions,
    Summary,
)
from voxplain.faults import SetupFault
from voxplain.training.cross_validation import cross_validation_table
from voxplain.training.metrics import MEASURES, measure, per_patient
from voxplain.training.predictions import predictions_table

CLASSES = ("AD", "NC")
FOLDS, EXTERNAL, FIXED = EVALUATIONS


def predictions(rows):
    """A table of ``(image, patient, class, probability of AD)``."""
    members = pd.DataFrame([row[:3] for row in rows], columns=["image", "patient", "class"])
    sick = np.array([row[3] for row in rows], float)
    return predictions_table(members, np.stack([sick, 1 - sick], axis=1), CLASSES)


def drawn(seed, classes=CLASSES, scans=12):
    draw = np.random.default_rng(seed)
    members = pd.DataFrame(
        {
            "image": [f"I{n}" for n in range(scans)],
            "patient": [f"P{n // 2}" for n in range(scans)],
            "class": [classes[n // 2 % len(classes)] for n in range(scans)],
        }
    )
    return predictions_table(members, draw.dirichlet(np.ones(len(classes)), scans), classes)


def network(split="repeat-1_fold-1", seed=1, table=None, **changes):
    fields = {
        "cohort": "a",
        "tested_on": "a",
        "task": "AD-NC",
        "classes": CLASSES,
        "model": "rieke",
        "split": split,
        "seed": seed,
        "predictions": drawn(seed) if table is None else table,
    }
    return NetworkPredictions(**{**fields, **changes})


def summary_rows(networks, roc_auc="probabilities"):
    return Summary(networks, roc_auc).rows()


def row_of(summary, level, **where):
    chosen = summary[summary["level"] == level]
    for key, value in where.items():
        chosen = chosen[chosen[key] == value]
    (row,) = chosen.to_dict("records")
    return row


# Both right; one of two right (half of the pairs are ties or wrong); both wrong.
RIGHT = predictions([("I1", "P1", "AD", 0.9), ("I2", "P2", "NC", 0.1)])
HALF = predictions([("I3", "P3", "AD", 0.8), ("I4", "P4", "NC", 0.7)])
WRONG = predictions([("I1", "P1", "AD", 0.2), ("I2", "P2", "NC", 0.6)])


# --- values ---------------------------------------------------------------------------------------


def test_a_cross_validation_is_as_computed_by_hand():
    networks = [
        network("repeat-1_fold-1", table=RIGHT),
        network("repeat-1_fold-2", table=HALF),
        network("repeat-2_fold-1", table=WRONG),
        network("repeat-2_fold-2", table=HALF),
    ]
    summary = summary_rows(networks)
    assert list(summary.columns) == [
        *("cohort", "tested_on", "task", "model", "kind", "level", "evaluation"),
        *("networks", "n", "imputed"),
        *(f"{name}_{statistic}" for name in MEASURES for statistic in ("mean", "sd")),
        *("roc_auc_low", "roc_auc_high"),
        "roc_auc_sd_of_repeats",
    ]
    assert summary["level"].tolist() == ["scan", "patient"]
    for level in ("scan", "patient"):
        row = row_of(summary, level, evaluation=FOLDS)
        assert (row["networks"], row["n"]) == (4, 4)
        accuracies, areas = [1, 0.5, 0, 0.5], [1, 1, 0, 1]
        assert row["accuracy_mean"] == pytest.approx(0.5)
        assert row["accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1))
        assert row["roc_auc_mean"] == pytest.approx(0.75)
        assert row["roc_auc_sd"] == pytest.approx(np.std(areas, ddof=1))
        assert row["sensitivity_mean"] == pytest.approx((1 + 1 + 0 + 1) / 4)
        assert row["specificity_mean"] == pytest.approx((1 + 0 + 0 + 0) / 4)
        # Yang et al.: the repeats' means are 1 and 0.5.
        assert row["roc_auc_sd_of_repeats"] == pytest.approx(np.std([1, 0.5], ddof=1))


def test_seeds_count_as_networks_and_within_their_repeat():
    networks = [
        network(f"repeat-{repeat}_fold-{fold}", seed, drawn(100 * repeat + 10 * fold + seed))
        for repeat in (1, 2, 3)
        for fold in (1, 2)
        for seed in (4, 5)
    ]
    row = row_of(summary_rows(networks), "scan")
    assert row["networks"] == 12
    areas = np.array([measure(n.predictions, CLASSES)["roc_auc"] for n in networks])
    of_repeats = areas.reshape(3, 4).mean(axis=1)
    assert row["roc_auc_sd_of_repeats"] == pytest.approx(of_repeats.std(ddof=1))


@pytest.mark.parametrize("classes", [CLASSES, ("AD", "MCI", "NC")])
def test_mean_and_sd_agree_with_the_table_of_the_cross_validation(classes):
    tables = {(1, fold, 7): drawn(fold, classes) for fold in (1, 2, 3, 4)}
    expected = cross_validation_table(tables, classes).set_index(["level", "split"])
    summary = summary_rows(
        network(f"repeat-{repeat}_fold-{fold}", seed, table, classes=classes)
        for (repeat, fold, seed), table in tables.items()
    )
    for level in ("scan", "patient"):
        row = row_of(summary, level)
        for name in MEASURES:
            assert row[f"{name}_mean"] == pytest.approx(expected.loc[(level, "mean"), name])
            assert row[f"{name}_sd"] == pytest.approx(expected.loc[(level, "sd"), name])


def test_a_patients_prediction_is_the_mean_over_their_scans():
    summary = summary_rows([network(table=drawn(3))])
    expected = measure(per_patient(drawn(3), CLASSES), CLASSES)
    row = row_of(summary, "patient")
    assert row["n"] == 6
    for name in MEASURES:
        assert row[f"{name}_mean"] == pytest.approx(expected[name])
    assert row_of(summary, "scan")["n"] == 12


def test_the_published_roc_auc_is_the_balanced_accuracy():
    networks = [network(f"repeat-1_fold-{fold}", table=drawn(fold)) for fold in (1, 2, 3)]
    summary = summary_rows(networks, roc_auc="hard_labels")
    for statistic in ("mean", "sd"):
        np.testing.assert_allclose(
            summary[f"roc_auc_{statistic}"], summary[f"balanced_accuracy_{statistic}"]
        )
    usual = summary_rows(networks)
    assert not np.allclose(usual["roc_auc_mean"], summary["roc_auc_mean"])


def test_one_network_or_repeat_has_no_sd():
    row = row_of(summary_rows([network()]), "scan")
    assert np.isnan([row[f"{name}_sd"] for name in MEASURES]).all()
    assert np.isnan(row["roc_auc_sd_of_repeats"])
    folds = [network(f"repeat-1_fold-{fold}", table=drawn(fold)) for fold in (1, 2)]
    row = row_of(summary_rows(folds), "scan")
    assert row["roc_auc_sd"] > 0
    assert np.isnan(row["roc_auc_sd_of_repeats"])


def test_a_fold_without_a_class_counts_in_the_measures_it_has():
    one_class = predictions([("I5", "P5", "AD", 0.2)])
    networks = [
        network("repeat-1_fold-1", table=RIGHT),
        network("repeat-1_fold-2", table=one_class),
    ]
    row = row_of(summary_rows(networks), "scan")
    assert (row["networks"], row["n"]) == (2, 3)
    assert row["accuracy_mean"] == pytest.approx(0.5)
    assert row["sensitivity_mean"] == pytest.approx(0.5)
    assert row["roc_auc_mean"] == row["specificity_mean"] == 1


def test_the_interval_is_over_all_networks_together():
    networks = [network(f"repeat-1_fold-{fold}", table=drawn(fold, scans=40)) for fold in (1, 2)]
    row = row_of(summary_rows(networks), "scan")
    tables = [one.predictions for one in networks]
    assert (row["roc_auc_low"], row["roc_auc_high"]) == interval(draw_aucs(tables, CLASSES))
    assert row["roc_auc_low"] < row["roc_auc_mean"] < row["roc_auc_high"]
    # One patient of each class allows no bootstrap.
    row = row_of(summary_rows([network(table=RIGHT)]), "patient")
    assert np.isnan([row["roc_auc_low"], row["roc_auc_high"]]).all()


# --- baselines ------------------------------------------------------------------------------------


def baseline(table, split="repeat-1_fold-1"):
    return network(split, model="baseline: x", kind=BASELINE, table=table, seed=0)


def test_baselines_come_after_all_networks_and_count_imputed_scans():
    table = drawn(4).assign(imputed=[2] + [0] * 11)
    rows = summary_rows([network(), baseline(table), network(model="voxcnn")])
    assert rows["model"].tolist() == ["rieke"] * 2 + ["voxcnn"] * 2 + ["baseline: x"] * 2
    assert rows["kind"].tolist() == [NETWORK] * 4 + [BASELINE] * 2
    assert rows["imputed"][4:].tolist() == [1, 1]
    assert rows["imputed"][:4].isna().all()


def test_a_network_is_compared_with_a_baseline_on_the_same_patients():
    networks = [network(f"repeat-1_fold-{f}", table=drawn(f, scans=40)) for f in (1, 2)]
    baselines = [baseline(drawn(10 + f, scans=40), f"repeat-1_fold-{f}") for f in (1, 2)]
    summary = Summary([*networks, *baselines])
    difference = row_of(summary.differences(), "scan")
    assert (difference["model"], difference["baseline"]) == ("rieke", "baseline: x")
    means, draws = [], []
    for of in (networks, baselines):
        tables = [one.predictions for one in of]
        means.append(np.mean([measure(table, CLASSES)["roc_auc"] for table in tables]))
        draws.append(draw_aucs(tables, CLASSES))
    assert difference["roc_auc"] == pytest.approx(means[0] - means[1])
    assert (difference["low"], difference["high"]) == pytest.approx(interval(draws[0] - draws[1]))
    # A baseline with the network's predictions has difference zero in every draw.
    same = [baseline(one.predictions, one.split) for one in networks]
    difference = row_of(Summary([*networks, *same]).differences(), "patient")
    assert difference["roc_auc"] == difference["low"] == difference["high"] == 0


def test_without_baselines_or_on_other_splits_there_is_no_difference():
    columns = list(Summary([network()]).differences().columns)
    assert columns == [
        *("cohort", "tested_on", "task", "model", "baseline", "level", "evaluation"),
        *("roc_auc", "low", "high"),
    ]
    assert Summary([network()]).differences().empty
    assert Summary([network(), baseline(drawn(1), "fixed")]).differences().empty


# --- rows -----------------------------------------------------------------------------------------


def test_every_cohort_task_model_level_and_evaluation_has_its_row():
    several = ("AD", "MCI", "NC")
    networks = [
        network("repeat-1_fold-1"),
        network("repeat-1_fold-2"),
        network("fixed", seed=1),
        network("fixed", seed=2),
        network("external-b", tested_on="b"),
        network("external-c", tested_on="c"),
        network(cohort="b", tested_on="b"),
        network(model="voxcnn"),
        network(task="AD-MCI-NC", classes=several, table=drawn(1, several)),
    ]
    keys = ["cohort", "tested_on", "task", "model", "level", "evaluation", "networks"]
    rows = [tuple(row) for row in summary_rows(networks)[keys].to_numpy().tolist()]
    assert rows == [
        (cohort, tested_on, task, model, level, evaluation, networks)
        for cohort, tested_on, task, model, evaluation, networks in [
            ("a", "a", "AD-NC", "rieke", FOLDS, 2),
            ("a", "a", "AD-NC", "rieke", FIXED, 2),
            ("a", "b", "AD-NC", "rieke", EXTERNAL, 1),
            ("a", "c", "AD-NC", "rieke", EXTERNAL, 1),
            ("b", "b", "AD-NC", "rieke", FOLDS, 1),
            ("a", "a", "AD-NC", "voxcnn", FOLDS, 1),
            ("a", "a", "AD-MCI-NC", "rieke", FOLDS, 1),
        ]
        for level in ("scan", "patient")
    ]


def test_networks_are_read_one_at_a_time():
    alive = []

    def one_at_a_time():
        for fold in (1, 2, 3):
            one = network(f"repeat-1_fold-{fold}")
            alive.append(fold)
            yield one
            one.predictions.drop(one.predictions.index, inplace=True)

    assert row_of(summary_rows(one_at_a_time()), "scan")["networks"] == 3
    assert alive == [1, 2, 3]


# --- errors ---------------------------------------------------------------------------------------


def test_an_empty_list_of_networks_is_refused():
    with pytest.raises(SetupFault, match="no trained network"):
        summary_rows([])


@pytest.mark.parametrize("split", ["", "fold-1", "repeat-1_fold-", "fixed-2", "tests"])
def test_an_unknown_split_is_refused_by_its_name(split):
    with pytest.raises(SetupFault, match=f"split '{split}' is unknown; expected repeat-"):
        summary_rows([network(split)])
