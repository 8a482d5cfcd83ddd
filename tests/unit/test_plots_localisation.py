from functools import partial

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet

from voxplain.plots.localisation import (
    MEASURES,
    plot_localisation,
    plot_precision_recall,
    plot_truth,
)
from voxplain.volumes import axis_aligned_grid

# The template's field of view in voxels of 8 mm.
GRID = axis_aligned_grid((25, 29, 25), (8.0, 8.0, 8.0), (-96, -132, -78))
PLACES = (np.indices(GRID.shape) - np.array([12, 14, 12]).reshape(3, 1, 1, 1)) / 10
MASK = (PLACES**2).sum(axis=0) < 1
TEMPLATE = np.where(MASK, 60 + 40 * np.cos(3 * PLACES).prod(axis=0), 0).astype(np.float32)
THRESHOLD = 0.05
BORDER = (0x4F, 0xC3, 0xF7)


def loss(*blocks):
    """Blocks of first voxel, size and fraction of tissue lost."""
    truth = np.zeros(GRID.shape)
    for first, size, fraction in blocks:
        truth[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))] = fraction
    return truth


# Two blocks far apart along x; one is two voxels deep along y, one four voxels high along z.
TRUTH = loss(((7, 13, 8), (2, 2, 4), 0.2), ((16, 13, 8), (1, 2, 4), 0.4))
NOTHING = np.zeros(GRID.shape)


def noise(seed=0):
    return np.where(MASK, np.random.default_rng(seed).random(GRID.shape), 0)


def truth_picture(drawn, rows, truth=TRUTH, threshold=THRESHOLD, title="a scan"):
    return drawn(plot_truth, rows, truth, TEMPLATE, MASK, GRID, title, threshold)


def rows_of(figure, count):
    """Axes by row: the slices, and the colour bar."""
    axes = np.array(figure.axes, dtype=object).reshape(count, -1)
    return [(list(row[:-1]), row[-1]) for row in axes]


def captions_of(figure):
    return [text.get_text() for text in figure.texts if text is not figure._suptitle]


def names_of(figure, count):
    return [slices[0].texts[-1].get_text() for slices, _ in rows_of(figure, count)]


def contours_of(axes):
    return [drawn for drawn in axes.collections if isinstance(drawn, ContourSet)]


def boxes_of(figure, texts):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = [text for text in texts if text.get_text() and text.get_visible()]
    return canvas.get_width_height(), [t.get_window_extent(canvas.get_renderer()) for t in shown]


def assert_inside_and_apart(figure, texts):
    (width, height), boxes = boxes_of(figure, texts)
    assert boxes
    for place, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])


# --- one scan's truth -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan(drawn):
    rows = {"guided_grad_cam_pp": noise(), "lrp": NOTHING, "b": 1e6 * noise(1)}
    return truth_picture(drawn, rows)


def test_the_truth_comes_first_and_then_each_method_by_name(scan):
    _, figure = scan
    assert names_of(figure, 4) == ["truth", "guided_grad_cam_pp", "lrp\n(0 everywhere)", "b"]


def test_slices_pass_through_most_of_the_truth_and_name_their_position(scan):
    _, figure = scan
    # x: 0.4 in voxel 16, and the first of two equal ones far off; y is 2 voxels and so 8 mm across:
    # one slice; z has 4 equal slices, of which two at a distance of two voxels are shown.
    assert captions_of(figure) == [
        "sagittal\nx = -40 mm",
        "sagittal\nx = 32 mm",
        "coronal\ny = -28 mm",
        "axial\nz = -14 mm",
        "axial\nz = 2 mm",
    ]
    for slices, _ in rows_of(figure, 4):
        template = slices[1].images[0].get_array()
        np.testing.assert_allclose(template, TEMPLATE[16].T)


def test_the_pair_of_slices_with_the_most_truth_is_shown_not_the_outermost(drawn):
    amounts = {8: 0.1, 9: 0.3, 10: 0.5, 11: 0.4, 12: 0.1}
    truth = loss(*(((12, 12, z), (1, 1, 1), amount) for z, amount in amounts.items()))
    _, figure = truth_picture(drawn, {"a": noise()}, truth)
    assert captions_of(figure)[2:] == ["axial\nz = -6 mm", "axial\nz = 10 mm"]


