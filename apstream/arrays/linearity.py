"""Straighten the response of an amplifier."""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, F64

__all__ = ["linearize", "linearize_plain"]


def linearize(image: F32, coefficients: F64) -> None:
    """Replace measured by true signal in place.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        ADU above the bias level; NaN stays.
    coefficients
        Shape (n,): c2, c3, ... of true = x + c2 x^2 + c3 x^3 + ...; shape (2, n): measured ADU, rising, and what to
        add there, linear between and constant beyond. Below zero a polynomial adds nothing.

    See Also
    --------
    linearize_plain : the same in numpy.
    """
    if coefficients.ndim == 1:
        _polynomial(image, coefficients.astype(np.float32))
    else:
        _table(image, np.ascontiguousarray(coefficients))


def linearize_plain(image: F32, coefficients: F64) -> F32:
    """Return what `linearize` makes of an image, the slow way."""
    x = image.astype(float)
    if coefficients.ndim == 2:
        return np.asarray(x + np.interp(x, *coefficients), np.float32)
    powers = np.maximum(x, 0)[..., None] ** np.arange(2, 2 + len(coefficients))
    return np.asarray(x + powers @ coefficients, np.float32)


@njit(cache=True, nogil=True)
def _polynomial(image: F32, coefficients: F32) -> None:
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            x = image[r, c]
            if x > 0:
                bend = np.float32(0)
                for k in range(len(coefficients) - 1, -1, -1):
                    bend = (bend + coefficients[k]) * x
                image[r, c] = x + bend * x


@njit(cache=True, nogil=True)
def _table(image: F32, table: F64) -> None:
    measured, added = table[0], table[1]
    last, at = len(measured) - 1, 0
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            x = image[r, c]
            if x <= measured[0]:
                image[r, c] = x + added[0]
            elif x >= measured[last]:
                image[r, c] = x + added[last]
            elif x == x:  # neighbours in the image are mostly neighbours in the table
                while x < measured[at]:
                    at -= 1
                while x >= measured[at + 1]:
                    at += 1
                part = (x - measured[at]) / (measured[at + 1] - measured[at])
                image[r, c] = x + added[at] + part * (added[at + 1] - added[at])
