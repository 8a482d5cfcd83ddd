import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from voxplain.cohort.demographics import read_age, read_sex
from voxplain.cohort.plan import plan_cohort
from voxplain.cohort.scans import list_scans
from voxplain.cohort.splits import make_folds
from voxplain.comparison.areas import measure_areas
from voxplain.comparison.auc import draw_aucs, interval
from voxplain.comparison.baselines import predict_split
from voxplain.faults import SetupFault
from voxplain.training.metrics import measure

CLASSES = ["AD", "NC"]


def split_of(groups, test, cohort="a"):
    """Members with one scan a patient; those numbered in ``test`` are tested."""
    return pd.DataFrame(
        {
            "image": [f"I{n}" for n in range(len(groups))],
            "patient": [f"P{n}" for n in range(len(groups))],
            "class": groups,
            "side": ["test" if n in test else "train" for n in range(len(groups))],
            "cohort": cohort,
        }
    )


def features_of(members, **columns):
    index = pd.MultiIndex.from_frame(members[["cohort", "image"]])
    return pd.DataFrame(columns, index=index, dtype=float)


MEMBERS = split_of(["AD", "NC", "AD", "NC", "AD", "NC", "AD", "NC"], test={6, 7})
TABLE = features_of(
    MEMBERS,
    age=[80, 70, 76, 66, 72, 74, 78, 68],
    male=[1, 0, 1, 1, 0, 0, 1, 0],
)


def by_hand(values, groups, tested):
    """Standardise by the training rows, and fit with scikit-learn directly."""
    mean, sd = values.mean(0), values.std(0)
    model = LogisticRegression().fit((values - mean) / sd, groups)
    return model, model.predict_proba((tested - mean) / sd)


# --- one split ------------------------------------------------------------------------------------


def test_predictions_agree_with_scikit_learn_on_a_small_table():
    predictions, coefficients = predict_split(MEMBERS, TABLE, CLASSES, ["male"])
    values = TABLE.to_numpy()
    model, expected = by_hand(values[:6], MEMBERS["class"][:6], values[6:])
    assert list(model.classes_) == CLASSES
    assert list(predictions["image"]) == ["I6", "I7"]
    assert list(predictions["class"]) == list(predictions["predicted"]) == CLASSES
    np.testing.assert_allclose(predictions[["probability_AD", "probability_NC"]], expected)
    assert (predictions["imputed"] == 0).all()
    assert list(coefficients["class"]) == ["AD", "AD"]
    assert list(coefficients["feature"]) == ["age", "male"]
    np.testing.assert_allclose(coefficients["mean"], values[:6].mean(0))
    np.testing.assert_allclose(coefficients["sd"], values[:6].std(0))
    # scikit-learn's coefficient is for NC; patients with AD are older.
    np.testing.assert_allclose(coefficients["coefficient"], -model.coef_[0])
    assert coefficients["coefficient"][0] > 0


def test_the_first_class_need_not_come_first_in_the_alphabet():
    forward, of_ad = predict_split(MEMBERS, TABLE, CLASSES, ["male"])
    back, of_nc = predict_split(MEMBERS, TABLE, CLASSES[::-1], ["male"])
    np.testing.assert_allclose(back["probability_NC"], forward["probability_NC"])
    assert list(of_nc["class"]) == ["NC", "NC"]
    np.testing.assert_allclose(of_nc["coefficient"], -of_ad["coefficient"])


def test_three_classes_have_a_probability_and_coefficients_each():
    classes = ["MCI", "AD", "NC"]
    members = split_of(["AD", "NC", "MCI"] * 5, test={12, 13, 14})
    draw = np.random.default_rng(0)
    table = features_of(members, x=draw.normal(size=15), y=draw.normal(size=15))
    predictions, coefficients = predict_split(members, table, classes)
    values = table.to_numpy()
    model, expected = by_hand(values[:12], members["class"][:12], values[12:])
    probabilities = predictions[[f"probability_{group}" for group in model.classes_]]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert list(coefficients["class"]) == ["MCI", "MCI", "AD", "AD", "NC", "NC"]
    mci = coefficients.loc[coefficients["class"] == "MCI", "coefficient"]
    np.testing.assert_allclose(mci, model.coef_[list(model.classes_).index("MCI")], atol=1e-4)


def test_gaps_take_the_training_scans_median_and_most_frequent_value_and_are_counted():
    table = TABLE.copy()
    table.iloc[0, 0] = table.iloc[6, 0] = table.iloc[6, 1] = table.iloc[1, 1] = np.nan
    predictions, coefficients = predict_split(MEMBERS, table, CLASSES, ["male"])
    filled = TABLE.to_numpy().copy()
    # Known ages 70, 76, 66, 72, 74; three of the known sexes are male.
    filled[[0, 6], 0] = 72
    filled[[1, 6], 1] = 1
    table.iloc[4, 1] = np.nan
    values = np.delete(TABLE.to_numpy()[:6, 1], 1)
    assert (values == 1).sum() == 3 > (values == 0).sum()
    _, expected = by_hand(filled[:6], MEMBERS["class"][:6], filled[6:])
    np.testing.assert_allclose(predictions[["probability_AD", "probability_NC"]], expected)
    assert list(predictions["imputed"]) == [2, 0]
    np.testing.assert_allclose(coefficients["mean"], filled[:6].mean(0))


