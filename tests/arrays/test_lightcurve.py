from itertools import pairwise

import numpy as np
import pytest

from apstream.arrays.lightcurve import curve_statistics, weighted_mean


def plain_statistics(time, flux, err):
    """One light curve at a time, as one would write it down."""
    weight = 1 / err**2
    order = np.argsort(time)
    rise = [(flux[b] - flux[a]) / (time[b] - time[a]) for a, b in pairwise(order) if time[b] > time[a]]
    return (
        np.sum(weight * flux) / weight.sum(),
        weight.sum() ** -0.5,
        flux.std(ddof=1) if len(flux) > 1 else np.nan,
        len(flux),
        flux.min(),
        flux.max(),
        max(rise, default=np.nan),
        err.mean(),
    )


def test_statistics_equal_the_plain_ones():
    rng = np.random.default_rng(3)
    curve = rng.integers(0, 7, 60)
    curve[curve == 4] = 5
    curve[:1] = 6
    time, flux, err = rng.uniform(0, 100, 60), rng.normal(0, 500, 60), rng.uniform(5, 50, 60)
    stats = curve_statistics(curve, 7, time, flux, err)
    table = [
        stats.mean, stats.mean_err, stats.sigma, stats.count,
        stats.minimum, stats.maximum, stats.max_slope, stats.err_mean,
    ]  # fmt: skip
    for k in (0, 1, 2, 3, 5, 6):
        mine = curve == k
        expected = plain_statistics(time[mine], flux[mine], err[mine])
        np.testing.assert_allclose([column[k] for column in table], expected, rtol=1e-10)
    assert stats.count[4] == 0
    assert np.isnan(stats.mean[4])
    assert np.isnan(stats.max_slope[4])


def test_unusable_points_are_left_out():
    flux, err = np.array([1.0, np.nan, 9.0, 9.0]), np.array([1.0, 1.0, 0.0, np.nan])
    mean, mean_err = weighted_mean(np.zeros(4, int), 1, flux, err)
    assert (mean[0], mean_err[0]) == (1.0, 1.0)
    assert curve_statistics(np.zeros(4, int), 1, np.arange(4.0), flux, err).count[0] == 1


def test_points_at_one_instant_have_no_slope():
    stats = curve_statistics(np.zeros(2, int), 1, np.zeros(2), np.array([1.0, 5.0]), np.ones(2))
    assert np.isnan(stats.max_slope[0])
    assert stats.sigma[0] == pytest.approx(np.sqrt(8))
