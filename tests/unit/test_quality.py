import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxplain.anatomy.quality import (
    Quality,
    correlation,
    dice,
    fluid_spaces,
    judge,
    measure_quality,
)

shapes = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)
masks = hnp.arrays(bool, (4, 5, 3))
GOOD = Quality(
    brain_volume_ml=1400.0, largest_part=1.0, border_share=0.0, overlap=0.95, similarity=0.8
)
THRESHOLDS = {
    "min_brain_volume_ml": 700,
    "max_brain_volume_ml": 2300,
    "min_largest_part": 0.98,
    "max_border_share": 0.05,
    "min_overlap": 0.9,
    "min_similarity": 0.4,
}


def box(shape, start, stop):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


# --- measures -------------------------------------------------------------------------------------


def test_dice_of_two_boxes_is_as_counted_by_hand():
    a = box((10, 10, 10), (0, 0, 0), (4, 4, 4))  # 64 voxels
    b = box((10, 10, 10), (2, 0, 0), (6, 4, 2))  # 32 voxels, 16 of them shared
    assert dice(a, b) == pytest.approx(2 * 16 / (64 + 32))


@given(a=masks, b=masks)
def test_dice_is_symmetric_between_zero_and_one_and_one_for_equal_masks(a, b):
    assert dice(a, b) == dice(b, a)
    assert 0 <= dice(a, b) <= 1
    assert dice(a, a) == (1.0 if a.any() else 0.0)
    assert (dice(a, b) == 0) == (not (a & b).any())


@given(
    pair=st.tuples(
        *[hnp.arrays(np.float64, 30, elements=st.floats(-100, 100), fill=st.nothing())] * 2
    ),
    gain=st.floats(0.1, 10),
    shift=st.floats(-10, 10),
)
def test_correlation_agrees_with_numpy_and_ignores_gain_and_shift(pair, gain, shift):
    a, b = pair
    if min(a.std(), b.std()) < 1e-3:
        return
    expected = np.corrcoef(a, b)[0, 1]
    assert correlation(a, b) == pytest.approx(expected, abs=1e-9)
    assert correlation(gain * a + shift, b) == pytest.approx(expected, abs=1e-6)


def test_correlation_with_a_constant_is_zero():
    assert correlation(np.full(5, 3.0), np.arange(5.0)) == 0


def measured(mask, volume_ml=0.001, **registered):
    other = {
        "registered_brain": np.arange(27.0).reshape(3, 3, 3),
        "registered_mask": np.ones((3, 3, 3), bool),
        "template_brain": np.arange(27.0).reshape(3, 3, 3),
        "template_mask": np.ones((3, 3, 3), bool),
    }
    return measure_quality(mask, volume_ml, **{**other, **registered})


def test_the_brain_volume_counts_the_voxels_of_the_mask():
    mask = box((12, 12, 12), (2, 2, 2), (7, 8, 9))
    assert measured(mask, 0.0017).brain_volume_ml == pytest.approx(5 * 6 * 7 * 0.0017)


def test_the_largest_part_is_the_share_of_the_largest_face_connected_piece():
    mask = box((20, 12, 12), (2, 2, 2), (6, 6, 6))  # 64 voxels
    mask |= box((20, 12, 12), (10, 2, 2), (12, 6, 4))  # 16 voxels
    mask[6, 6, 6] = True  # touches the first at a corner only
    assert measured(mask).largest_part == pytest.approx(64 / 81)
    assert measured(box((20, 12, 12), (2, 2, 2), (6, 6, 6))).largest_part == 1


def test_the_border_share_is_the_share_of_the_surface_on_the_border():
    free = box((12, 12, 12), (3, 3, 3), (9, 9, 9))
    assert measured(free).border_share == 0
    # A cube of 6 a side has 6**3 - 4**3 = 152 voxels on its surface; cut off by the border on one
    # side, 36 of them lie on the border.
    cut = box((12, 12, 12), (0, 3, 3), (6, 9, 9))
    assert measured(cut).border_share == pytest.approx(36 / 152)


def test_a_mask_that_fills_the_volume_has_border_share_one():
    assert measured(np.ones((6, 6, 6), bool)).border_share == 1


def test_an_empty_mask_has_measures_of_zero():
    nothing = measured(np.zeros((5, 5, 5), bool))
    assert (nothing.brain_volume_ml, nothing.largest_part, nothing.border_share) == (0, 0, 0)


def test_overlap_and_similarity_compare_with_the_template():
    template_mask = box((8, 8, 8), (1, 1, 1), (5, 5, 5))
    registered_mask = box((8, 8, 8), (3, 1, 1), (7, 5, 5))
    draw = np.random.default_rng(0)
    template, brain = draw.normal(size=(2, 8, 8, 8))
    quality = measured(
        template_mask,
        registered_brain=brain,
        registered_mask=registered_mask,
        template_brain=template,
        template_mask=template_mask,
    )
    assert quality.overlap == pytest.approx(0.5)
    inside = np.corrcoef(brain[template_mask], template[template_mask])[0, 1]
    assert quality.similarity == pytest.approx(inside)
    assert quality.similarity != pytest.approx(np.corrcoef(brain.ravel(), template.ravel())[0, 1])


