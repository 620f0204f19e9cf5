from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import fftconvolve

from apstream.arrays.brighter_fatter import moved_charge, undo_brighter_fatter
from apstream.arrays.covariances import kernel_of, pair_covariances

LEVEL, LAGS = 50_000.0, 4


def true_kernel() -> np.ndarray:
    """A well that pushes charge out of bright pixels: some 8 % of the variance at 50,000 electrons."""
    y, x = np.mgrid[-LAGS : LAGS + 1, -LAGS : LAGS + 1]
    return -6e-7 * np.exp(-np.hypot(y, x) / 1.2)


def flat(rng: np.random.Generator, size: int = 400) -> np.ndarray:
    true = rng.normal(LEVEL, np.sqrt(LEVEL), (size, size)).astype(np.float32)
    potential = fftconvolve(true - LEVEL, true_kernel(), mode="same").astype(np.float32)
    return true - moved_charge(true, potential)


@pytest.fixture(scope="module")
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(12)
    return [(flat(rng), flat(rng)) for _ in range(6)]


def test_the_kernel_comes_back_from_the_covariances(pairs) -> None:
    measured = [pair_covariances(*pair, lags=LAGS) for pair in pairs]
    assert np.mean([one[0, 0] for one in measured]) < 0.95 * LEVEL
    kernel = kernel_of(measured, [LEVEL] * len(measured))
    truth = true_kernel()
    step = kernel[LAGS, LAGS] - kernel[LAGS, LAGS + 1]
    assert step == pytest.approx(truth[LAGS, LAGS] - truth[LAGS, LAGS + 1], rel=0.06)


def test_flats_corrected_with_it_have_the_noise_of_light_again(pairs) -> None:
    kernel = kernel_of([pair_covariances(*pair, lags=LAGS) for pair in pairs[:5]], [LEVEL] * 5)
    before = pair_covariances(*pairs[5], lags=1) / LEVEL
    straight = [undo_brighter_fatter(image, kernel)[0][8:-8, 8:-8] for image in pairs[5]]
    after = pair_covariances(*straight, lags=1) / LEVEL
    assert before[0, 0] < 0.95
    assert after[0, 0] == pytest.approx(1, abs=0.015)
    for lag in ((0, 1), (1, 0)):
        assert abs(after[lag]) < 0.006


def test_white_noise_has_no_covariance_and_outliers_do_not_count() -> None:
    rng = np.random.default_rng(3)
    first, second = (rng.normal(1000, 30, (300, 300)).astype("f4") for _ in range(2))
    first[rng.random(first.shape) < 1e-3] = 60_000
    found = pair_covariances(first, second, lags=2)
    assert found[0, 0] == pytest.approx(900, rel=0.02)
    assert np.abs(found.ravel()[1:]).max() < 10
