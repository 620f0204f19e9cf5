"""How far an amplifier departs from a straight line, from exposures of one steady light."""

from __future__ import annotations

import numpy as np

from apstream.arrays.types import F64
from apstream.words import counted

__all__ = ["fit_polynomial", "fit_table"]


def fit_polynomial(time: F64, measured: F64, *, order: int) -> tuple[F64, float]:
    """Fit a time = x + c2 x^2 + ... + cn x^n by least squares of the relative misfit.

    The slope a is free, so the lamp need not be known; what is straight at zero stays as it is.

    Parameters
    ----------
    time, measured : ndarray, shape (n,)
        Exposure times and levels, ADU.
    order
        Highest power, 2 or more.

    Returns
    -------
    coefficients : ndarray, shape (order - 1,)
        c2, c3, ...
    slope
        a, ADU per second at zero.

    Raises
    ------
    ValueError
        If there are fewer different times than unknowns.
    """
    if len(np.unique(np.round(time, 6))) < order + 1:
        raise ValueError(f"{counted(len(np.unique(time)), 'exposure time')} cannot fix a polynomial of order {order}")
    top = float(measured.max())
    x, weight = measured / top, 1 / np.maximum(measured / top, 0.02)
    columns = np.stack([time / time.max(), *(-(x**power) for power in range(2, order + 1))], axis=1)
    found, *_ = np.linalg.lstsq(columns * weight[:, None], x * weight, rcond=None)
    scale = top ** -np.arange(1.0, order)
    return np.asarray(found[1:] * scale), float(found[0] * top / time.max())


def fit_table(time: F64, measured: F64, slope: float) -> F64:
    """Return knots of measured ADU and what to add there, shape (2, n): at zero and at each exposure time."""
    times, which = np.unique(np.round(time, 6), return_inverse=True)
    level = np.bincount(which, measured) / np.bincount(which)
    order = np.argsort(level)
    level, times = level[order], times[order]
    rising = np.concatenate([[level[0] > 0], np.diff(level) > 1e-3])
    level, times = level[rising], times[rising]
    return np.stack([np.concatenate([[0.0], level]), np.concatenate([[0.0], slope * times - level])])
