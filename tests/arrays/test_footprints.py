from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from apstream.arrays.footprints import find_footprints, paint_signs


def test_footprints_merge_signs_and_know_both_lobes():
    snr = np.zeros((40, 50), np.float32)
    snr[10, 10:13] = 6, 9, 6
    snr[10, 15:18] = -6, -12, -6
    snr[30, 40] = 5.5
    footprints, labels = find_footprints(snr, 5.0, 2.0)
    assert len(footprints) == 2
    dipole, single = footprints
    assert (dipole["y"], dipole["x"], dipole["snr"]) == (10, 16, -12)
    assert (dipole["pos_x"], dipole["pos_snr"], dipole["neg_x"]) == (11, 9, 16)
    assert (dipole["n_pixels"], dipole["n_peaks"]) == (6, 2)
    assert (single["snr"], single["neg_snr"]) == (5.5, 0)
    assert (single["y0"], single["x0"], single["y1"], single["x1"]) == (28, 38, 33, 43)
    assert labels[10, 13] == dipole["label"]
    assert labels[0, 0] == 0


@pytest.mark.parametrize("grow", [1.0, 2.3])
def test_labels_equal_those_of_scipy(grow):
    rng = np.random.default_rng(2)
    snr = rng.normal(size=(120, 90)).astype(np.float32)
    footprints, labels = find_footprints(snr, 3.0, grow)
    _, count = label(labels > 0, np.ones((3, 3)))
    assert len(footprints) == count
    assert sorted(np.unique(labels[labels > 0])) == list(range(1, count + 1))
    assert footprints["n_pixels"].sum() == np.count_nonzero(np.abs(snr) >= 3)


def test_signs_are_painted_into_the_mask():
    snr = np.zeros((20, 20), np.float32)
    snr[5, 5], snr[5, 6] = 8, -7
    _, labels = find_footprints(snr, 5.0, 1.0)
    mask = paint_signs(np.full(snr.shape, 2 | 64, np.int32), snr, labels, positive=32, negative=64)
    assert mask[5, 5] == 2 | 32
    assert mask[5, 6] == 2 | 64
    assert mask[15, 15] == 2


def bumps(*sources, shape=(60, 80), sigma=2.4):
    y, x = np.mgrid[: shape[0], : shape[1]]
    parts = (h * np.exp(-0.5 * ((y - a) ** 2 + (x - b) ** 2) / sigma**2) for a, b, h in sources)
    return sum(parts).astype(np.float32)


def test_touching_sources_are_divided():
    snr = bumps((30, 30, 40), (30, 41, 15))
    assert len(find_footprints(snr, 5.0, 3.0)[0]) == 1
    footprints, labels = find_footprints(snr, 5.0, 3.0, split=8.0)
    assert footprints["x"].tolist() == [30, 41]
    assert labels[30, 30] == footprints["label"][0] == 1
    assert labels[30, 40] == footprints["label"][1] == 2
    assert footprints["n_pixels"].sum() == np.count_nonzero(snr >= 5)


def test_dipoles_trails_ripples_and_held_footprints_stay_whole():
    dipole = bumps((30, 30, 40), (30, 36, -35))
    trail = bumps(*((30, x, 12 + (x % 10 == 0)) for x in range(20, 60, 2)))
    ripple = bumps((30, 30, 400), (30, 42, 20))
    for snr in (dipole, trail, ripple):
        assert len(find_footprints(snr, 5.0, 3.0, split=8.0)[0]) == 1
    close = bumps((30, 30, 40), (30, 41, 15))
    held = np.zeros(close.shape, bool)
    held[33, 30] = True
    assert len(find_footprints(close, 5.0, 3.0, split=8.0, whole=held)[0]) == 1