def test_slices_pass_through_voxels_above_the_threshold(drawn):
    truth = loss(((8, 10, 8), (8, 8, 8), 0.04), ((14, 16, 14), (1, 1, 1), 0.3))
    _, figure = truth_picture(drawn, {"a": noise()}, truth)
    assert captions_of(figure) == ["sagittal\nx = 16 mm", "coronal\ny = -4 mm", "axial\nz = 34 mm"]


def test_the_border_is_drawn_in_its_place_on_every_slice_of_every_row(scan):
    picture, figure = scan
    for slices, _ in rows_of(figure, 4):
        borders = [contours_of(axes) for axes in slices]
        assert [len(contours) for contours in borders] == [1] * len(slices)
        box = borders[1][0].get_paths()[0].get_extents()  # x = 16: y 13 and 14, z 8 to 11
        np.testing.assert_allclose([box.x0, box.x1, box.y0, box.y1], [12.5, 14.5, 7.5, 11.5])
        assert tuple(borders[1][0].get_edgecolor()[0][:3]) == to_rgb("#4fc3f7")
    assert (abs(picture - np.array(BORDER)).max(axis=-1) < 40).sum() > 300


def test_the_border_follows_the_threshold(drawn):
    _, figure = truth_picture(drawn, {"a": noise()}, threshold=0.3)
    assert captions_of(figure)[0] == "sagittal\nx = 32 mm"  # the other block has less loss
    (slices, _), _ = rows_of(figure, 2)
    assert len(contours_of(slices[1])[0].get_paths()[0].to_polygons()) == 1
    assert "more than 30 %" in figure._suptitle.get_text()


def test_the_truth_and_each_method_have_their_own_colour_scales(scan):
    _, figure = scan
    bars = [[tick.get_text() for tick in bar.get_yticklabels()] for _, bar in rows_of(figure, 4)]
    assert bars[0] == ["0", "40 %"]
    for number, seed in ((1, 0), (3, 1)):
        top = np.percentile(noise(seed)[MASK], 99.5) / noise(seed).sum()
        assert bars[number] == ["0", f"{1e4 * top:.2g}"]
        overlay = rows_of(figure, 4)[number][0][0].images[1]
        expected = noise(seed)[7].T / noise(seed).sum() / top
        np.testing.assert_allclose(overlay.get_array().filled(0), expected * (expected >= 0.05))
    truth = rows_of(figure, 4)[0][0][1].images[1]
    assert truth.get_array().max() == 1
    assert truth.get_cmap().name != rows_of(figure, 4)[1][0][1].images[1].get_cmap().name


def test_a_map_of_zeros_shows_the_template_with_the_border(scan):
    _, figure = scan
    slices, bar = rows_of(figure, 4)[2]
    assert [len(axes.images) for axes in slices] == [1] * len(slices)
    assert not bar.axison


def test_less_than_a_twentieth_of_a_scale_is_transparent(drawn):
    heatmap = np.where(MASK, 1.0, 0)
    heatmap[:, :, :12] *= 0.04
    _, figure = truth_picture(drawn, {"a": heatmap})
    section = rows_of(figure, 2)[1][0][1].images[1].get_array()
    inside = MASK[16].T
    assert section.mask[:12].all() and not section.mask[12:][inside[12:]].any()


def letters_of(axes):
    return "".join(text.get_text() for text in axes.texts[:2])


def test_the_subjects_left_is_on_the_left_and_every_slice_is_labelled(scan):
    _, figure = scan
    for slices, _ in rows_of(figure, 4):
        assert [letters_of(axes) for axes in slices] == ["PA", "PA", "LR", "LR", "LR"]
        assert all(np.subtract(*axes.get_xlim()) < 0 for axes in slices)
    np.testing.assert_allclose(
        rows_of(figure, 4)[0][0][3].images[0].get_array().T[5], TEMPLATE[5, :, 8]
    )


