"""Tabulated interpolation weights, six taps each."""

from __future__ import annotations

from functools import cache

import numpy as np

from apstream.arrays.types import F32, F64, FloatArray

__all__ = ["CENTRE", "PHASES", "TAPS", "bilinear_table", "lanczos3", "lanczos3_table"]

#: Number of taps; tap k belongs to pixel floor(position) + k - CENTRE.
TAPS = 6
CENTRE = 2
#: Fractions of a pixel that are tabulated; positions are rounded to them (error below 1/2048 px).
PHASES = 1024


def lanczos3(t: FloatArray) -> F64:
    """Return the Lanczos kernel of order three, sinc(t) sinc(t/3) inside |t| < 3."""
    t = np.asarray(t, float)
    return np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0.0)


@cache
def lanczos3_table() -> F32:
    """Return Lanczos-3 weights, shape (PHASES + 1, TAPS), that reproduce constants and slopes.

    Each row gets the smallest change that makes its sum one and its first moment the phase. Without the
    second condition positions are off by up to 0.02 px, depending on the phase, which shows as dipoles in
    differences of bright stars. Rows 0 and PHASES are exactly one pixel: whole-pixel shifts are exact.
    """
    taps = np.arange(TAPS) - CENTRE
    table = np.zeros((PHASES + 1, TAPS))
    table[0, CENTRE] = table[-1, CENTRE + 1] = 1
    for row in range(1, PHASES):
        distance = taps - row / PHASES
        moments = np.stack([np.ones(TAPS), distance])
        weights = lanczos3(distance)
        lack = np.array([1.0, 0.0]) - moments @ weights
        table[row] = weights + np.linalg.solve(moments @ moments.T, lack) @ moments
    result: F32 = table.astype(np.float32)
    result.flags.writeable = False
    return result


def bilinear_table() -> F32:
    """Return bilinear weights in the same form as `lanczos3_table`."""
    phase = np.arange(PHASES + 1) / PHASES
    weights = np.zeros((PHASES + 1, TAPS))
    weights[:, CENTRE], weights[:, CENTRE + 1] = 1 - phase, phase
    return weights.astype(np.float32)
