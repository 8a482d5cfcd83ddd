import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from voxplain.comparison.auc import draw_aucs, draw_rocs, interval, too_few
from voxplain.training.metrics import measure
from voxplain.training.predictions import predictions_table

CLASSES = ("AD", "NC")


def drawn(seed, patients, classes=CLASSES, effect=1.0, scans=1):
    """Predictions better than chance; a patient's name and class follow from the number."""
    draw = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(*patients), scans)
    members = pd.DataFrame(
        {
            "image": [f"I{n}" for n in range(len(numbers))],
            "patient": [f"P{n:04d}" for n in numbers],
            "class": [classes[n % len(classes)] for n in numbers],
        }
    )
    logits = draw.normal(0, 1, (len(numbers), len(classes)))
    logits[np.arange(len(numbers)), numbers % len(classes)] += effect
    odds = np.exp(logits)
    return predictions_table(members, odds / odds.sum(1, keepdims=True), classes)


def delong_sd(table):
    """SD of a ROC AUC by its closed form (DeLong, DeLong and Clarke-Pearson 1988)."""
    sick = (table["class"] == "AD").to_numpy()
    scores = table["probability_AD"].to_numpy()
    differences = scores[sick][:, None] - scores[~sick][None]
    right = np.heaviside(differences, 0.5)
    per_sick, per_healthy = right.mean(1), right.mean(0)
    return np.sqrt(per_sick.var(ddof=1) / sick.sum() + per_healthy.var(ddof=1) / (~sick).sum())


def test_the_sd_of_one_network_agrees_with_delong():
    table = drawn(0, (0, 200))
    aucs = draw_aucs([table], CLASSES)
    assert aucs.shape == (2000,)
    assert aucs.mean() == pytest.approx(measure(table, CLASSES)["roc_auc"], abs=0.003)
    assert aucs.std() == pytest.approx(delong_sd(table), rel=0.05)
    low, high = interval(aucs)
    auc = measure(table, CLASSES)["roc_auc"]
    expected = stats.norm.interval(0.95, auc, delong_sd(table))
    assert (low, high) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("classes", [CLASSES, ("AD", "MCI", "NC")])
@pytest.mark.parametrize("roc_auc", ["probabilities", "hard_labels"])
def test_every_draw_agrees_with_scikit_learn_on_the_drawn_patients(classes, roc_auc):
    """The draws of two folds by hand, from the generator's own multinomials."""
    tables = [drawn(1, (0, 24), classes, scans=2), drawn(2, (24, 48), classes)]
    aucs = draw_aucs(tables, classes, roc_auc, draws=5)
    generator = np.random.default_rng(0)
    weight = {}
    for place in range(len(classes)):
        patients = [f"P{n:04d}" for n in range(48) if n % len(classes) == place]
        counts = generator.multinomial(
            len(patients), np.full(len(patients), 1 / len(patients)), size=5
        )
        weight.update(dict(zip(patients, counts.T, strict=True)))
    for number, auc in enumerate(aucs):
        of_folds = []
        for table in tables:
            weights = [weight[patient][number] for patient in table["patient"]]
            of_classes = [
                roc_auc_score(
                    table["class"] == group,
                    table[f"probability_{group}"]
                    if roc_auc == "probabilities"
                    else table["predicted"] == group,
                    sample_weight=weights,
                )
                for group in (classes[:1] if len(classes) == 2 else classes)
            ]
            of_folds.append(np.mean(of_classes))
        assert auc == pytest.approx(np.mean(of_folds))


def test_the_same_predictions_of_five_networks_do_not_narrow_the_interval():
    table = drawn(3, (0, 40))
    np.testing.assert_allclose(draw_aucs([table] * 5, CLASSES), draw_aucs([table], CLASSES))
    # Five networks with independent errors do give more information on the same patients.
    several = [drawn(seed, (0, 40)) for seed in range(5)]
    assert draw_aucs(several, CLASSES).std() < 0.7 * draw_aucs([table], CLASSES).std()


