"""Tabulated interpolation weights, six taps each."""

from __future__ import annotations

from functools import cache

import numpy as np

from apstream.arrays.types import F32, F64, FloatArray

__all__ = ["CENTRE", "HALF_DEGREE", "PHASES", "TAPS", "bilinear_table", "lanczos3", "lanczos3_table", "tap_polynomials"]

#: Number of taps; tap k belongs to pixel floor(position) + k - CENTRE.
TAPS = 6
CENTRE = 2
#: Fractions of a pixel that are tabulated; positions are rounded to them (error below 1/2048 px).
PHASES = 1024
#: Terms of the even and of the odd part of the polynomials that stand for a table.
HALF_DEGREE = 3


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
    distance = np.arange(TAPS) - CENTRE - np.arange(PHASES + 1)[:, None] / PHASES
    moments = np.stack([np.ones_like(distance), distance], axis=1)
    weights = lanczos3(distance)
    lack = np.array([[1.0], [0.0]]) - moments @ weights[:, :, None]
    table = weights + (moments.swapaxes(1, 2) @ np.linalg.solve(moments @ moments.swapaxes(1, 2), lack))[:, :, 0]
    table[0], table[-1] = np.eye(TAPS)[CENTRE], np.eye(TAPS)[CENTRE + 1]
    result: F32 = table.astype(np.float32)
    result.flags.writeable = False
    return result


def bilinear_table() -> F32:
    """Return bilinear weights in the same form as `lanczos3_table`."""
    phase = np.arange(PHASES + 1) / PHASES
    weights = np.zeros((PHASES + 1, TAPS))
    weights[:, CENTRE], weights[:, CENTRE + 1] = 1 - phase, phase
    return weights.astype(np.float32)


def tap_polynomials(table: F32) -> F32:
    """Return polynomials that give the weights of a table at any phase, to within 2e-6 for Lanczos-3.

    Parameters
    ----------
    table : ndarray, shape (PHASES + 1, TAPS)
        Weights that are the same from both ends: tap k at phase t is tap 5 - k at 1 - t.

    Returns
    -------
    ndarray, shape (TAPS / 2, 2 HALF_DEGREE)
        Of taps k = 0, 1, 2: even and odd terms in u = t - 1/2 of a polynomial q. The weight is t (1 - t) q(u); that of
        the tap next to the position is (1 - t) (1 + t q(u)). So whole pixels stay exact.
    """
    rest, known = _tap_basis()
    weights = table[1:-1, : TAPS // 2].astype(float)
    weights[:, -1] -= rest
    return np.ascontiguousarray((known @ weights).T, np.float32)


@cache
def _tap_basis() -> tuple[F64, F64]:
    # 1 - t at the phases between, and what makes weights there coefficients by least squares
    phase = np.arange(1, PHASES) / PHASES
    u, powers = phase - 0.5, 2 * np.arange(HALF_DEGREE)
    terms = u[:, None] ** np.concatenate([powers, powers + 1])
    return 1 - phase, np.linalg.pinv((phase * (1 - phase))[:, None] * terms)
