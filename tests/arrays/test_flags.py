from __future__ import annotations

import numpy as np

from apstream.arrays.flags import center_bits, footprint_bits
from apstream.arrays.footprints import find_footprints


def test_center_is_three_by_three_and_stops_at_the_edge():
    mask = np.zeros((10, 10), np.int32)
    mask[4, 4], mask[0, 0], mask[4, 7] = 1, 2, 4
    assert center_bits(mask, np.array([5, 0, 5, 50]), np.array([5, 0, 5, 5])).tolist() == [1, 2, 1, 0]


def test_footprints_collect_bits_of_their_own_pixels_only():
    snr = np.zeros((30, 30), np.float32)
    snr[10, 10], snr[20, 20] = 9, 9
    footprints, labels = find_footprints(snr, 5.0, 2.0)
    mask = np.zeros(snr.shape, np.int32)
    mask[10, 12], mask[20, 23], mask[20, 22] = 1, 2, 4
    assert footprint_bits(mask, labels, footprints).tolist() == [1, 4]