def test_scans_of_a_patient_are_drawn_together():
    once = drawn(4, (0, 60))
    twice = pd.concat([once, once.assign(image=once["image"] + "b")], ignore_index=True)
    np.testing.assert_allclose(draw_aucs([twice], CLASSES), draw_aucs([once], CLASSES))


def test_intervals_cover_the_truth_at_their_level():
    """New patients, a fixed network: 95 % of intervals cover the truth, within three SD."""
    covered = []
    for seed in range(200):
        low, high = interval(draw_aucs([drawn(seed, (0, 100), effect=0)], CLASSES, draws=300))
        covered.append(low <= 0.5 <= high)
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200) <= np.mean(covered) < 1


def test_a_fold_that_lacks_a_class_does_not_count():
    whole, one_class = drawn(5, (0, 30)), drawn(6, (30, 40))
    one_class = one_class[one_class["class"] == "AD"]
    aucs = draw_aucs([whole, one_class], CLASSES)
    assert aucs.mean() == pytest.approx(measure(whole, CLASSES)["roc_auc"], abs=0.01)
    assert np.isnan(draw_aucs([one_class], CLASSES)).all()
    assert np.isnan(interval(draw_aucs([one_class], CLASSES))).all()


def test_one_patient_of_a_class_has_no_interval():
    assert too_few([drawn(7, (0, 3))], CLASSES)
    assert not too_few([drawn(7, (0, 4))], CLASSES)
    assert too_few([drawn(7, (0, 4))], ("AD", "MCI", "NC"))


@pytest.mark.parametrize("classes", [CLASSES, ("AD", "MCI", "NC")])
def test_every_drawn_curve_agrees_with_scikit_learn_on_the_drawn_patients(classes):
    table = drawn(1, (0, 24), classes, scans=2)
    table["probability_AD"] = table["probability_AD"].round(1)  # ties
    at = np.linspace(0, 1, 11)
    curves = draw_rocs([table], classes, "AD", at, draws=20)
    generator = np.random.default_rng(0)
    counts = {}
    for group in classes:
        patients = sorted(table.loc[table["class"] == group, "patient"].unique())
        drawn_counts = generator.multinomial(
            len(patients), np.full(len(patients), 1 / len(patients)), size=20
        )
        counts |= dict(zip(patients, drawn_counts.T, strict=True))
    for draw, curve in enumerate(curves):
        weights = [counts[patient][draw] for patient in table["patient"]]
        wrong, right, _ = roc_curve(
            table["class"] == "AD", table["probability_AD"], sample_weight=weights
        )
        np.testing.assert_allclose(curve, np.interp(at, wrong, right), atol=1e-9)


def test_the_area_under_a_drawn_curve_is_the_drawn_area():
    tables = [drawn(1, (0, 40)), drawn(2, (40, 80))]
    at = np.linspace(0, 1, 2001)
    curves = draw_rocs(tables, CLASSES, "AD", at, draws=50)
    areas = np.trapezoid(curves, at, axis=1)
    np.testing.assert_allclose(areas, draw_aucs(tables, CLASSES, draws=50), atol=0.002)


def test_the_band_covers_the_true_curve_at_its_level():
    """Two normal distributions one SD apart: the logits' difference has an SD of sqrt 2."""
    at, inside = np.array([0.2, 0.5]), []
    # The difference of the two logits is +1 or -1 on average, with a variance of 2.
    true = stats.norm.cdf((2 + np.sqrt(2) * stats.norm.ppf(at)) / np.sqrt(2))
    for seed in range(120):
        curves = draw_rocs([drawn(seed, (0, 120))], CLASSES, "AD", at, draws=200)
        low, high = np.quantile(curves, [0.025, 0.975], axis=0)
        inside.append((low <= true) & (true <= high))
    assert (np.mean(inside, axis=0) > 0.87).all()
