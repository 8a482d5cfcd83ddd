import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from voxplain.cohort.effects import COLUMNS, baseline_auc, check_table, cohens_d
from voxplain.plots.simulation import plot_simulation

AREAS = ("Hippocampus_L", "Hippocampus_R")


def cohort(patients=20, loss=0.2, seed=0, bright=0.0, groups=("AD", "MCI", "CN")):
    """Patients: AD lost a fifth of the tissue, MCI half of that."""
    draw = np.random.default_rng(seed)
    rows = []
    for group in groups:
        severity = {"AD": 1.0, "MCI": 0.5}.get(group, 0.0)
        for number in range(patients):
            for area in AREAS:
                whole = draw.normal(5, 0.4)
                rows.append(
                    {
                        "image": f"I{group}{number}",
                        "patient": f"{group}{number}",
                        "group": group,
                        "head": f"head{number % 2 + 1}",
                        "area": area,
                        "intended_loss": severity * loss,
                        "volume_ml": whole * (1 - 0.9 * severity * loss),
                        "volume_without_ml": whole,
                        "intensity": 0.8 * (1 + bright * severity) + draw.normal(0, 0.001),
                        "intensity_without": 0.8,
                    }
                )
    return pd.DataFrame(rows)


def test_cohens_d_is_as_computed_by_hand():
    # Means 3 and 5, variances 1 and 4: pooled (2 * 1 + 2 * 4) / 4 = 2.5.
    assert cohens_d([2, 3, 4], [3, 5, 7]) == pytest.approx(-2 / np.sqrt(2.5))
    a, b = np.random.default_rng(0).normal(size=(2, 30))
    t = stats.ttest_ind(a, b).statistic
    assert cohens_d(a, b) == pytest.approx(t * np.sqrt(2 / 30))
    assert np.isnan(cohens_d([1], [1, 2]))
    assert np.isnan(cohens_d([1, 1], [2, 2]))


def test_the_table_has_the_intended_and_achieved_loss_of_every_group_and_area():
    measures = cohort(bright=-0.1)
    table = check_table(measures, "CN")
    assert tuple(table.columns) == COLUMNS
    areas = table[table["part"] == "area"].set_index(["group", "name"])
    assert len(areas) == 6
    for group, intended in (("AD", 0.2), ("MCI", 0.1), ("CN", 0.0)):
        for area in AREAS:
            row = areas.loc[group, area]
            assert row["intended_loss"] == pytest.approx(intended)
            assert row["achieved_loss"] == pytest.approx(0.9 * intended)
            assert row["achieved_loss_sd"] == pytest.approx(0, abs=1e-9)
            assert row["intensity_change"] == pytest.approx(-intended / 2, abs=0.002)
            assert row["patients"] == 20
    diseased, healthy = (
        measures[(measures["group"] == group) & (measures["area"] == AREAS[0])]["volume_ml"]
        for group in ("AD", "CN")
    )
    assert areas.loc["AD", AREAS[0]]["cohens_d"] == pytest.approx(cohens_d(diseased, healthy))
    assert np.isnan(areas.loc["CN", AREAS[0]]["cohens_d"])
    heads = table[table["part"] == "head"]
    assert set(heads["name"]) == {"head1", "head2"}
    assert (heads["patients"] == 10).all()
    assert list(table[table["part"] == "baseline"]["group"].unique()) == [
        "AD / MCI",
        "AD / CN",
        "MCI / CN",
    ]


def test_a_patient_counts_once_however_often_scanned():
    once = check_table(cohort(), "CN")
    twice = check_table(pd.concat([cohort(), cohort().head(30)]), "CN")
    same = ["intended_loss", "achieved_loss", "cohens_d", "patients"]
    pd.testing.assert_frame_equal(once[same], twice[same])


