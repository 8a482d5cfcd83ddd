import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import roc_auc_score

from voxplain.comparison.models import EVALUATIONS, LEVELS
from voxplain.plots.training import (
    plot_confusion,
    plot_learning,
    plot_models,
    plot_roc,
)
from voxplain.training.cross_validation import pool_folds
from voxplain.training.metrics import measure, per_patient
from voxplain.training.predictions import predictions_table

TRAIN, TEST, GREY = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x99, 0x99, 0x99)


def count(picture, colour):
    return int((abs(picture - np.array(colour)).max(axis=-1) < 12).sum())


def texts_of(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def cut_or_covered(figure):
    """Texts of a figure that extend beyond its border, and headings that overlap."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    problems = []
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
            problems.append(f"{name} is cut")
    top = figure._suptitle.get_window_extent(renderer)
    for axes in figure.axes:
        if axes.title.get_text() and axes.title.get_window_extent(renderer).overlaps(top):
            problems.append(f"{axes.title.get_text()} touches the heading")
    return problems


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
    picture, figure = drawn(plot_learning, histories, "a cohort")
    assert count(picture, TRAIN) > 300
    assert count(picture, TEST) > 300
    assert f"{folds} trainings" in figure._suptitle.get_text()
    assert cut_or_covered(figure) == []
    for axes, measure_name in zip(figure.axes, ("loss", "accuracy"), strict=True):
        assert len(axes.lines) == 2 * (folds + 1)
        for side, line in (("train", axes.lines[folds]), ("test", axes.lines[2 * folds + 1])):
            expected = np.mean([h[f"{side}_{measure_name}"] for h in histories.values()], axis=0)
            np.testing.assert_allclose(line.get_ydata(), expected)
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 13))


def test_the_mean_of_trainings_of_unequal_length_is_over_those_with_that_epoch(drawn):
    short, long = history(0, epochs=5), history(1, epochs=9)
    _, figure = drawn(plot_learning, {"a": short, "b": long}, "a cohort")
    mean = figure.axes[0].lines[2].get_ydata()
    np.testing.assert_allclose(mean[:5], (short["train_loss"] + long["train_loss"][:5]) / 2)
    np.testing.assert_allclose(mean[5:], long["train_loss"][5:])


# --- ROC curves -----------------------------------------------------------------------------------


def area(table, group="AD"):
    return roc_auc_score(table["class"] == group, table[f"probability_{group}"])


def area_under(line):
    return np.trapezoid(line.get_ydata(), line.get_xdata())


def legend_of(axes):
    """Texts of the legend, without that of the band."""
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    return [text for text in texts if not text.startswith("95 %")]


def test_roc_curves_show_every_fold_and_all_pooled(drawn):
    classes = ("AD", "CN")
    tables = {(1, fold, 7): predictions(classes, fold) for fold in range(3)}
    picture, figure = drawn(plot_roc, tables, classes, "a cohort")
    assert count(picture, TEST) > 300
    assert count(picture, GREY) > 300
    assert cut_or_covered(figure) == []
    assert "AD against CN" in figure._suptitle.get_text()
    assert "repeats" not in figure._suptitle.get_text()
    per_scan, of_patients = figure.axes
    assert per_scan.get_title() == "per scan (n = 90)"
    patients = sum(table["patient"].nunique() for table in tables.values())
    assert patients < 90
    assert of_patients.get_title() == f"per patient (n = {patients})"

    areas = [area(table) for table in tables.values()]
    pooled = area(pd.concat(tables.values()))
    assert legend_of(per_scan) == [
        f"pooled, AUC {pooled:.2f}",
        f"folds, AUC {np.mean(areas):.2f} ± {np.std(areas, ddof=1):.2f}",
    ]
    assert len(per_scan.lines) == 4 + 3  # two entries of the legend, and chance
    for line, expected in zip(per_scan.lines, [*areas, pooled], strict=False):
        assert area_under(line) == pytest.approx(expected)


def repeated(classes, repeats=3, folds=2):
    """Every repeat tests the same scans of the same patients."""
    tables = {}
    for repeat in range(1, repeats + 1):
        whole = predictions(classes, repeat, scans=40)
        whole["patient"] = whole["patient"].str.replace(f"{repeat}-", "", n=1)
        of_fold = whole.groupby("patient").ngroup() % folds
        for fold in range(folds):
            tables[repeat, fold + 1, 0] = whole[of_fold == fold]
    return tables


def test_each_repeat_of_a_cross_validation_is_one_curve(drawn):
    classes = ("AD", "CN")
    tables = repeated(classes)
    _, figure = drawn(plot_roc, tables, classes, "a cohort")
    assert cut_or_covered(figure) == []
    assert "3 repeats or seeds" in figure._suptitle.get_text()
    pools = list(pool_folds(tables).values())
    for axes, at_level in zip(
        figure.axes, (lambda t: t, lambda t: per_patient(t, classes)), strict=True
    ):
        areas = [area(at_level(table)) for table in pools]
        assert len(axes.lines) == 6 + 3 + 1 + 3, "folds, repeats, their mean; legend and chance"
        for line, expected in zip(axes.lines[6:9], areas, strict=True):
            assert area_under(line) == pytest.approx(expected)
        assert area_under(axes.lines[9]) == pytest.approx(np.mean(areas), abs=0.01)
        spread = f"{np.mean(areas):.2f} ± {np.std(areas, ddof=1):.2f}"
        assert legend_of(axes)[0] == f"pooled, AUC {spread}"
    patients = pools[0]["patient"].nunique()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["per scan (n = 40)", f"per patient (n = {patients})"]


@pytest.mark.parametrize("classes", [("AD", "LMCI", "EMCI", "CN")])
def test_of_several_classes_each_has_its_curve_against_the_rest(drawn, classes):
    tables = {(1, fold, 0): predictions(classes, fold) for fold in range(3)}
    picture, figure = drawn(plot_roc, tables, classes, "a cohort")
    assert count(picture, TRAIN) > 200
    assert count(picture, TEST) > 200
    assert cut_or_covered(figure) == []
    assert "each class against the rest" in figure._suptitle.get_text()
    pooled = pd.concat(tables.values())
    for axes, table in zip(figure.axes, (pooled, per_patient(pooled, classes)), strict=True):
        areas = [area(table, group) for group in classes]
        assert legend_of(axes) == [
            f"{group} against the rest, AUC {value:.2f}"
            for group, value in zip(classes, areas, strict=True)
        ]
        curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
        assert [area_under(line) for line in curves] == pytest.approx(areas)
        assert len({line.get_color() for line in curves}) == len(classes)


def test_a_patients_score_in_the_roc_curve_is_the_mean_of_their_scans(drawn):
    table = predictions(("AD", "CN"))
    _, figure = drawn(plot_roc, {(1, 1, 0): table}, ("AD", "CN"), "a cohort")
    patients = table.groupby("patient").agg({"class": "first", "probability_AD": "mean"})
    expected = roc_auc_score(patients["class"] == "AD", patients["probability_AD"])
    assert area_under(figure.axes[1].lines[0]) == pytest.approx(expected)


def test_one_fold_has_no_sd(drawn):
    table = predictions(("AD", "CN"))
    _, figure = drawn(plot_roc, {(1, 1, 0): table}, ("AD", "CN"), "one")
    assert legend_of(figure.axes[0])[1] == f"folds, AUC {area(table):.2f}"


def test_a_fold_with_one_class_has_no_curve_but_is_pooled(drawn):
    whole, other = predictions(("AD", "CN")), predictions(("AD", "CN"), seed=1)
    healthy = other[other["class"] == "CN"]
    tables = {(1, 1, 0): whole, (1, 2, 0): healthy}
    _, figure = drawn(plot_roc, tables, ("AD", "CN"), "a cohort")
    per_scan = figure.axes[0]
    assert len(per_scan.lines) == 1 + 1 + 3  # a fold, the pool, two entries of the legend, chance
    assert per_scan.get_title() == f"per scan (n = {len(whole) + len(healthy)})"


def test_pools_without_a_class_have_no_curve(drawn):
    table = predictions(("AD", "CN"))
    healthy = table[table["class"] == "CN"]
    _, figure = drawn(plot_roc, {(1, 1, 0): healthy}, ("AD", "CN"), "a cohort")
    assert legend_of(figure.axes[0]) == ["pooled, AUC n/a", "folds, AUC n/a"]


# --- confusion matrices ---------------------------------------------------------------------------


def test_a_confusion_matrix_has_counts_and_shares_of_the_true_class(drawn):
    members = pd.DataFrame(
        {
            "image": list("abcdef"),
            "patient": ["p", "p", "q", "r", "s", "s"],
            "class": ["AD", "AD", "AD", "AD", "CN", "CN"],
        }
    )
    sick = np.array([0.9, 0.2, 0.8, 0.3, 0.1, 0.4])
    table = predictions_table(members, np.stack([sick, 1 - sick], axis=1), ("AD", "CN"))
    folds = {(1, 1, 0): table.iloc[:3], (1, 2, 0): table.iloc[3:]}
    _, figure = drawn(plot_confusion, folds, ("AD", "CN"), "by hand")
    assert texts_of(figure)[:4] == ["2\n50%", "2\n50%", "0\n0%", "2\n100%"]
    # p's mean is 0.55, so p counts as positive.
    assert texts_of(figure)[4:] == ["2\n67%", "1\n33%", "0\n0%", "1\n100%"]
    assert [axes.get_title() for axes in figure.axes] == [
        "per scan, accuracy 0.67",
        "per patient, accuracy 0.75",
    ]


@pytest.mark.parametrize(
    "classes", [("AD", "CN"), ("AD", "MCI", "CN"), ("AD", "LMCI", "EMCI", "CN")]
)
def test_a_confusion_matrix_has_a_row_and_a_column_for_each_class(drawn, classes):
    table = predictions(classes, scans=60)
    picture, figure = drawn(plot_confusion, {(1, 1, 0): table}, classes, "a cohort")
    assert cut_or_covered(figure) == []
    for axes in figure.axes:
        assert [tick.get_text() for tick in axes.get_xticklabels()] == list(classes)
        assert [tick.get_text() for tick in axes.get_yticklabels()] == list(classes)
    counts = pd.crosstab(table["class"], table["predicted"]).loc[list(classes), list(classes)]
    shown = [int(text.split("\n")[0]) for text in texts_of(figure)[: len(classes) ** 2]]
    assert shown == counts.to_numpy().ravel().tolist()
    blue = (picture[..., 2] - picture[..., 0]) > 60
    assert blue.sum() > 5000


def test_a_class_without_a_scan_has_an_empty_row(drawn):
    classes = ("AD", "MCI", "CN")
    table = predictions(classes)
    tables = {(1, 1, 0): table[table["class"] != "MCI"]}
    _, figure = drawn(plot_confusion, tables, classes, "a cohort")
    assert texts_of(figure)[3:6] == ["0\n0%"] * 3


def test_repeats_are_summed_and_a_patient_counts_once_in_each(drawn):
    classes = ("AD", "CN")
    tables = repeated(classes)
    _, figure = drawn(plot_confusion, tables, classes, "a cohort")
    assert "3 repeats or seeds" in figure._suptitle.get_text()
    pools = list(pool_folds(tables).values())
    for number, at_level in enumerate((lambda t: t, lambda t: per_patient(t, classes))):
        metrics = [measure(at_level(table), classes) for table in pools]
        shown = [int(text.split("\n")[0]) for text in texts_of(figure)[4 * number :][:4]]
        assert shown == np.sum([one["confusion"] for one in metrics], axis=0).ravel().tolist()
        accuracies = [one["accuracy"] for one in metrics]
        spread = f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f}"
        assert figure.axes[number].get_title().endswith(f"accuracy {spread}")


# --- models ---------------------------------------------------------------------------------------

FOLDS, EXTERNAL, FIXED = EVALUATIONS


def summary_of(tasks, models, series, seed=0):
    """A summary as of ``series``: cohort, cohort tested on, evaluation."""
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        [
            {
                "cohort": cohort,
                "tested_on": tested_on,
                "task": task,
                "model": model,
                "level": level,
                "evaluation": evaluation,
                "roc_auc_mean": draw.uniform(0.5, 0.8),
                "roc_auc_low": draw.uniform(0.3, 0.5),
                "roc_auc_high": draw.uniform(0.8, 1.0),
            }
            for task in tasks
            for model in models
            for cohort, tested_on, evaluation in series
            for level in LEVELS
        ]
    )


def series_of(axes):
    """The points and the bars of each series."""
    points = [line for line in axes.lines if line.get_marker() != "None"]
    return list(zip(points, axes.collections, strict=True))


MODELS = ["rieke", "voxcnn", "voxresnet", "voxresnet_gap", "voxresnet_shallow_gap (pools 2,2)"]
TASKS = ["AD-NC", "pMCI-sMCI", "AD-LMCI-EMCI-NC", "AD-EMCI", "LMCI-NC", "EMCI-NC"]
SERIES = [("a", "a", FOLDS), ("a", "b", EXTERNAL), ("b", "b", FOLDS), ("b", "a", EXTERNAL)]


def labels_of_axis(axes):
    return [tick.get_text() for tick in axes.get_xticklabels() if tick.get_visible()]


def test_every_task_is_a_panel_with_a_point_and_a_bar_of_every_model_and_cohort(drawn):
    summary = summary_of(TASKS, MODELS, SERIES)
    picture, figure = drawn(plot_models, summary, "a run")
    assert cut_or_covered(figure) == []
    assert [axes.get_title() for axes in figure.axes] == TASKS
    for axes, task in zip(figure.axes, TASKS, strict=True):
        for (cohort, tested_on, _), (points, bars) in zip(SERIES, series_of(axes), strict=True):
            rows = summary[
                (summary["task"] == task)
                & (summary["cohort"] == cohort)
                & (summary["tested_on"] == tested_on)
                & (summary["level"] == "patient")
            ]
            np.testing.assert_array_equal(points.get_ydata(), rows["roc_auc_mean"])
            ends = np.array([line[:, 1] for line in bars.get_segments()])
            np.testing.assert_allclose(ends, rows[["roc_auc_low", "roc_auc_high"]])
        shown = [points for points, _ in series_of(axes)]
        looks = {(points.get_color(), points.get_marker()) for points in shown}
        assert len({colour for colour, _ in looks}) == len({mark for _, mark in looks}) == 4
        places = [points.get_xdata() for points in shown]
        np.testing.assert_array_equal(np.rint(places), [range(5)] * 4)  # each at its model
        assert np.unique(places).size == 20  # without overlap
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "a, cross-validation",
        "a, tested on b",
        "b, cross-validation",
        "b, tested on a",
    ]
    assert labels_of_axis(figure.axes[3])[4] == "voxresnet_shallow_gap\n(pools 2,2)"
    for colour in (TRAIN, TEST):
        assert count(picture, colour) > 300


@pytest.mark.parametrize("level", LEVELS)
def test_the_axis_says_whether_points_are_of_scans_or_patients(drawn, level):
    summary = summary_of(["AD-NC"], MODELS[:2], SERIES[:1])
    _, figure = drawn(plot_models, summary, "a run", level)
    (axes,) = figure.axes
    assert axes.get_ylabel() == f"ROC AUC per {level}"
    rows = summary[summary["level"] == level]
    np.testing.assert_array_equal(series_of(axes)[0][0].get_ydata(), rows["roc_auc_mean"])


@pytest.mark.parametrize("tasks", [1, 5])
def test_every_column_of_panels_names_the_models_below(drawn, tasks):
    _, figure = drawn(plot_models, summary_of(TASKS[:tasks], MODELS, SERIES[:1]), "a run")
    assert cut_or_covered(figure) == []
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == TASKS[:tasks]
    lowest = {round(axes.get_position().x0, 3): axes for axes in shown}
    for axes in lowest.values():
        assert axes.xaxis.get_tick_params()["labelbottom"]


def test_a_model_that_lacks_a_task_or_an_interval_has_a_gap_or_no_bar(drawn):
    summary = summary_of(TASKS[:2], MODELS[:2], SERIES[:1])
    removed = (summary["task"] == TASKS[1]) & (summary["model"] == MODELS[0])
    summary.loc[summary["model"] == MODELS[1], ["roc_auc_low", "roc_auc_high"]] = np.nan
    _, figure = drawn(plot_models, summary[~removed], "a run")
    first, second = (series_of(axes)[0] for axes in figure.axes)
    assert np.isfinite(first[0].get_ydata(orig=False)).tolist() == [True, True]
    assert np.isfinite(second[0].get_ydata(orig=False)).tolist() == [False, True]
    assert [len(line) for line in first[1].get_segments()] == [2, 0]


def test_the_fixed_split_shows_only_where_nothing_else_was_done(drawn):
    both = [("a", "a", FOLDS), ("a", "a", FIXED)]
    for series, expected in ((both, "a, cross-validation"), (both[1:], "a, fixed split")):
        _, figure = drawn(plot_models, summary_of(["AD-NC"], MODELS[:2], series), "a run")
        assert [text.get_text() for text in figure.legends[0].get_texts()] == [expected]


def test_a_band_lies_around_the_curve_where_patients_can_be_drawn(drawn):
    classes = ("AD", "CN")
    table = predictions(classes, scans=60)
    _, figure = drawn(plot_roc, {(1, 1, 0): table}, classes, "a cohort")
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    curve = figure.axes[0].lines[1]  # after the fold's, which is the same here
    for x, y in zip(curve.get_xdata(), curve.get_ydata(), strict=True):
        near = band[abs(band[:, 0] - x) <= 0.011][:, 1]
        assert near.min() - 0.05 <= y <= near.max() + 0.05
    assert np.ptp(band[abs(band[:, 0] - 0.5) < 0.006][:, 1]) > 0.02
    assert "95 % of what" in figure.axes[0].get_legend().get_texts()[-1].get_text()
    one_each = table.groupby("class").head(1)
    _, figure = drawn(plot_roc, {(1, 1, 0): one_each}, classes, "one patient of a class")
    assert not figure.axes[0].collections
    assert len(legend_of(figure.axes[0])) == len(figure.axes[0].get_legend().get_texts())


def test_long_headings_are_not_cut(drawn):
    classes, title = (
        ("AD", "CN"),
        "hippocampal_at_3_tesla, AD-CN, voxresnet_shallow_gap (pools 2,2,2,1)",
    )
    tables = repeated(classes)
    for function, arguments in (
        (plot_roc, (tables, classes)),
        (plot_confusion, (tables, classes)),
        (plot_models, (summary_of(["AD-NC"], MODELS, SERIES),)),
    ):
        _, figure = drawn(function, *arguments, f"{title}: {title}")
        assert figure._suptitle.get_text().count("\n") >= 1
        assert cut_or_covered(figure) == []


@pytest.mark.parametrize("count", [1, 4, 12])
def test_the_height_of_a_panel_does_not_depend_on_the_number_of_series(drawn, count):
    series = [("a", f"b{number}", EXTERNAL) for number in range(count)]
    _, figure = drawn(plot_models, summary_of(["AD-NC"], MODELS[:2], series), "a run")
    box = figure.axes[0].get_position()
    assert (box.y1 - box.y0) * figure.get_figheight() > 1.3