def test_in_radiological_order_the_subjects_left_is_on_the_right(scan, drawn):
    options = {"threshold": THRESHOLD, "radiological": True}
    shown = {"a": noise()}, TRUTH, TEMPLATE, MASK, GRID, "a scan"
    picture, figure = drawn(partial(plot_truth, **options), *shown)
    for slices, _ in rows_of(figure, 2):
        assert [letters_of(axes) for axes in slices] == ["PA", "PA", "RL", "RL", "RL"]
        turned = [np.subtract(*axes.get_xlim()) > 0 for axes in slices]
        assert turned == [False, False, True, True, True]
    # The block of the left has lost half as much as that of the right, and is on the right.
    box = rows_of(figure, 2)[0][0][3].get_position()
    height, width, _ = picture.shape
    place = picture[
        int(height * (1 - box.y1)) : int(height * (1 - box.y0)),
        int(width * box.x0) : int(width * box.x1),
    ]
    border = abs(place - np.array(BORDER)).max(axis=-1) < 40
    columns = np.nonzero(border.any(axis=0))[0]
    middle = place.shape[1] / 2
    assert np.ptp(columns[columns > middle]) > np.ptp(columns[columns < middle])


def test_without_atrophy_the_middle_of_the_brain_is_shown_without_border(drawn):
    _, figure = truth_picture(drawn, {"a": noise()}, NOTHING)
    assert captions_of(figure) == ["sagittal\nx = 0 mm", "coronal\ny = -20 mm", "axial\nz = 18 mm"]
    assert names_of(figure, 2) == ["truth\n(0 everywhere)", "a"]
    assert not any(contours_of(axes) for axes in figure.axes)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 20])
def test_titles_and_names_of_slices_fit_with_many_methods(drawn, count):
    rows = {f"a_method_of_long_name_{number}": noise() for number in range(count)}
    title = "simulated, ad-vs-cn, rieke (pools 2,2,2,1), split repeat-0_fold-3, seed 12: " * 2
    _, figure = truth_picture(drawn, rows, loss(((12, 14, 12), (1, 1, 1), 0.3)), title=title)
    names = [slices[0].texts[-1] for slices, _ in rows_of(figure, count + 1)]
    assert_inside_and_apart(figure, [*figure.texts, *names])


# --- residual -------------------------------------------------------------------------------------

# Between the blocks of the truth at x = 16: two voxels differ by more than 0.1.
LEFT = loss(((16, 13, 8), (1, 2, 1), 0.3), ((16, 11, 8), (1, 1, 1), 0.08))


@pytest.fixture(scope="module")
def with_residual(drawn):
    options = {"threshold": THRESHOLD, "residual": LEFT, "residual_threshold": 0.1}
    shown = TRUTH, TEMPLATE, MASK, GRID, "a scan"
    return drawn(partial(plot_truth, **options), {"a": noise()}, *shown)


def test_the_residual_has_a_row_below_the_truth_with_its_own_scale(with_residual):
    _, figure = with_residual
    assert names_of(figure, 3) == ["truth", "what is left", "a"]
    slices, bar = rows_of(figure, 3)[1]
    # Three voxels are fewer than a 200th of the brain: the scale ends at the largest.
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["0", "0.3"]
    overlay = slices[1].images[1].get_array().filled(0)
    np.testing.assert_allclose(overlay, LEFT[16].T / 0.3)
    assert "more than 0.1" in figure._suptitle.get_text().replace("\n", " ")


def test_the_residuals_border_is_on_its_row_and_the_truths_on_all(with_residual):
    _, figure = with_residual
    drawn = [contours_of(slices[1]) for slices, _ in rows_of(figure, 3)]
    assert [len(borders) for borders in drawn] == [1, 2, 1]
    box = drawn[1][0].get_paths()[0].get_extents()  # y 13 and 14, z 8; 0.08 is below the threshold
    np.testing.assert_allclose([box.x0, box.x1, box.y0, box.y1], [12.5, 14.5, 7.5, 8.5])
    colours = [tuple(borders[-1].get_edgecolor()[0][:3]) for borders in drawn]
    assert set(colours) == {to_rgb("#4fc3f7")}
    assert tuple(drawn[1][0].get_edgecolor()[0][:3]) != to_rgb("#4fc3f7")


