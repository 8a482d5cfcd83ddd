import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from voxplain.comparison.distance import distance_rows
from voxplain.comparison.retraining import pairs_of_runs, spread_rows
from voxplain.plots.comparison import (
    SLICES,
    plot_area_distribution,
    plot_distances,
    plot_mean_maps,
    plot_spread,
)
from voxplain.volumes import axis_aligned_grid

# The template's field of view in voxels of 8 mm.
GRID = axis_aligned_grid((25, 29, 25), (8.0, 8.0, 8.0), (-96, -132, -78))
PLACES = (np.indices(GRID.shape) - np.array([12, 14, 12]).reshape(3, 1, 1, 1)) / 10
MASK = (PLACES**2).sum(axis=0) < 1
TEMPLATE = np.where(MASK, 60 + 40 * np.cos(3 * PLACES).prod(axis=0), 0).astype(np.float32)
CLASSES, METHODS = ("AD", "CN"), ("sensitivity", "occlusion")


def coloured(picture):
    return picture.max(axis=-1) - picture.min(axis=-1) > 25


def texts_of(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def heatmap(*voxels, background=0.0):
    values = np.where(MASK, background, 0.0)
    for voxel in voxels:
        values[voxel] = 1.0
    return values


def blurred(seed):
    return np.where(MASK, np.random.default_rng(seed).random(GRID.shape), 0)


def maps_of(classes=CLASSES, methods=METHODS):
    return {
        group: {method: blurred(10 * i + j) for j, method in enumerate(methods)}
        for i, group in enumerate(classes)
    }


def mean_maps(drawn, maps):
    counts = {group: 7 + place for place, group in enumerate(maps)}
    return drawn(plot_mean_maps, maps, counts, TEMPLATE, MASK, GRID, "a cohort")


# --- average maps on slices -----------------------------------------------------------------------


@pytest.mark.parametrize("classes", [("AD", "CN"), ("AD", "MCI", "CN")])
def test_average_maps_have_a_row_for_each_method_and_class(drawn, classes):
    picture, figure = mean_maps(drawn, maps_of(classes))
    assert coloured(picture).sum() > 5000
    assert len(figure.axes) == len(METHODS) * len(classes) * (len(SLICES) + 1)
    notes = [text for text in texts_of(figure) if "n = " in text]
    assert notes == [
        f"{method}\n{group}, n = {7 + place}"
        for method in METHODS
        for place, group in enumerate(classes)
    ]
    captions = [text for text in figure.texts if text is not figure._suptitle]
    assert [text.get_text().split("\n")[1] for text in captions] == [
        f"{axis} = {round(float(centre_of(axis, mm))):d} mm" for axis, mm in SLICES
    ]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    heading, *below = (
        text.get_window_extent(canvas.get_renderer()) for text in [figure._suptitle, *captions]
    )
    assert all(caption.y1 + 2 < heading.y0 for caption in below)


def centre_of(axis, mm):
    """The centre, in mm, of the voxels that are drawn for a position."""
    number, index = index_of(axis, mm)
    return GRID.matrix[number, 3] + index * GRID.voxel_size[number]


def index_of(axis, mm):
    number = "xyz".index(axis)
    place = (mm - GRID.matrix[number, 3]) / GRID.voxel_size[number]
    return number, round(place)


# Voxels outside every slice that is drawn, by axis.
OFF = (14, 20, 20)


def panel_of(picture, figure, number, row=0):
    """First and last pixel row and column of a panel, counted from the top left."""
    axes = figure.axes[row * (len(SLICES) + 1) + number]
    box = axes.get_position()
    height, width, _ = picture.shape
    return (
        (height * (1 - box.y1), height * (1 - box.y0)),
        (width * box.x0, width * box.x1),
    )


@pytest.fixture(scope="module")
def hidden(drawn):
    """A picture of relevance outside every slice that is drawn."""
    return mean_maps(drawn, {"AD": {"occlusion": heatmap(OFF)}})[0]


def test_the_voxels_of_the_next_tests_are_in_no_shown_slice():
    for axis, mm in SLICES:
        number, index = index_of(axis, mm)
        assert OFF[number] != index


@pytest.mark.parametrize("number", range(len(SLICES)))
def test_relevance_at_one_place_is_drawn_at_that_place_only(drawn, hidden, number):
    along, index = index_of(*SLICES[number])
    voxel = [5, 20, 20]  # left, front, top
    voxel[along] = index
    shared = [
        place for place, slice_ in enumerate(SLICES) if index_of(*slice_) in list(enumerate(voxel))
    ]
    assert shared == [number]
    shown, figure = mean_maps(drawn, {"AD": {"occlusion": heatmap(tuple(voxel))}})
    rows, columns = np.nonzero(abs(shown - hidden).max(axis=-1) > 2)
    assert rows.size > 4
    (top, bottom), (left, right) = panel_of(shown, figure, number)
    across, up = (a for a in range(3) if a != along)
    axes = figure.axes[number]
    shares = [
        (voxel[a] - ends[0]) / (ends[1] - ends[0])
        for a, ends in ((across, axes.get_xlim()), (up, axes.get_ylim()))
    ]
    expected = (left + shares[0] * (right - left), bottom - shares[1] * (bottom - top))
    assert columns.mean() == pytest.approx(expected[0], abs=4)
    assert rows.mean() == pytest.approx(expected[1], abs=4)
    assert np.ptp(rows) < 16 and np.ptp(columns) < 16
    assert coloured(shown)[rows, columns].mean() > 0.5


def test_a_map_changes_the_row_of_its_method_and_class_only(drawn):
    maps = {group: {"sensitivity": heatmap(OFF)} for group in CLASSES}
    without, _ = mean_maps(drawn, maps)
    maps["CN"]["sensitivity"] = heatmap((5, 20, index_of("z", 8)[1]))
    shown, figure = mean_maps(drawn, maps)
    rows, columns = np.nonzero(abs(shown - without).max(axis=-1) > 2)
    assert rows.size > 4
    (top, bottom), (left, right) = panel_of(shown, figure, SLICES.index(("z", 8)), row=1)
    assert top <= rows.min() <= rows.max() <= bottom
    assert left <= columns.min() <= columns.max() <= right


def test_the_scale_of_a_map_does_not_matter(drawn):
    maps = maps_of(methods=["occlusion"])
    picture, _ = mean_maps(drawn, maps)
    maps["AD"]["occlusion"] = 1e6 * maps["AD"]["occlusion"]
    assert abs(mean_maps(drawn, maps)[0] - picture).max() <= 2


def test_the_classes_of_a_method_share_one_scale_and_methods_do_not(drawn):
    dense, sparse = heatmap(background=1.0), blurred(0) ** 8
    maps = {"AD": {"a": dense, "b": dense}, "CN": {"a": sparse, "b": dense}}
    _, figure = mean_maps(drawn, maps)
    tops = [
        [tick.get_text() for tick in axes.get_yticklabels()][-1]
        for axes in figure.axes[len(SLICES) :: len(SLICES) + 1]
    ]
    even = 1 / MASK.sum() * 1e4
    assert tops[0] == tops[1] != tops[2]
    assert tops[2] == tops[3] == f"{even:.2g}"


def test_a_map_of_zeros_shows_the_template_and_a_note(drawn):
    maps = maps_of(methods=["sensitivity"])
    maps["AD"]["sensitivity"] = np.zeros(GRID.shape)
    picture, figure = mean_maps(drawn, maps)
    notes = [text for text in texts_of(figure) if "n = " in text]
    assert [note.endswith("(0 everywhere)") for note in notes] == [True, False]
    (top, bottom), _ = panel_of(picture, figure, 0)
    first = picture[int(top) + 1 : int(bottom)]
    assert not coloured(first).any()
    assert np.unique(first).size > 30
    assert coloured(picture[int(bottom) + 12 :]).any()


def test_maps_of_zeros_show_the_template_only(drawn):
    nothing = {group: {"occlusion": np.zeros(GRID.shape)} for group in CLASSES}
    picture, figure = mean_maps(drawn, nothing)
    assert not coloured(picture).any()
    assert sum("(0 everywhere)" in text for text in texts_of(figure)) == 2


def test_the_numbers_of_the_colour_bars_do_not_overlap(drawn):
    _, figure = mean_maps(drawn, maps_of(methods=["occlusion"]))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    ticks = [
        tick.get_window_extent(renderer)
        for axes in figure.axes[len(SLICES) :: len(SLICES) + 1]
        for tick in axes.get_yticklabels()
    ]
    assert len(ticks) == 4
    for place, box in enumerate(ticks):
        assert not any(box.overlaps(other) for other in ticks[place + 1 :])


# --- distances ------------------------------------------------------------------------------------


def distances(maps):
    return pd.DataFrame(distance_rows(maps))


@pytest.mark.parametrize("classes", [("AD",), ("AD", "CN"), ("AD", "MCI", "CN")])
def test_a_cell_has_the_distance_of_each_class_in_ten_thousandths(drawn, classes):
    maps = maps_of(classes, ("a", "b", "c"))
    table = distances(maps)
    picture, figure = drawn(plot_distances, table, "a cohort")
    assert coloured(picture).sum() > 5000
    texts = np.array(texts_of(figure)).reshape(3, 3)
    for i, a in enumerate("abc"):
        for j, b in enumerate("abc"):
            cell = table[(table["method_a"] == a) & (table["method_b"] == b)]
            values = [float(cell[cell["class"] == c]["distance"].iloc[0]) for c in classes]
            assert texts[i, j] == " / ".join(f"{1e4 * value:.2f}" for value in values)
    assert " / ".join(classes) in figure._suptitle.get_text()


def test_a_cell_is_coloured_by_the_mean_over_the_classes_that_have_a_distance(drawn):
    maps = maps_of(CLASSES, ("a", "b", "c"))
    maps["CN"]["b"][:] = 0
    table = distances(maps)
    _, figure = drawn(plot_distances, table, "a cohort")
    shown = figure.axes[0].collections[0].get_array().reshape(3, 3)
    for (a, b), rows in table.groupby(["method_a", "method_b"]):
        expected = 1e4 * rows["distance"].astype(float).mean()
        assert shown["abc".index(a), "abc".index(b)] == pytest.approx(expected)
    texts = np.array(texts_of(figure)).reshape(3, 3)
    assert texts[0, 1].endswith(" / n/a") and not texts[0, 1].startswith("n/a")
    assert "n/a" not in texts[0, 2]


def test_a_cell_without_any_distance_shows_n_a(drawn):
    maps = maps_of(CLASSES, ("a", "b", "c"))
    for group in CLASSES:
        maps[group]["b"][:] = 0
    _, figure = drawn(plot_distances, distances(maps), "a cohort")
    assert texts_of(figure).count("n/a / n/a") == 5
    assert len(texts_of(figure)) == 9


def test_distances_that_are_all_missing_give_a_picture(drawn):
    nothing = {group: {m: np.zeros((2, 2, 2)) for m in METHODS} for group in CLASSES}
    _, figure = drawn(plot_distances, distances(nothing), "a cohort")
    assert texts_of(figure) == ["n/a / n/a"] * 4


def test_one_method_has_distance_zero_from_itself(drawn):
    title = "adni-screening, ad-vs-cn, rieke (pools 2,2,2,1), split repeat-0_fold-3, seed 12"
    _, figure = drawn(plot_distances, distances(maps_of(CLASSES, ("a",))), title)
    assert texts_of(figure) == ["0.00 / 0.00"]


def test_three_numbers_fit_into_their_cell(drawn):
    table = distances(maps_of(("AD", "MCI", "CN"), ("a", "b")))
    table["distance"] = 0.01234  # 123.40
    _, figure = drawn(plot_distances, table, "a cohort")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    place = figure.axes[0]
    cell = place.get_window_extent().width / 2
    for text in place.texts:
        assert text.get_window_extent(canvas.get_renderer()).width < 0.95 * cell


# --- areas ----------------------------------------------------------------------------------------

AREAS = ["Hippocampus", "Amygdala", "Temporal_Mid"]


def shares_of(methods, classes=CLASSES, patients=5):
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "method": method,
                "class": group,
                "patient": f"{group}{patient}",
                "area": area,
                "share": (0.05 if group == "AD" else 0.02) * draw.uniform(0.8, 1.2),
            }
            for method in methods
            for group in classes
            for patient in range(patients)
            for area in [*AREAS, "Vermis_3"]
        ]
    )