def test_a_column_without_any_value_has_no_influence():
    nothing = TABLE.assign(age=np.nan, male=np.nan)
    predictions, coefficients = predict_split(MEMBERS, nothing, CLASSES, ["male"])
    np.testing.assert_allclose(predictions["probability_AD"], 0.5)
    assert (coefficients["coefficient"] == 0).all()
    assert list(predictions["imputed"]) == [2, 2]


def test_fitted_values_do_not_depend_on_the_test_scans():
    draw = np.random.default_rng(1)
    before, fitted = predict_split(MEMBERS, TABLE, CLASSES, ["male"])
    for _ in range(20):
        table = TABLE.copy()
        table.iloc[6:] = draw.choice([np.nan, -1e6, 1e6, 3.0], (2, 2))
        members = MEMBERS.copy()
        members.loc[6:, "class"] = draw.choice(CLASSES, 2)
        predictions, again = predict_split(members, table, CLASSES, ["male"])
        pd.testing.assert_frame_equal(again, fitted)
        assert not np.allclose(predictions["probability_AD"], before["probability_AD"])
    table = TABLE.copy()
    table.iloc[0, 0] += 1
    assert not predict_split(MEMBERS, table, CLASSES, ["male"])[1].equals(fitted)


def test_the_same_image_id_in_another_cohort_is_another_scan():
    other = split_of(["AD", "NC"], test={0, 1}, cohort="b")
    both = pd.concat([MEMBERS[MEMBERS["side"] == "train"], other], ignore_index=True)
    table = pd.concat([TABLE, features_of(other, age=[50, 90], male=[0, 1])])
    predictions, _ = predict_split(both, table, CLASSES, ["male"])
    values = TABLE.to_numpy()[:6]
    _, expected = by_hand(values, MEMBERS["class"][:6], np.array([[50, 0], [90, 1]]))
    np.testing.assert_allclose(predictions[["probability_AD", "probability_NC"]], expected)


def test_a_scan_without_values_is_refused_by_name():
    with pytest.raises(SetupFault, match=r"no values of scans \('a', 'I7'\)"):
        predict_split(MEMBERS, TABLE.iloc[:7], CLASSES)


# --- input values ---------------------------------------------------------------------------------


def test_the_mean_of_an_area_is_that_of_its_voxels():
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0], np.float32)
    labels = np.array([0, 1, 3, 1, 3], np.uint8)
    names = {1: "Hippocampus_L", 2: "Hippocampus_R", 3: "Insula_L"}
    assert measure_areas(values, labels, names) == {"Hippocampus_L": 5.0, "Insula_L": 10.0}


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("75", 75),
        ("75.4", 75.4),
        ("", None),
        ("old", None),
        ("0", None),
        ("-4", None),
        ("nan", None),
    ],
)
def test_ages_are_read_or_missing(text, age):
    assert read_age(text) == age


@pytest.mark.parametrize(
    ("text", "male"),
    [("M", 1), ("male ", 1), ("F", 0), ("Female", 0), ("1", 1), ("2", 0), ("X", None)],
)
def test_sexes_are_read_or_missing(text, male):
    assert read_sex(text) == male


# --- a confound -----------------------------------------------------------------------------------


def aucs_of_simulated(ages):
    """Tables of five folds of a simulated cohort of 80 patients, predicted by age and sex."""
    plan = []
    for place, (group, age) in enumerate(ages.items()):
        plan += plan_cohort(
            seed=5,
            groups={group: {"patients": 40, "severity": [0, 0]}},
            visits={"sc": 1.0},
            age=age,
            ageing_per_decade=0.02,
            progression_per_year=0.1,
            heads=["packaged"],
            first_number=1000 * place,
        )
    rows, folders = [scan.table_row() for scan in plan], {s.image: [s.folder] for s in plan}
    scans = list_scans(rows, folders, [CLASSES], "scans.csv", {}, {}, 36, "first")
    tables = []
    for split in make_folds(scans, CLASSES, folds=5, repeats=1, stratify=True, seed=1):
        members = pd.DataFrame(
            [(s.image, s.patient, s.group, split.side(s.image), "a") for s in scans],
            columns=["image", "patient", "class", "side", "cohort"],
        )
        columns = {
            "age": [read_age(scan.age) for scan in scans],
            "male": [read_sex(scan.sex) for scan in scans],
        }
        table = features_of(members, **columns)
        tables.append(predict_split(members, table, CLASSES, ["male"])[0])
    mean = np.mean([measure(table, CLASSES)["roc_auc"] for table in tables])
    return mean, *interval(draw_aucs(tables, CLASSES))


def test_the_baseline_detects_a_cohort_whose_age_depends_on_the_class():
    mean, low, _ = aucs_of_simulated({"AD": [72, 88], "CN": [60, 76]})
    assert mean > 0.9
    assert low > 0.8


def test_the_baseline_is_at_chance_where_age_does_not_depend_on_the_class():
    mean, low, high = aucs_of_simulated({"AD": [60, 85], "CN": [60, 85]})
    assert low < 0.5 < high
    assert abs(mean - 0.5) < 0.15
