"""Two-dimensional polynomials on a box, the one form used for every spatial variation."""

from __future__ import annotations

import numpy as np

from apstream.arrays.types import F64, FloatArray

__all__ = ["degree_of", "n_terms", "poly_terms"]


def n_terms(degree: int) -> int:
    """Return the number of terms of total degree up to `degree`."""
    return (degree + 1) * (degree + 2) // 2


def degree_of(terms: int) -> int:
    """Return the degree whose `n_terms` is `terms`; ValueError if there is none."""
    degree = int((np.sqrt(8 * terms + 1) - 3) / 2 + 0.5)
    if n_terms(degree) != terms:
        raise ValueError(f"{terms} is not the number of terms of a 2-D polynomial")
    return degree


def poly_terms(y: FloatArray | float, x: FloatArray | float, degree: int) -> F64:
    """Evaluate the terms of a 2-D polynomial of total degree up to `degree`.

    Parameters
    ----------
    y, x
        Coordinates, already normalised to about [-1, 1]; broadcast together.
    degree
        Highest total degree.

    Returns
    -------
    ndarray, shape (n_terms(degree), ...)
        Terms in the order 1, x, y, x^2, xy, y^2, ...
    """
    y, x = np.broadcast_arrays(np.asarray(y, float), np.asarray(x, float))
    return np.stack([x ** (total - j) * y**j for total in range(degree + 1) for j in range(total + 1)])
