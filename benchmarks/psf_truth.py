"""Judge PSF models by the true PSF of simulated fields, at stars left out of the fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Judgement", "judge", "moments"]


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
    """Compare `model(y, x, half)` with the true PSF of `field` at the places given."""
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