def test_volumes_separate_groups_by_lost_tissue_and_intensities_by_changed_brightness():
    measures = cohort(patients=30)
    auc, low, high, patients = baseline_auc(measures, "volume_ml", ("AD", "CN"))
    assert auc > 0.95
    assert low < auc <= high <= 1
    assert patients == 60
    bright = cohort(patients=30, loss=0.0, bright=0.1)
    assert baseline_auc(bright, "intensity", ("AD", "CN"))[0] == 1
    auc, low, high, _ = baseline_auc(bright, "volume_ml", ("AD", "CN"))
    assert low < 0.5 < high


@pytest.mark.slow
# (If pairs of different folds counted, the mean AUC of small cohorts would be 0.45, not 0.51.)
@pytest.mark.parametrize("patients", [8, 40])
def test_labels_without_an_effect_are_at_chance_over_many_cohorts(patients):
    results = [
        baseline_auc(cohort(patients, 0.0, seed, groups=("AD", "CN")), "volume_ml", ("AD", "CN"))
        for seed in range(20)
    ]
    assert np.mean([auc for auc, *_ in results]) == pytest.approx(0.5, abs=0.06)
    covered = sum(low <= 0.5 <= high for _, low, high, _ in results)
    assert covered >= 15


@pytest.mark.slow
def test_the_interval_agrees_with_a_bootstrap_over_patients():
    """Compared with a plain bootstrap over patients, with the AUC of scikit-learn."""
    from voxplain.cohort.effects import _pairs_in_order

    draw = np.random.default_rng(1)
    above, below = draw.normal(1, 1, 25), draw.normal(0, 1, 35)
    labels = np.r_[np.ones(25), np.zeros(35)]
    aucs = [
        roc_auc_score(labels, np.r_[draw.choice(above, 25), draw.choice(below, 35)])
        for _ in range(2000)
    ]
    values = np.r_[above, below]
    auc, *interval = _pairs_in_order(values, np.zeros(60), labels == 1, 4000)
    assert auc == pytest.approx(roc_auc_score(labels, values))
    assert interval == pytest.approx(np.quantile(aucs, [0.025, 0.975]), abs=0.015)


def test_patients_of_different_folds_make_no_pair():
    """Compared with the mean AUC of the folds, which have equally many pairs."""
    from voxplain.cohort.effects import _pairs_in_order

    draw = np.random.default_rng(2)
    fold, labels = np.repeat(np.arange(4), 10), np.tile([0, 1], 20)
    values = draw.normal(labels, 1) + 5 * fold  # each fold's regression has its own offset
    aucs = [roc_auc_score(labels[fold == k], values[fold == k]) for k in range(4)]
    auc, low, high = _pairs_in_order(values, fold, labels == 1, 500)
    assert auc == pytest.approx(np.mean(aucs))
    assert low < auc < high
    assert roc_auc_score(labels, values) < auc - 0.1


def test_a_patient_of_both_groups_counts_in_the_first_and_one_patient_has_no_interval():
    measures = cohort(patients=6, groups=("AD", "CN"))
    measures.loc[measures["patient"] == "CN0", "patient"] = "AD0"
    assert baseline_auc(measures, "volume_ml", ("AD", "CN"))[3] == 11
    one_each = cohort(patients=1, groups=("AD", "CN"))
    auc, low, high, patients = baseline_auc(one_each, "volume_ml", ("AD", "CN"))
    assert np.isnan([auc, low, high]).all()
    assert patients == 2
    table = check_table(one_each, "CN")
    assert table["cohens_d"].isna().all()


@pytest.mark.parametrize("patients", [1, 12])
def test_the_picture_shows_points_of_areas_and_patients(drawn, patients):
    measures = cohort(patients=patients)
    table = check_table(measures, "CN")
    _, figure = drawn(plot_simulation, measures, table, "CN", "demo: what was done")
    left, right = figure.axes
    lines = {
        tuple(line.get_xdata()): line.get_ydata() for line in left.lines if line.get_marker() == "o"
    }
    assert (20.0, 20.0) in {tuple(np.round(x, 6)) for x in lines}
    assert [tick.get_text() for tick in right.get_yticklabels()] == list(AREAS)
    assert "CN" in right.get_xlabel()