def test_the_template_compared_with_itself_is_perfect(template):
    quality = measure_quality(
        template.mask,
        template.grid.voxel_volume_ml,
        template.brain,
        template.mask,
        template.brain,
        template.mask,
    )
    assert quality.overlap == 1
    assert quality.similarity == pytest.approx(1)
    assert quality.largest_part == 1
    assert quality.border_share == 0
    assert quality.brain_volume_ml == pytest.approx(1886, rel=0.03)  # the 1 mm brain, filled


def test_the_dict_of_the_measures_is_rounded():
    quality = Quality(1234.56789, 0.999999, 0.0, np.float64(0.95123456), 0.8)
    assert quality.as_dict() == {
        "brain_volume_ml": 1234.5679,
        "largest_part": 1.0,
        "border_share": 0.0,
        "overlap": 0.9512,
        "similarity": 0.8,
    }


def test_fluid_spaces_lie_in_the_brain_and_are_dark(template):
    fluid = fluid_spaces(template.brain, template.mask)
    assert fluid.sum() > 100
    assert not (fluid & ~template.mask).any()
    assert template.brain[fluid].mean() < 0.6 * template.brain[template.mask].mean()
    # The body of the left lateral ventricle.
    voxel = np.rint(np.linalg.inv(template.grid.matrix) @ (-8, 4, 18, 1))[:3].astype(int)
    around = fluid[tuple(slice(i - 1, i + 2) for i in voxel)]
    assert around.any()


# --- judgement ------------------------------------------------------------------------------------


def test_a_good_scan_is_usable_without_a_reason():
    fate = judge(GOOD, THRESHOLDS)
    assert (fate.status, fate.stage, fate.reason, fate.remedy) == ("usable", "quality", "", "")


@pytest.mark.parametrize(
    ("measure", "limit", "inside", "outside"),
    [
        ("brain_volume_ml", "min_brain_volume_ml", 700, 698),
        ("brain_volume_ml", "max_brain_volume_ml", 2300, 2302),
        ("largest_part", "min_largest_part", 0.98, 0.978),
        ("border_share", "max_border_share", 0.05, 0.052),
        ("overlap", "min_overlap", 0.9, 0.898),
        ("similarity", "min_similarity", 0.4, 0.398),
        ("similarity", "min_similarity", 0.4, -0.2),
    ],
)
def test_each_threshold_decides_alone_and_its_limit_is_allowed(measure, limit, inside, outside):
    just_in = Quality(**{**GOOD.as_dict(), measure: inside})
    assert judge(just_in, THRESHOLDS).status == "usable"
    just_out = judge(Quality(**{**GOOD.as_dict(), measure: outside}), THRESHOLDS)
    assert (just_out.status, just_out.stage) == ("excluded", "quality")
    assert f"{outside:g}" in just_out.reason
    assert f"{'below' if limit.startswith('min') else 'above'} {THRESHOLDS[limit]:g}" in (
        just_out.reason
    )
    assert just_out.remedy
    remaining = {name: value for name, value in THRESHOLDS.items() if name != limit}
    assert judge(Quality(**{**GOOD.as_dict(), measure: outside}), remaining).status == "usable"


def test_the_reason_names_measure_value_unit_and_limit_in_words():
    small = Quality(**{**GOOD.as_dict(), "brain_volume_ml": 412.4})
    assert judge(small, THRESHOLDS).reason == "brain volume 412 ml is below 700"
    off = Quality(**{**GOOD.as_dict(), "overlap": 0.61234})
    assert judge(off, THRESHOLDS).reason == "overlap with the template brain 0.612 is below 0.9"


def test_all_missed_thresholds_are_reported_and_each_remedy_once():
    bad = Quality(412.0, 0.5, 0.3, 0.2, 0.1)
    fate = judge(bad, THRESHOLDS)
    assert fate.reason.count("; ") == 4
    for words in ("brain volume", "connected share", "image border", "overlap", "similarity"):
        assert words in fate.reason
    assert fate.remedy.count("look at the registration picture") == 1
    assert "\n" not in fate.reason + fate.remedy


@given(
    quality=st.builds(
        Quality,
        st.floats(0, 4000),
        st.floats(0, 1),
        st.floats(0, 1),
        st.floats(0, 1),
        st.floats(-1, 1),
    )
)
def test_a_scan_is_usable_exactly_where_no_threshold_is_missed(quality):
    good = (
        700 <= quality.brain_volume_ml <= 2300
        and quality.largest_part >= 0.98
        and quality.border_share <= 0.05
        and quality.overlap >= 0.9
        and quality.similarity >= 0.4
    )
    assert (judge(quality, THRESHOLDS).status == "usable") == good


def test_a_measure_that_is_nan_misses_its_threshold():
    quality = Quality(1500.0, 1.0, 0.0, 0.95, float("nan"))
    assert judge(quality, {"min_similarity": 0.5}).status == "excluded"
