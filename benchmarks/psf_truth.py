"""Judge PSF models by the true PSF of simulated fields, at stars left out of the fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from apstream.arrays.polynomial import poly_terms

__all__ = ["Judgement", "ellipticity_floor", "judge", "moments"]


@dataclass(frozen=True)
class Judgement:
    """Residuals, model less truth: relative size, and e1, e2; medians, and medians of absolute values."""

    n: int
    size: float
    e1: float
    e2: float
    size_abs: float
    e_abs: float

    def row(self) -> str:
        """Return the numbers for a table: sizes in per mille, ellipticities in 10^-3."""
        values = (self.size, self.e1, self.e2, self.size_abs, self.e_abs)
        return "".join(f"{1000 * value:9.2f}" for value in values)


def moments(stamp: Any, sigma: float) -> tuple[float, float, float]:
    """Return size (sqrt of the trace), e1 and e2 under a fixed matched round Gaussian weight that follows the centre.

    Weighted moments measure model and truth alike; nothing of the package is used.
    """
    half = stamp.shape[0] // 2
    yy, xx = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    y0 = x0 = 0.0
    for _ in range(30):
        weight = np.exp(-0.5 * ((yy - y0) ** 2 + (xx - x0) ** 2) / sigma**2) * stamp
        total = weight.sum()
        step = 2 * (weight * (yy - y0)).sum() / total, 2 * (weight * (xx - x0)).sum() / total
        y0, x0 = y0 + step[0], x0 + step[1]
        if abs(step[0]) + abs(step[1]) < 1e-7:
            break
    dy, dx = yy - y0, xx - x0
    weight = np.exp(-0.5 * (dy**2 + dx**2) / sigma**2) * stamp
    myy, mxx, mxy = ((weight * a * b).sum() / weight.sum() for a, b in ((dy, dy), (dx, dx), (dy, dx)))
    # undo the weight as if the source were Gaussian: the inverse covariances subtract
    true = np.linalg.inv(np.linalg.inv([[myy, mxy], [mxy, mxx]]) - np.eye(2) / sigma**2)
    trace = true[0, 0] + true[1, 1]
    return float(np.sqrt(trace)), float((true[1, 1] - true[0, 0]) / trace), float(2 * true[0, 1] / trace)


def judge(field: Any, model: Callable[[float, float, int], Any], y: Any, x: Any) -> Judgement:
    """Compare `model(y, x, half)`, a star on its pixels, with the truth of `field` at the places given."""
    half = int(3 * field.config.fwhm) + 2
    rows = []
    for a, b in zip(y, x, strict=True):
        truth = field.psf(a, b, half)
        sigma = np.hypot(field.config.fwhm / 2.355, 0.3)
        found, true = moments(model(a, b, half), sigma), moments(truth, sigma)
        rows.append((found[0] / true[0] - 1, found[1] - true[1], found[2] - true[2]))
    size, e1, e2 = np.array(rows).T
    return Judgement(
        n=len(rows),
        size=float(np.median(size)),
        e1=float(np.median(e1)),
        e2=float(np.median(e2)),
        size_abs=float(np.median(np.abs(size))),
        e_abs=float(np.median(np.abs(np.concatenate([e1, e2])))),
    )


def ellipticity_floor(field: Any, y: Any, x: Any, places: tuple[Any, Any], degree: int) -> float:
    """Return the error of the mean of one ellipticity component that photons leave the best of fits.

    The Cramer-Rao bound for a polynomial of `degree` over the field, from stars at (y, x) whose profile and noise
    are known, in the mean over `places` (y, x).
    """
    index = cKDTree(np.column_stack([field.y, field.x])).query(np.column_stack([y, x]))[1]
    half, step = int(4 * field.config.fwhm), 1e-3
    sides = [field.round_psf(half, sign * step) for sign in (1, -1)]
    sigma = np.hypot(field.config.fwhm / 2.355, 0.3)
    slope = (sides[0] - sides[1]) / (moments(sides[0], sigma)[1] - moments(sides[1], sigma)[1])
    kernel = field.round_psf(half, 0.0)
    noise = field.config.sky + field.config.read_noise**2
    worth = np.array([np.sum((flux * slope) ** 2 / (noise + flux * kernel)) for flux in field.flux[index]])
    terms, there = (poly_terms(2 * a / field.config.size - 1, 2 * b / field.config.size - 1, degree)
                    for a, b in ((y, x), places))  # fmt: skip
    mean = there.mean(axis=1)
    return float(np.sqrt(mean @ np.linalg.solve((terms * worth) @ terms.T, mean)))
