"""The result over all cohorts and networks, compared with numbers counted by hand."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from voxplain.comparison.scorecard import exceeds_chance, findings, scorecard
from voxplain.faults import SetupFault
from voxplain.plots.scorecard import _order, plot_scorecard


def score(method, patient, value, seed=0, **other):
    return {
        "cohort": "temporal",
        "task": "AD-NC",
        "model": "rieke",
        "method": method,
        "patient": patient,
        "seed": seed,
        "region": "truth",
        "smoothing_mm": 0.0,
        "measure": "average_precision",
        "value": value,
        "chance": 0.1,
        **other,
    }


SCORES = pd.DataFrame(
    [
        score("lrp", "A", 0.2),
        score("lrp", "A", 0.4, seed=1),
        score("lrp", "B", 0.6),
        score("lrp", "B", 0.2, seed=1),
        score("lrp", "B", 0.9, region="cortex"),
        score("lrp", "B", 0.9, smoothing_mm=12.0),
        score("lrp", "B", 0.9, measure="mass"),
        score("sensitivity", "A", 0.1),
        score("sensitivity", "B", 0.1),
        score("t", "A", 0.5, model="voxcnn"),
    ]
)


def test_a_patient_counts_once_over_all_seeds():
    card = scorecard(SCORES).set_index(["model", "method"])
    assert list(card.index) == [("rieke", "lrp"), ("rieke", "sensitivity"), ("voxcnn", "t")]
    row = card.loc["rieke", "lrp"]
    assert row["mean"] == pytest.approx((0.3 + 0.4) / 2)
    assert row["times_chance"] == pytest.approx(3.5)
    # Of two patients a bootstrap draws one, the other, or both.
    assert (row["low"], row["high"]) == pytest.approx((0.3, 0.4))
    assert (row["times_low"], row["times_high"]) == pytest.approx((3.0, 4.0))
    assert row["patients"] == 2
    assert np.isnan(card.loc["voxcnn", "t"]["low"]), "one patient has no interval"
    assert scorecard(SCORES, smoothing_mm=12)["mean"].tolist() == [0.9]
    assert scorecard(SCORES, region="residual").empty


def test_a_missing_column_is_named():
    with pytest.raises(SetupFault, match="model"):
        scorecard(SCORES.drop(columns="model"))


@pytest.mark.parametrize(
    ("times", "low", "expected"),
    [(2.0, 1.1, True), (1.9, 1.5, False), (3.0, 0.9, False), (3.0, np.nan, False)],
)
def test_a_method_exceeds_chance_if_twice_chance_with_an_interval_above_it(times, low, expected):
    assert exceeds_chance({"times_chance": times, "times_low": low}) is expected


def network(cohort, roc_auc, low, high):
    fields = {"cohort": cohort, "task": "AD-NC", "model": "rieke", "kind": "network"}
    fields["evaluation"] = "external test"
    return {**fields, "roc_auc": roc_auc, "roc_auc_low": low, "roc_auc_high": high}


DISEASE, SHORTCUT, NOTHING = ["disease"], ["shortcut"], []


@pytest.mark.parametrize(
    ("effects", "roc_auc", "finding"),
    [
        (DISEASE, (0.95, 0.9, 0.99), "own, AD-NC, rieke: ROC AUC 0.95 (0.90 to 0.99)."),
        (DISEASE, (0.6, 0.45, 0.7), "(0.45 to 0.70): the network tells nothing apart."),
        (DISEASE + SHORTCUT, (0.9, 0.8, 1.0), ", with a shortcut beside the disease."),
        (NOTHING, (0.52, 0.44, 0.59), ": at chance, as labels that mean nothing must be."),
        (NOTHING, (0.7, 0.6, 0.8), "nothing, so that something leaks."),
        (NOTHING, (0.3, 0.2, 0.4), ": below chance, by chance; nothing tells the classes apart."),
        (SHORTCUT, (0.9, 0.8, 1.0), ", without any disease: the shortcut alone."),
        (SHORTCUT, (0.5, 0.4, 0.6), "the shortcut alone, which the network does not see."),
        (None, (0.8, np.nan, np.nan), "ROC AUC 0.80."),
    ],
)
def test_the_meaning_of_a_networks_accuracy_depends_on_the_cohort(effects, roc_auc, finding):
    networks = pd.DataFrame([network("own", *roc_auc)])
    (sentence,) = findings(scorecard(SCORES.iloc[:0]), networks, {"own": effects})
    assert finding in sentence


def test_an_interval_over_folds_does_not_claim_a_leak():
    row = {**network("null", 0.6, 0.51, 0.7), "evaluation": "cross-validation"}
    (sentence,) = findings(scorecard(SCORES.iloc[:0]), pd.DataFrame([row]), {"null": []})
    assert "too narrow, an external test can tell whether something leaks" in sentence


def test_a_truth_outside_every_brain_is_not_a_miss():
    scores = pd.DataFrame([score("lrp", patient, np.nan) for patient in "AB"])
    assert scorecard(scores).empty


def test_the_methods_that_find_the_truth_are_named_best_first():
    scores = pd.concat([SCORES, pd.DataFrame([score("cam", p, 0.8) for p in "AB"])])
    difference = pd.DataFrame([score("group_difference", p, 0.5) for p in "AB"])
    card = scorecard(pd.concat([scores, difference]))
    baseline = {**network("temporal", 0.55, 0.4, 0.7), "model": "age", "kind": "baseline"}
    networks = pd.DataFrame([network("temporal", 0.9, 0.8, 1.0), baseline])
    (sentence,) = findings(card, networks, {"temporal": DISEASE}, ["group_difference"])
    assert "ROC AUC 0.90 (0.80 to 1.00); age 0.55. 2 of 3 methods find the truth" in sentence
    assert "cam (8.0), lrp (3.5); group_difference, without a network: 5.0." in sentence


def test_the_picture_has_the_best_method_first_and_baselines_last(drawn):
    card = scorecard(SCORES)
    assert _order(card, ["lrp"]) == ["t", "sensitivity", "lrp"]
    card.loc[1, "times_chance"] = np.nan
    image, figure = drawn(partial(plot_scorecard, baselines=["t"]), card, "Two networks")
    assert image.std() > 12
    two = pd.concat([card, card.assign(task="AD-MCI")])
    _, wider = drawn(plot_scorecard, two, "Two tasks")
    assert len(wider.axes[0].get_xticks()) == 2 * len(figure.axes[0].get_xticks())
    nothing = plot_scorecard(card.iloc[:0], "Real scans")
    assert "no scan here" in nothing.axes[0].texts[0].get_text()