def test_a_residual_of_zeros_shows_a_note(drawn):
    options = {"threshold": THRESHOLD, "residual": NOTHING, "residual_threshold": 0.1}
    shown = TRUTH, TEMPLATE, MASK, GRID, "a scan"
    _, figure = drawn(partial(plot_truth, **options), {"a": noise()}, *shown)
    assert names_of(figure, 3)[1] == "what is left\n(0 everywhere)"
    assert len(contours_of(rows_of(figure, 3)[1][0][1])) == 1


# --- how well the truth is found ------------------------------------------------------------------

METHODS = ("occlusion", "random", "lrp", "sensitivity")
CHANCE = {"average_precision": 0.02, "mass": 0.03, "rank": 0.5, "pointing": 0.04}


def scores(methods=METHODS, regions=("hippocampus",), smoothings=(0, 4), measures=tuple(MEASURES)):
    """Methods from the worst to the best, in every region and measure."""
    return pd.DataFrame(
        [
            {
                "region": region,
                "smoothing_mm": smoothing,
                "method": method,
                "measure": measure,
                "mean": 0.3 + 0.5 * place / len(methods) + 0.01 * smoothing,
                "low": 0.25 + 0.5 * place / len(methods),
                "high": 0.4 + 0.5 * place / len(methods),
                "chance": CHANCE[measure],
                "times_chance": 2.0,
                "scans": 40,
                "patients": 20,
            }
            for region in regions
            for smoothing in smoothings
            for place, method in enumerate(methods)
            for measure in measures
        ]
    )


def localisation(drawn, table, title="a cohort", **options):
    return drawn(partial(plot_localisation, **options), table, title)


def points_of(axes):
    """Mean, line from the top, marker and colour of every point."""
    return [
        (
            float(line.get_xdata()[0]),
            float(line.get_ydata()[0]),
            line.get_marker(),
            line.get_color(),
        )
        for line in axes.lines
        if line.get_marker() not in ("None", None, "")
    ]


def bars_of(axes):
    return [
        tuple(line.get_xdata())
        for line in axes.lines
        if len(line.get_xdata()) == 2
        and line.get_linestyle() == "-"
        and np.isfinite(line.get_xdata()).all()
    ]


def chances_of(axes):
    return [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]


def names_on(axes):
    return [tick.get_text() for tick in axes.get_yticklabels()]


@pytest.fixture(scope="module")
def two_regions(drawn):
    table = scores(regions=("hippocampus", "amygdala"))
    # In the second region the other way round, which must not change the order.
    second = table["region"] == "amygdala"
    table.loc[second, "mean"] = 1 - table.loc[second, "mean"]
    return table, *localisation(drawn, table, baselines=["random"])


def test_there_is_a_panel_for_each_region_and_measure_in_plain_words(two_regions):
    _, _, figure = two_regions
    assert len(figure.axes) == 2 * 4
    assert [axes.get_title() for axes in figure.axes] == 2 * list(MEASURES.values())
    heads = [part._suptitle.get_text() for part in figure.subfigs]
    assert heads == [
        "hippocampus, 40 scans of 20 patients",
        "amygdala, 40 scans of 20 patients",
    ]


def test_methods_are_sorted_by_average_precision_with_baselines_below(
    two_regions,
):
    _, _, figure = two_regions
    names = ["sensitivity", "lrp", "occlusion", "random"]
    assert [names_on(axes) for axes in figure.axes] == 2 * [names, [], [], []]
    for axes in figure.axes:
        lines = axes.get_yticks()
        assert np.diff(lines)[-1] > np.diff(lines)[0] > 0  # set apart
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # counted from the top


