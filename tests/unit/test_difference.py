import numpy as np
import pytest
import scipy

from voxplain.comparison.difference import welch_t
from voxplain.faults import SetupFault
from voxplain.training.statistics import RunningMoments


def test_t_agrees_with_scipy():
    rng = np.random.default_rng(3)
    groups = rng.normal(1, 2, (7, 4, 3, 2)), rng.normal(0, 1, (11, 4, 3, 2))
    arguments = []
    for group in groups:
        moments = RunningMoments()
        for scan in group:
            moments.add(scan)
        arguments += [moments.mean, moments.variance, moments.count]
    expected = scipy.stats.ttest_ind(*groups, equal_var=False).statistic
    t = welch_t(*arguments)
    np.testing.assert_allclose(t, expected, rtol=1e-10)
    np.testing.assert_allclose(welch_t(*arguments[3:], *arguments[:3]), -expected, rtol=1e-10)


def test_t_is_zero_only_where_neither_group_varies():
    means = np.array([1.0, 1.0, 1.0, 1.0])
    t = welch_t(means, np.array([0, 4, 0, 4.0]), 4, 0 * means, np.array([0, 0, 9, 15.0]), 5)
    np.testing.assert_allclose(t, [0, 1, 1 / np.sqrt(9 / 5), 0.5])
    without = welch_t(means, means * np.nan, 4, means, means, 5)
    assert np.isnan(without).all()


def test_groups_of_different_shapes_are_refused():
    ones = np.ones(3)
    with pytest.raises(SetupFault, match="different shapes"):
        welch_t(ones, ones, 3, np.ones(1), np.ones(1), 3)
    with pytest.raises(SetupFault, match="two scans of each group, not 5 and 1"):
        welch_t(ones, ones, 5, ones, ones, 1)


def test_a_voxel_that_hardly_varies_does_not_exceed_all_others():
    means, variances = np.array([1.0, 1, 1, 1]), np.array([4e-12, 4, 16, 36])
    plain = welch_t(means, variances, 4, 0 * means, 0 * means, 4)
    np.testing.assert_allclose(plain, [1e6, 1, 1 / 2, 1 / 3])
    # The median error is (1 + 2) / 2; half of it is below those of the others.
    floored = welch_t(means, variances, 4, 0 * means, 0 * means, 4, floor=0.5)
    np.testing.assert_allclose(floored, [1 / 0.75, 1, 1 / 2, 1 / 3])
    still = welch_t(means, 0 * means, 4, means, 0 * means, 4, floor=0.5)
    assert not still.any()
