import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxplain.comparison.distance import distance, distance_rows, normalise

# Whole numbers, so that no map is all but 0.
maps = hnp.arrays(np.float64, (2, 3, 2), elements=st.integers(0, 50)).filter(np.any)


def test_the_distance_of_two_maps_of_three_voxels_is_as_computed_by_hand():
    first = np.array([1.0, 1.0, 2.0])  # 0.25, 0.25, 0.50 of its sum
    second = np.array([0.0, 30.0, 10.0])  # 0.00, 0.75, 0.25 of its sum
    # 0.25^2 + 0.50^2 + 0.25^2 = 0.375
    assert distance(first, second) == pytest.approx(0.6123724356957945, rel=1e-12)


def test_the_distance_is_largest_for_two_maps_of_one_different_voxel_each():
    first, second, spread = np.eye(4)[0], np.eye(4)[1], np.array([0, 0, 1, 1])
    assert distance(first, second) == pytest.approx(np.sqrt(2))
    assert distance(first, spread) == pytest.approx(np.sqrt(1 + 0.25 + 0.25))


@given(a=maps, b=maps)
def test_a_distance_is_symmetric_zero_to_itself_and_at_most_root_two(a, b):
    assert distance(a, b) == distance(b, a)
    assert 0 <= distance(a, b) <= np.sqrt(2) + 1e-12
    assert distance(a, a) == 0
    proportional = np.allclose(a / a.sum(), b / b.sum(), rtol=1e-12)
    assert (distance(a, b) < 1e-12) == proportional


@given(a=maps, b=maps, factor=st.floats(1e-6, 1e6))
def test_a_maps_scale_does_not_matter(a, b, factor):
    assert distance(factor * a, b) == pytest.approx(distance(a, b), abs=1e-12)
    assert distance(factor * a, a) == pytest.approx(0, abs=1e-12)


@given(a=maps, b=maps, c=maps)
def test_the_distance_obeys_the_triangle_inequality(a, b, c):
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-12


@given(a=maps)
def test_a_normalised_map_sums_to_one_and_keeps_its_shape(a):
    normalised = normalise(a.astype(np.float32))
    assert normalised.dtype == np.float64
    assert normalised.sum() == pytest.approx(1)
    np.testing.assert_allclose(normalised * a.sum(), a, atol=1e-9)


def test_a_map_of_zeros_has_no_distance_to_anything():
    nothing, something = np.zeros((2, 2, 2)), np.ones((2, 2, 2))
    assert normalise(nothing) is None
    assert distance(nothing, something) is None
    assert distance(something, nothing) is None
    assert distance(nothing, nothing) is None


# --- the table ------------------------------------------------------------------------------------


@pytest.fixture
def of_classes():
    draw = np.random.default_rng(0)
    return {
        group: {method: draw.random((3, 4, 2)) for method in ("gradient", "cubes", "areas")}
        for group in ("AD", "CN")
    }


def test_the_table_holds_every_pair_of_every_class_in_order(of_classes):
    rows = distance_rows(of_classes)
    assert len(rows) == 2 * 3 * 3
    assert [set(row) for row in rows] == [{"class", "method_a", "method_b", "distance"}] * 18
    assert [(row["class"], row["method_a"], row["method_b"]) for row in rows[:4]] == [
        ("AD", "gradient", "gradient"),
        ("AD", "gradient", "cubes"),
        ("AD", "gradient", "areas"),
        ("AD", "cubes", "gradient"),
    ]


def test_a_cell_is_the_distance_of_its_two_maps_within_its_class(of_classes):
    for row in distance_rows(of_classes):
        a, b = (of_classes[row["class"]][row[f"method_{side}"]] for side in "ab")
        expected = np.linalg.norm((a / a.sum() - b / b.sum()).ravel())
        assert row["distance"] == pytest.approx(expected, abs=1e-15)


def test_the_table_is_symmetric_with_a_zero_diagonal(of_classes):
    distances = {
        (row["class"], row["method_a"], row["method_b"]): row["distance"]
        for row in distance_rows(of_classes)
    }
    for (group, a, b), value in distances.items():
        assert distances[group, b, a] == value
        assert (value == 0) == (a == b)


def test_a_map_of_zeros_has_no_distance_in_its_row_and_column_of_its_class_only(of_classes):
    of_classes["CN"]["cubes"][:] = 0
    for row in distance_rows(of_classes):
        touched = row["class"] == "CN" and "cubes" in (row["method_a"], row["method_b"])
        assert (row["distance"] is None) == touched
