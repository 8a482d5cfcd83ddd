import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxplain.comparison.areas import (
    SHARE_OF,
    add_shares,
    area_rows,
    both_sides,
    plain_name,
    top_areas,
)

# Nine voxels in one plane. The last is in an area but outside the brain.
LABELS = np.array([[1, 1, 2], [2, 3, 0], [0, 4, 4]], np.uint8)[..., None]
HEATMAP = np.array([[1, 2, 3], [5, 4, 6], [7, 8, 9]], np.float32)[..., None]
MASK = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0]], bool)[..., None]
NAMES = {
    1: "Temporal_Mid_L",
    2: "Temporal_Mid_R",
    3: "Vermis_4_5",
    4: "Amygdala_L",
    5: "Amygdala_R",  # without a voxel
}
IN_BRAIN = 1 + 2 + 3 + 5 + 4 + 6 + 7 + 8  # 36, over 8 voxels: 4.5 each
IN_AREAS = 3 + 8 + 4 + 8


def rows(share_of="brain", heatmap=HEATMAP, mask=MASK):
    return area_rows(heatmap, LABELS, NAMES, mask, share_of)


def column(table, name):
    return dict(zip(table["area"], table[name], strict=True))


# --- one heatmap ----------------------------------------------------------------------------------


def test_sums_and_voxels_are_as_counted_by_hand():
    table = rows()
    assert table["area"].tolist() == list(NAMES.values())
    assert table["voxels"].tolist() == [2, 2, 1, 1, 0]
    assert table["sum"].tolist() == [3, 8, 4, 8, 0]


def test_the_share_is_that_of_the_brain_or_of_all_areas():
    assert SHARE_OF == ("brain", "atlas")
    sums = np.array([3, 8, 4, 8, 0])
    np.testing.assert_allclose(rows("brain")["share"], sums / IN_BRAIN)
    np.testing.assert_allclose(rows("atlas")["share"], sums / IN_AREAS)
    assert rows("brain")["share"].sum() < 1
    assert rows("atlas")["share"].sum() == pytest.approx(1)


@pytest.mark.parametrize("share_of", SHARE_OF)
def test_the_density_is_the_areas_mean_divided_by_the_brains(share_of):
    expected = [1.5 / 4.5, 4 / 4.5, 4 / 4.5, 8 / 4.5, np.nan]
    np.testing.assert_allclose(rows(share_of)["density"], expected)


def test_in_a_constant_heatmap_every_density_is_one():
    density = rows(heatmap=np.full(HEATMAP.shape, 0.3, np.float32))["density"]
    np.testing.assert_allclose(density, [1, 1, 1, 1, np.nan], rtol=1e-6)


def test_a_heatmap_of_zeros_has_sums_but_no_shares_and_no_densities():
    for share_of in SHARE_OF:
        table = rows(share_of, heatmap=np.zeros_like(HEATMAP))
        assert (table["sum"] == 0).all()
        assert table["share"].isna().all() and table["density"].isna().all()
        assert both_sides(table)[["share", "density"]].isna().all(axis=None)


def test_an_empty_brain_has_no_shares_and_no_densities():
    table = rows(mask=np.zeros_like(MASK))
    assert (table["voxels"] == 0).all()
    assert table["share"].isna().all() and table["density"].isna().all()


@given(factor=st.floats(1e-6, 1e6))
def test_shares_and_densities_do_not_depend_on_the_heatmaps_scale(factor):
    table, other = rows(), rows(heatmap=HEATMAP.astype(np.float64) * factor)
    np.testing.assert_allclose(other["sum"], table["sum"] * factor)
    for name in ("share", "density"):
        np.testing.assert_allclose(other[name], table[name])


def test_small_values_are_not_lost_beside_large_ones():
    heatmap = np.ones(HEATMAP.shape, np.float32)
    heatmap[0, 0] = 1e8  # in float32, 1e8 + 1 is 1e8
    assert column(rows(heatmap=heatmap), "sum")["Temporal_Mid_L"] == 100_000_001


def test_shares_are_added_to_a_copy():
    table = pd.DataFrame({"area": ["A", "B"], "voxels": [2, 4], "sum": [3.0, 1.0]})
    before = table.copy()
    result = add_shares(table, in_brain=8, brain_voxels=10, share_of="brain")
    pd.testing.assert_frame_equal(table, before)
    np.testing.assert_allclose(result["share"], [3 / 8, 1 / 8])
    np.testing.assert_allclose(result["density"], [1.5 / 0.8, 0.25 / 0.8])


# --- left and right -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Temporal_Mid_L", "Temporal_Mid"),
        ("Temporal_Mid_R", "Temporal_Mid"),
        ("Frontal_Sup_Medial_R", "Frontal_Sup_Medial"),
        ("Hippocampus_L", "Hippocampus"),
        ("Cerebelum_4_5_L", "Cerebelum_4_5"),
        ("Vermis_4_5", "Vermis_4_5"),
        ("Vermis_10", "Vermis_10"),
        ("Temporal_Mid", "Temporal_Mid"),
        ("Area_LR", "Area_LR"),
        ("_L", "_L"),
    ],
)
def test_a_plain_name_has_no_side(name, plain):
    assert plain_name(name) == plain


