import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import roc_auc_score

from voxplain.plots.training import picture_of_confusion, picture_of_learning, picture_of_roc
from voxplain.training.metrics import predictions_table

TRAIN, TEST, GREY = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x99, 0x99, 0x99)


def count(picture, colour):
    return int((abs(picture - np.array(colour)).max(axis=-1) < 12).sum())


def texts_of(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def cut_or_covered(figure):
    """Texts of a figure that reach beyond its border, and headings that touch."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    found = []
    heads = [figure._suptitle, *(axes.title for axes in figure.axes)]
    labels = [label for axes in figure.axes for label in (axes.xaxis.label, axes.yaxis.label)]
    boxes = {
        text.get_text(): text.get_window_extent(renderer)
        for text in [*heads, *labels]
        if text.get_text()
    }
    width, height = canvas.get_width_height()
    for name, box in boxes.items():
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
            found.append(f"{name} is cut")
    top = figure._suptitle.get_window_extent(renderer)
    for axes in figure.axes:
        if axes.title.get_text() and axes.title.get_window_extent(renderer).overlaps(top):
            found.append(f"{axes.title.get_text()} touches the heading")
    return found


def history(seed=0, epochs=12):
    draw = np.random.default_rng(seed)
    epoch = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 0.7 / epoch + 0.02 * draw.random(epochs),
            "train_accuracy": 1 - 0.5 / epoch - 0.02 * draw.random(epochs),
            "test_loss": 0.5 + 0.3 / epoch + 0.02 * draw.random(epochs),
            "test_accuracy": 0.8 - 0.3 / epoch - 0.02 * draw.random(epochs),
        }
    )


def predictions(classes, seed=0, scans=30):
    draw = np.random.default_rng(seed)
    true = np.arange(scans) % len(classes)
    logits = draw.normal(size=(scans, len(classes)))
    logits[np.arange(scans), true] += 1
    odds = np.exp(logits)
    members = pd.DataFrame(
        {
            "image": [f"{seed}-{i}" for i in range(scans)],
            # Two scans of each patient, of the same class.
            "patient": [f"{seed}-{true[i]}-{i // (2 * len(classes))}" for i in range(scans)],
            "class": [classes[i] for i in true],
        }
    )
    return predictions_table(members, odds / odds.sum(axis=1, keepdims=True), classes)


# --- learning curves ------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [1, 4])
def test_learning_curves_show_both_sides_of_every_training_and_their_mean(drawn, folds):
    histories = {str(seed): history(seed) for seed in range(folds)}
    picture, figure = drawn(picture_of_learning, histories, "a cohort")
    assert count(picture, TRAIN) > 300
    assert count(picture, TEST) > 300
    assert f"{folds} trainings" in figure._suptitle.get_text()
    assert cut_or_covered(figure) == []
    for axes, what in zip(figure.axes, ("loss", "accuracy"), strict=True):
        assert len(axes.lines) == 2 * (folds + 1)
        for side, line in (("train", axes.lines[folds]), ("test", axes.lines[2 * folds + 1])):
            expected = np.mean([h[f"{side}_{what}"] for h in histories.values()], axis=0)
            np.testing.assert_allclose(line.get_ydata(), expected)
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 13))


def test_the_mean_of_trainings_of_unequal_length_is_that_of_those_that_got_so_far(drawn):
    short, long = history(0, epochs=5), history(1, epochs=9)
    _, figure = drawn(picture_of_learning, {"a": short, "b": long}, "a cohort")
    mean = figure.axes[0].lines[2].get_ydata()
    np.testing.assert_allclose(mean[:5], (short["train_loss"] + long["train_loss"][:5]) / 2)
    np.testing.assert_allclose(mean[5:], long["train_loss"][5:])


# --- ROC curves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [("AD", "CN"), ("AD", "MCI", "CN")])
def test_roc_curves_show_every_fold_and_all_pooled(drawn, classes):
    tables = {str(seed): predictions(classes, seed) for seed in range(3)}
    picture, figure = drawn(picture_of_roc, tables, classes, "a cohort")
    assert count(picture, TEST) > 300
    assert count(picture, GREY) > 300
    assert cut_or_covered(figure) == []
    assert f"AD against {', '.join(classes[1:])}" in figure._suptitle.get_text()
    per_scan, per_patient = figure.axes
    assert per_scan.get_title() == "per scan (n = 90)"
    patients = sum(table["patient"].nunique() for table in tables.values())
    assert patients < 90
    assert per_patient.get_title() == f"per patient (n = {patients})"

    def area(table):
        return roc_auc_score(table["class"] == "AD", table["probability_AD"])

    areas = [area(table) for table in tables.values()]
    legend = [text.get_text() for text in per_scan.get_legend().get_texts()]
    assert legend == [
        f"pooled, AUC {area(pd.concat(tables.values())):.2f}",
        f"folds, AUC {np.mean(areas):.2f} ± {np.std(areas, ddof=1):.2f}",
    ]
    for line, expected in zip(per_scan.lines, areas, strict=False):
        under = np.trapezoid(line.get_ydata(), line.get_xdata())
        assert under == pytest.approx(expected)


def test_a_patients_point_of_the_roc_curve_is_the_mean_of_their_scans(drawn):
    table = predictions(("AD", "CN"))
    _, figure = drawn(picture_of_roc, {"only": table}, ("AD", "CN"), "a cohort")
    patients = table.groupby("patient").agg({"class": "first", "probability_AD": "mean"})
    expected = roc_auc_score(patients["class"] == "AD", patients["probability_AD"])
    curve = figure.axes[1].lines[0]
    assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(expected)


def test_of_one_fold_there_is_no_spread(drawn):
    _, figure = drawn(picture_of_roc, {"only": predictions(("AD", "CN"))}, ("AD", "CN"), "one")
    for axes in figure.axes:
        assert axes.get_legend().get_texts()[1].get_text() == "folds, AUC n/a"


def test_a_fold_with_one_class_only_has_no_curve_of_its_own_but_is_pooled(drawn):
    whole, other = predictions(("AD", "CN")), predictions(("AD", "CN"), seed=1)
    healthy = other[other["class"] == "CN"]
    _, figure = drawn(picture_of_roc, {"a": whole, "b": healthy}, ("AD", "CN"), "a cohort")
    per_scan = figure.axes[0]
    assert len(per_scan.lines) == 1 + 1 + 2  # a fold, the pool, an entry of the legend, chance
    assert per_scan.get_title() == f"per scan (n = {len(whole) + len(healthy)})"


# --- confusion matrices ---------------------------------------------------------------------------


def test_a_confusion_matrix_says_how_many_and_their_share_of_the_true_class(drawn):
    members = pd.DataFrame(
        {
            "image": list("abcdef"),
            "patient": ["p", "p", "q", "r", "s", "s"],
            "class": ["AD", "AD", "AD", "AD", "CN", "CN"],
        }
    )
    sick = np.array([0.9, 0.2, 0.8, 0.3, 0.1, 0.4])
    table = predictions_table(members, np.stack([sick, 1 - sick], axis=1), ("AD", "CN"))
    _, figure = drawn(picture_of_confusion, table, ("AD", "CN"), "by hand")
    assert texts_of(figure)[:4] == ["2\n50%", "2\n50%", "0\n0%", "2\n100%"]
    # p's mean is 0.55, so that p counts as found.
    assert texts_of(figure)[4:] == ["2\n67%", "1\n33%", "0\n0%", "1\n100%"]
    assert [axes.get_title() for axes in figure.axes] == [
        "per scan, accuracy 0.67",
        "per patient, accuracy 0.75",
    ]


@pytest.mark.parametrize("classes", [("AD", "CN"), ("AD", "MCI", "CN")])
def test_a_confusion_matrix_has_a_row_and_a_column_for_each_class(drawn, classes):
    table = predictions(classes, scans=60)
    picture, figure = drawn(picture_of_confusion, table, classes, "a cohort")
    assert cut_or_covered(figure) == []
    for axes in figure.axes:
        assert [tick.get_text() for tick in axes.get_xticklabels()] == list(classes)
        assert [tick.get_text() for tick in axes.get_yticklabels()] == list(classes)
    counts = pd.crosstab(table["class"], table["predicted"]).loc[list(classes), list(classes)]
    told = [int(text.split("\n")[0]) for text in texts_of(figure)[: len(classes) ** 2]]
    assert told == counts.to_numpy().ravel().tolist()
    blue = (picture[..., 2] - picture[..., 0]) > 60
    assert blue.sum() > 5000


def test_a_class_without_a_scan_has_an_empty_row(drawn):
    classes = ("AD", "MCI", "CN")
    table = predictions(classes)
    _, figure = drawn(picture_of_confusion, table[table["class"] != "MCI"], classes, "a cohort")
    assert texts_of(figure)[3:6] == ["0\n0%"] * 3
