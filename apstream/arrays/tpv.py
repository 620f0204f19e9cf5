"""The TPV polynomial of plane coordinates (Calabretta et al. 2004; the PV cards that SCAMP writes)."""

from __future__ import annotations

import numpy as np

from apstream.arrays.types import F64, FloatArray

__all__ = ["fit_tpv", "tpv_powers"]

#: Indices of PV cards that stand for odd powers of the radius; not used here.
_RADIAL = (3, 11, 23, 39)
_HIGHEST = 7


def tpv_powers(degree: int) -> dict[int, tuple[int, int]]:
    """Return which powers (p, q) of the own and of the other plane coordinate each PV index stands for.

    Raises
    ------
    ValueError
        If `degree` is above seven, where TPV ends.
    """
    if degree > _HIGHEST:
        raise ValueError(f"TPV has terms up to degree {_HIGHEST}, not {degree}")
    powers, index = {}, 0
    for total in range(degree + 1):
        for q in range(total + 1):
            while index in _RADIAL:
                index += 1
            powers[index] = (total - q, q)
            index += 1
    return powers


def fit_tpv(
    plane: tuple[FloatArray, FloatArray], target: tuple[FloatArray, FloatArray], degree: int
) -> dict[tuple[int, int], float]:
    """Fit the TPV terms that take linear plane coordinates (xi, eta) to distorted ones.

    Returns
    -------
    dict
        PV value by (axis, index), axes 1 and 2.
    """
    xi, eta = (np.asarray(v, float) for v in plane)
    scale = max(float(np.abs(xi).max()), float(np.abs(eta).max()), 1e-9)
    found: dict[tuple[int, int], float] = {}
    for axis, (own, other, wanted) in enumerate(((xi, eta, target[0]), (eta, xi, target[1])), 1):
        powers = tpv_powers(degree)
        terms = np.stack([(own / scale) ** p * (other / scale) ** q for p, q in powers.values()], axis=1)
        values, *_ = np.linalg.lstsq(terms, _column(wanted), rcond=None)
        for (index, (p, q)), value in zip(powers.items(), values, strict=True):
            found[axis, index] = float(value) / scale ** (p + q)
    return found


def _column(values: FloatArray) -> F64:
    return np.asarray(values, float).ravel()