def points_of(axes):
    return sorted(float(x) for path in axes.collections for x, _ in path.get_offsets())


@pytest.mark.parametrize("classes", [("AD", "CN"), ("AD", "MCI", "CN")])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_methods_panel_shows_every_patients_share_of_its_areas(drawn, classes, count):
    methods = ["sensitivity", "occlusion", "area_occlusion"][:count]
    shares = shares_of(methods, classes)
    areas = {method: AREAS[: 1 + place] for place, method in enumerate(methods)}
    picture, figure = drawn(plot_area_distribution, shares, areas, classes, "a cohort")
    assert coloured(picture).sum() > 1000
    for axes, method in zip(figure.axes, methods, strict=False):
        assert axes.get_title() == method
        assert [tick.get_text() for tick in axes.get_yticklabels()] == areas[method]
        chosen = shares[(shares["method"] == method) & shares["area"].isin(areas[method])]
        np.testing.assert_allclose(points_of(axes), sorted(100 * chosen["share"]))
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(classes)
    assert [axes.get_legend() is None for axes in figure.axes[1:count]] == [True] * (count - 1)


def test_a_method_without_relevance_shows_a_note(drawn):
    shares = shares_of(METHODS)
    shares.loc[shares["method"] == METHODS[0], "share"] = np.nan
    areas = {METHODS[0]: [], METHODS[1]: AREAS}
    _, figure = drawn(plot_area_distribution, shares, areas, CLASSES, "a cohort")
    empty, filled = figure.axes
    assert [text.get_text() for text in empty.texts] == ["0 everywhere"]
    assert len(points_of(filled)) == 2 * 5 * 3
    assert [text.get_text() for text in filled.get_legend().get_texts()] == list(CLASSES)