def test_every_mean_is_a_point_on_its_methods_line(two_regions):
    table, _, figure = two_regions
    for axes, (region, measure) in zip(
        figure.axes, [(r, m) for r in ("hippocampus", "amygdala") for m in MEASURES], strict=True
    ):
        rows = table[(table["region"] == region) & (table["measure"] == measure)]
        points = points_of(axes)
        assert len(points) == len(rows)
        lines = dict(zip(names_on(figure.axes[0]), axes.get_yticks(), strict=True))
        for smoothing, marker in ((0, "o"), (4, "s")):
            of_marker = {y: x for x, y, m, _ in points if m == marker}
            for row in rows[rows["smoothing_mm"] == smoothing].to_dict("records"):
                nearest = min(of_marker, key=lambda y, row=row: abs(y - lines[row["method"]]))
                assert of_marker[nearest] == pytest.approx(row["mean"])
                assert abs(nearest - lines[row["method"]]) < 0.3


def test_bars_span_the_intervals(two_regions):
    table, _, figure = two_regions
    rows = table[(table["region"] == "hippocampus") & (table["measure"] == "mass")]
    assert sorted(bars_of(figure.axes[1])) == sorted(zip(rows["low"], rows["high"], strict=True))


def test_a_dashed_line_is_at_chance(two_regions):
    _, _, figure = two_regions
    assert [chances_of(axes) for axes in figure.axes] == 2 * [[c] for c in CHANCE.values()]
    for axes in figure.axes:
        left, right = axes.get_xlim()
        assert left < 0 < chances_of(axes)[0] < right


def test_smoothings_differ_by_marker_and_colour_and_baselines_are_grey(two_regions):
    _, _, figure = two_regions
    axes = figure.axes[0]
    lowest = axes.get_yticks()[-1]
    colours = {
        (marker, abs(y - lowest) < 0.4): to_rgb(colour) for _, y, marker, colour in points_of(axes)
    }
    assert colours["o", True] == colours["s", True] == to_rgb("0.5")
    assert len({colours["o", False], colours["s", False], to_rgb("0.5")}) == 3
    ticks = axes.get_yticklabels()
    assert [to_rgb(tick.get_color()) == to_rgb("0.5") for tick in ticks] == [False] * 3 + [True]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["not smoothed", "smoothed by 4 mm", "baseline", "chance"]


def test_without_baselines_the_legend_has_none_and_lines_are_even(drawn):
    _, figure = localisation(drawn, scores(smoothings=(0,)))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["not smoothed", "chance"]
    assert names_on(figure.axes[0]) == ["sensitivity", "lrp", "random", "occlusion"]
    np.testing.assert_allclose(figure.axes[0].get_yticks(), range(4))


