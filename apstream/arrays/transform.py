"""Polynomial maps between two pixel grids, fitted to matched positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.polynomial import degree_of, n_terms, poly_terms
from apstream.arrays.types import F64, FloatArray

__all__ = ["PolyMap", "fit_poly_map", "fit_similarity", "from_affine"]


@dataclass(frozen=True, slots=True, eq=False)
class PolyMap:
    """A polynomial map (y, x) -> (y, x) between pixel grids; callable on arrays.

    Parameters
    ----------
    coefficients : ndarray, shape (2, n_terms)
        Terms of `poly_terms` for y and for x.
    center
        (y, x) that is subtracted from the positions,
    scale
        and by which they are then divided.
    """

    coefficients: F64
    center: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0

    def __call__(self, y: FloatArray, x: FloatArray) -> tuple[F64, F64]:
        """Return mapped (y, x)."""
        terms = self._terms(y, x)
        out = np.tensordot(self.coefficients, terms, axes=(1, 0))
        return out[0], out[1]

    def _terms(self, y: FloatArray, x: FloatArray) -> F64:
        ty = (np.asarray(y, float) - self.center[0]) / self.scale
        tx = (np.asarray(x, float) - self.center[1]) / self.scale
        return poly_terms(ty, tx, self.degree)

    @property
    def degree(self) -> int:
        """Total degree of the polynomial."""
        return degree_of(self.coefficients.shape[1])

    def affine_at(self, y: float, x: float) -> tuple[F64, F64]:
        """Return (A, b) of the local linear map, out = A (y, x) + b."""
        h = max(1.0, 1e-3 * self.scale)
        plus_y, minus_y = np.array(self(y + h, x)), np.array(self(y - h, x))  # type: ignore[arg-type]
        plus_x, minus_x = np.array(self(y, x + h)), np.array(self(y, x - h))  # type: ignore[arg-type]
        matrix = np.stack([plus_y - minus_y, plus_x - minus_x], axis=1) / (2 * h)
        here = np.array(self(y, x))  # type: ignore[arg-type]
        return matrix, here - matrix @ np.array([y, x])

    def inverted(self, shape: tuple[int, int]) -> PolyMap:
        """Return the inverse map, exact for degree one, else fitted on a grid over `shape`."""
        if self.degree == 1:
            matrix, offset = self.affine_at(0.0, 0.0)
            back = np.linalg.inv(matrix)
            return from_affine(np.asarray(back, float), np.asarray(-back @ offset, float))
        side = [np.linspace(-0.05 * n, 1.05 * n, 4 * self.degree + 5) for n in shape]
        y, x = (a.ravel() for a in np.meshgrid(*side, indexing="ij"))
        return fit_poly_map(self(y, x), (y, x), self.degree + 1)


def from_affine(matrix: F64, offset: F64) -> PolyMap:
    """Return the map out = matrix (y, x) + offset."""
    rows = [[offset[i], matrix[i, 1], matrix[i, 0]] for i in (0, 1)]  # terms are 1, x, y
    return PolyMap(np.array(rows, float))


def fit_poly_map(
    source: tuple[FloatArray, FloatArray],
    target: tuple[FloatArray, FloatArray],
    degree: int,
    weights: FloatArray | None = None,
) -> PolyMap:
    """Fit the polynomial map that takes `source` (y, x) to `target` (y, x) by weighted least squares.

    Parameters
    ----------
    weights
        Inverse standard errors, same length; None for equal ones.

    Raises
    ------
    ValueError
        If there are fewer positions than terms.
    """
    y, x = (np.asarray(v, float) for v in source)
    if len(y) < n_terms(degree):
        raise ValueError(f"{len(y)} positions cannot fix a map of degree {degree}")
    center = (float(y.mean()), float(x.mean()))
    scale = float(max(np.ptp(y), np.ptp(x), 1.0)) / 2
    w = np.ones(len(y)) if weights is None else np.asarray(weights, float)
    terms = poly_terms((y - center[0]) / scale, (x - center[1]) / scale, degree)
    values = np.stack([np.asarray(v, float) for v in target], axis=1)
    solution, *_ = np.linalg.lstsq((terms * w).T, values * w[:, None], rcond=None)
    return PolyMap(solution.T, center, scale)


def fit_similarity(source: tuple[FloatArray, FloatArray], target: tuple[FloatArray, FloatArray]) -> PolyMap:
    """Fit the shift, rotation and scale that take `source` to `target`, two positions or more."""
    s = np.asarray(source[1]) + 1j * np.asarray(source[0])
    t = np.asarray(target[1]) + 1j * np.asarray(target[0])
    s0, t0 = s.mean(), t.mean()
    turn = np.vdot(s - s0, t - t0) / max(float(np.vdot(s - s0, s - s0).real), 1e-30)
    shift = t0 - turn * s0
    matrix = np.array([[turn.real, turn.imag], [-turn.imag, turn.real]])
    return from_affine(matrix, np.array([shift.imag, shift.real]))