def test_no_relevance_at_all_gives_a_picture(drawn):
    shares = shares_of(METHODS).assign(share=np.nan)
    areas = {method: [] for method in METHODS}
    _, figure = drawn(plot_area_distribution, shares, areas, CLASSES, "a cohort")
    assert [text for text in texts_of(figure) if text] == ["0 everywhere"] * 2


def test_a_patient_without_relevance_has_no_point(drawn):
    shares = shares_of(METHODS[:1])
    shares.loc[shares["patient"] == "AD0", "share"] = np.nan
    _, figure = drawn(plot_area_distribution, shares, {METHODS[0]: AREAS}, CLASSES, "a cohort")
    assert len(points_of(figure.axes[0])) == (2 * 5 - 1) * 3


# --- distances over several networks --------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5])
def test_every_cell_has_mean_and_sd_and_is_hatched_within_noise(drawn, count):
    methods = [f"method_{place}" for place in range(count)]
    runs = [("fixed", seed) for seed in range(3)]
    draw = np.random.default_rng(0)
    of_method = draw.random((count, 300))
    # Of the first class all maps are noise; of the second none is.
    tables = []
    for group, noise in (("AD", 1.0), ("CN", 0.0)):
        maps = {
            (method, run): of_method[place] * (noise == 0) + noise * draw.random(300)
            for place, method in enumerate(methods)
            for run in runs
        }

        def read(method, run, maps=maps):
            return maps[method, run]

        rows = spread_rows(read, methods, runs, pairs_of_runs(runs, "seeds"))
        if noise:
            rows = [
                {**r, "within_noise": None if r["within_noise"] is None else True} for r in rows
            ]
        tables.append(pd.DataFrame(rows).assign(**{"class": group}))
    table = pd.concat(tables)
    _, figure = drawn(plot_spread, table, "a run")
    for axes, group in zip(figure.axes, CLASSES, strict=False):
        assert axes.get_title() == group
        rows = table[table["class"] == group]
        expected = []
        for row in rows.to_dict("records"):
            mark = "~ " if row["within_noise"] is True else ""
            expected.append(
                f"{mark}{row['distance_mean'] * 1e4:.2f} ± {row['distance_sd'] * 1e4:.2f}"
            )
        assert [text.get_text() for text in axes.texts] == expected
        hatched = [bool(patch.get_hatch()) for patch in axes.patches]
        assert hatched == [row is True for row in rows["within_noise"]]
    assert sum(text.get_text().startswith("~") for text in figure.axes[0].texts) == (
        count * (count - 1)
    )


def test_a_method_without_a_map_has_no_number_in_the_table_over_networks(drawn):
    runs = [("fixed", 1), ("fixed", 2)]
    maps = {"a": np.array([1.0, 2.0, 4.0]), "b": np.zeros(3)}
    rows = spread_rows(
        lambda method, run: maps[method] + (method == "a") * run[1],
        ["a", "b"],
        runs,
        pairs_of_runs(runs, "seeds"),
    )
    _, figure = drawn(plot_spread, pd.DataFrame(rows).assign(**{"class": "AD"}), "a run")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[1:] == ["n/a"] * 3
    assert "n/a" not in texts[0]