def test_smoothings_with_different_chance_have_a_line_each(drawn):
    table = scores(measures=("mass",))
    table.loc[table["smoothing_mm"] == 4, "chance"] = 0.09
    _, figure = localisation(drawn, table)
    (axes,) = figure.axes
    assert chances_of(axes) == [0.03, 0.09]
    of_points = {marker: colour for *_, marker, colour in points_of(axes)}
    dashed = [line.get_color() for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == [of_points["o"], of_points["s"]]


def test_a_missing_mean_has_no_point_and_a_note(drawn):
    table = scores()
    numbers = ["mean", "low", "high"]
    mass = table["measure"] == "mass"
    table.loc[mass & (table["method"] == "lrp"), numbers] = np.nan
    table.loc[
        (table["measure"] == "rank") & (table["method"] == "lrp") & (table["smoothing_mm"] == 4),
        numbers,
    ] = np.nan
    table = table[~((table["measure"] == "pointing") & (table["method"] == "occlusion"))]
    _, figure = localisation(drawn, table)
    precision, mass, rank, pointing = figure.axes
    assert [len(points_of(axes)) for axes in figure.axes] == [8, 6, 7, 6]
    for axes, method in ((mass, "lrp"), (rank, "lrp"), (pointing, "occlusion")):
        (note,) = axes.texts
        assert note.get_text() == "n/a"
        line = axes.get_yticks()[names_on(precision).index(method)]
        assert note.get_position()[1] == pytest.approx(line, abs=0.3)
    assert not precision.texts


def test_a_method_without_average_precision_comes_last(drawn):
    table = scores(smoothings=(0,))
    table.loc[table["method"] == "sensitivity", "mean"] = np.nan
    _, figure = localisation(drawn, table)
    assert names_on(figure.axes[0])[-1] == "sensitivity"


def test_missing_intervals_keep_the_points(drawn):
    _, figure = localisation(drawn, scores().assign(low=np.nan, high=np.nan))
    assert [len(points_of(axes)) for axes in figure.axes] == [8] * 4
    assert not any(bars_of(axes) for axes in figure.axes)


def test_no_numbers_at_all_give_a_picture(drawn):
    nothing = dict.fromkeys(("mean", "low", "high", "chance"), np.nan)
    _, figure = localisation(drawn, scores(smoothings=(0,)).assign(**nothing))
    for axes in figure.axes:
        assert [text.get_text() for text in axes.texts] == ["n/a"] * len(METHODS)
        assert not points_of(axes) and not chances_of(axes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("methods", "regions", "measures"), [(1, 1, 1), (1, 4, 4), (20, 1, 4), (20, 4, 4)]
)
def test_no_text_is_cut_or_covered_with_many_methods(drawn, methods, regions, measures):
    table = scores(
        [f"guided_grad_cam_pp_{number}" for number in range(methods)],
        [f"a region {number}" for number in range(regions)],
        measures=tuple(MEASURES)[:measures],
    )
    title = "simulated, ad-vs-cn, rieke (pools 2,2,2,1), split repeat-0_fold-3, seed 12"
    _, figure = localisation(drawn, table, title, baselines=["guided_grad_cam_pp_0"])
    assert len(figure.axes) == regions * measures
    named = [tick for axes in figure.axes[::measures] for tick in axes.get_yticklabels()]
    assert len(named) == regions * methods
    numbers = [
        tick
        for axes in figure.axes
        for tick in axes.get_xticklabels()
        if 0 <= tick.get_position()[0] <= axes.get_xlim()[1]
    ]
    assert len(numbers) > 2 * len(figure.axes)
    heads = [figure._suptitle, *(part._suptitle for part in figure.subfigs)]
    titles = [axes.title for axes in figure.axes]
    assert_inside_and_apart(
        figure, [*heads, *titles, *named, *numbers, *figure.legends[0].get_texts()]
    )


# --- precision and recall -------------------------------------------------------------------------


def curves_of(methods, regions):
    recall = np.linspace(0, 1, 11)
    return pd.concat(
        pd.DataFrame({"method": m, "region": r, "recall": recall, "precision": 1 / (n + 2)})
        for n, m in enumerate(methods)
        for r in regions
    )


def test_every_method_has_a_curve_and_every_region_its_chance(drawn):
    curves = curves_of([f"method{n}" for n in range(16)], ["truth", "cortex", "hippocampus"])
    chances = {"truth": 0.02, "cortex": 0.3}
    _, figure = drawn(plot_precision_recall, curves, chances, "a run")
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == ["truth", "cortex", "hippocampus"]
    assert [len(axes.lines) for axes in shown] == [17, 17, 16]
    levels = [axes.lines[-1].get_ydata()[0] for axes in shown[:2]]
    assert levels == [0.02, 0.3]
    first = shown[0].lines[:16]
    assert len({(line.get_color(), line.get_linestyle()) for line in first}) == 16
    assert [line.get_ydata()[0] for line in first] == [1 / (n + 2) for n in range(16)]
    assert_inside_and_apart(figure, [figure._suptitle, *figure.legends[0].get_texts()])


def test_a_method_without_scores_has_no_curve(drawn):
    curves = curves_of(["good", "silent"], ["truth"])
    curves.loc[curves["method"] == "silent", "precision"] = np.nan
    _, figure = drawn(plot_precision_recall, curves, {}, "a run")
    assert len(figure.axes[0].lines) == 1