def test_the_116_areas_of_aal_are_54_pairs_and_8_in_the_middle(aal):
    plain = [plain_name(name) for name in aal.names.values()]
    counts = {name: plain.count(name) for name in plain}
    assert sorted(counts.values()) == [1] * 8 + [2] * 54
    assert {name for name, count in counts.items() if count == 1} == {
        name for name in aal.names.values() if name.startswith("Vermis")
    }


def test_both_sides_are_as_added_by_hand():
    table = both_sides(rows())
    assert table["area"].tolist() == ["Temporal_Mid", "Vermis_4_5", "Amygdala"]
    assert table["voxels"].tolist() == [4, 1, 1]
    assert table["sum"].tolist() == [11, 4, 8]
    np.testing.assert_allclose(table["share"], np.array([11, 4, 8]) / IN_BRAIN)
    # Not the mean of the sides' densities if one side has no voxel.
    np.testing.assert_allclose(table["density"], np.array([11 / 4, 4, 8]) / 4.5)


def test_an_area_without_a_voxel_on_either_side_has_no_density():
    table = both_sides(area_rows(HEATMAP, LABELS, {1: "Temporal_L", 8: "X_L", 9: "X_R"}, MASK))
    density = column(table, "density")
    assert np.isnan(density["X"])
    assert column(table, "share")["X"] == 0
    assert density["Temporal"] == pytest.approx(1.5 / 4.5)


@given(
    labels=hnp.arrays(np.uint8, (3, 4, 2), elements=st.integers(0, 5)),
    heatmap=hnp.arrays(np.float64, (3, 4, 2), elements=st.integers(0, 20)),
    mask=hnp.arrays(bool, (3, 4, 2)),
    share_of=st.sampled_from(SHARE_OF),
)
def test_merging_the_sides_agrees_with_merged_labels(labels, heatmap, mask, share_of):
    result = both_sides(area_rows(heatmap, labels, NAMES, mask, share_of)).set_index("area")
    merged = np.array([0, 1, 1, 3, 4, 4])[labels]
    names = {1: "Temporal_Mid", 3: "Vermis_4_5", 4: "Amygdala"}
    expected = area_rows(heatmap, merged, names, mask, share_of).set_index("area")
    pd.testing.assert_frame_equal(result, expected, check_dtype=False, check_exact=False)


# --- the ranking ----------------------------------------------------------------------------------

TABLE = pd.DataFrame(
    {
        "area": ["Large", "Small", "Tiny", "Middle", "Silent", "Empty"],
        "voxels": [100, 20, 2, 50, 30, 0],
        "sum": [50.0, 30.0, 9.0, 20.0, 0.0, 0.0],
        "share": [0.40, 0.24, 0.072, 0.16, 0.0, 0.0],
        "density": [0.9, 2.5, 7.0, 0.7, 0.0, np.nan],
    }
)


def ranked(table, by, *args):
    rows = [row for row in top_areas(table, *args) if row["by"] == by]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["area"] for row in rows]


def test_areas_are_ranked_by_sum_and_by_density():
    assert ranked(TABLE, "sum", 3) == ["Large", "Small", "Middle"]
    assert ranked(TABLE, "density", 3) == ["Tiny", "Small", "Large"]


def test_small_areas_are_left_out_of_the_ranking_by_density_only():
    assert ranked(TABLE, "density", 9, 20) == ["Small", "Large", "Middle"]
    assert ranked(TABLE, "density", 9, 21) == ["Large", "Middle"]
    assert ranked(TABLE, "sum", 9, 21) == ["Large", "Small", "Middle", "Tiny"]


@pytest.mark.parametrize("least_voxels", [0, 1])
def test_areas_without_relevance_or_without_a_voxel_are_no_top_areas(least_voxels):
    for by in ("sum", "density"):
        assert set(ranked(TABLE, by, 9, least_voxels)) == {"Large", "Small", "Tiny", "Middle"}


def test_a_row_has_its_ranking_and_both_measures():
    first = top_areas(TABLE, 1)
    assert first == [
        {"by": "sum", "rank": 1, "area": "Large", "share": 0.40, "density": 0.9},
        {"by": "density", "rank": 1, "area": "Tiny", "share": 0.072, "density": 7.0},
    ]


def test_equal_areas_keep_the_order_of_the_table():
    table = TABLE.assign(share=0.1, density=2.0)
    assert ranked(table, "sum", 9) == table["area"].tolist()
    assert ranked(table, "density", 9) == table["area"].tolist()[:5]


def test_a_heatmap_of_zeros_has_no_top_areas():
    table = both_sides(rows(heatmap=np.zeros_like(HEATMAP)))
    assert top_areas(table, 5) == []
    assert top_areas(table, 0) == []
