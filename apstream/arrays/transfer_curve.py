"""Photon transfer: the variance of light over its mean tells the gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from apstream.arrays.stats import clip_mask
from apstream.arrays.types import F32, F64

__all__ = ["CurveFit", "TransferPoints", "fit_curve", "pair_points", "turnoff"]

_CLIP = 4.0
#: Variance of a Gaussian cut at plus and minus four sigma.
_CLIPPED_VARIANCE = 0.998930
#: Levels within an amplifier that differ by less than this fraction are one level.
_EVEN = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class TransferPoints:
    """Mean (ADU), variance (ADU^2) and error of the variance, each of shape (n,)."""

    mean: F64
    variance: F64
    error: F64

    @classmethod
    def joined(cls, parts: list[TransferPoints]) -> TransferPoints:
        """Return all points in order of their mean."""
        columns = [np.concatenate([getattr(p, name) for p in parts]) for name in ("mean", "variance", "error")]
        order = np.argsort(columns[0])
        return cls(*(column[order] for column in columns))

    def __getitem__(self, which: slice | np.ndarray) -> TransferPoints:
        return TransferPoints(self.mean[which], self.variance[which], self.error[which])


@dataclass(frozen=True, slots=True)
class CurveFit:
    """Gain (electrons per ADU), noise (ADU), a00 (1/electron, 0: straight line) with errors, and chi^2 per point."""

    gain: float
    gain_err: float
    noise: float
    a00: float
    a00_err: float
    chi2: float


def pair_points(first: F32, second: F32, *, bins: int, pixels: int) -> TransferPoints:
    """Return means and variances of one pair of equal exposures of an amplifier, by level where levels differ.

    The difference of two equal exposures has twice the variance of one and none of its structure. Pixels are sorted
    into levels by the sum of the pair, which knows nothing of the difference; a lamp that changed between the two is
    scaled out level by level.

    Parameters
    ----------
    first, second : ndarray, shape (ny, nx), float32
        ADU above the bias level; NaN is left out.
    bins
        Most levels.
    pixels
        Fewest pixels of a level.
    """
    good = np.isfinite(first) & np.isfinite(second)
    a, b = first[good].astype(np.float64), second[good].astype(np.float64)
    points = [_point(a[part], b[part]) for part in _levels(a + b, bins, pixels)]
    kept = np.array([p for p in points if p is not None]).reshape(-1, 3)
    return TransferPoints(kept[:, 0], kept[:, 1], kept[:, 2])


def _levels(total: F64, bins: int, pixels: int) -> list[np.ndarray]:
    """Return the pixels of each level: all where the light is even, else equal numbers by rising light."""
    if total.size < 16:
        return []
    low, high = np.percentile(total[:: max(1, total.size // 100_000)], [5, 95])
    count = min(bins, total.size // max(pixels, 1)) if high - low > _EVEN * abs(high + low) / 2 else 1
    if count <= 1:
        return [np.arange(total.size)]
    return np.array_split(np.argsort(total), count)


def _point(a: F64, b: F64) -> tuple[float, float, float] | None:
    level_a, level_b = _clipped_mean(a), _clipped_mean(b)
    level = (level_a + level_b) / 2
    even = level > 0 and 0.8 < level_a / max(level_b, 1e-9) < 1.25
    difference = a * (level / level_a) - b * (level / level_b) if even else a - b
    keep = clip_mask(difference, n_sigma=_CLIP)
    if keep.sum() < 16:
        return None
    variance = float(np.var(difference[keep])) / 2 / _CLIPPED_VARIANCE
    return level, variance, variance * float(np.sqrt(2 / keep.sum()))


def _clipped_mean(values: F64) -> float:
    return float(np.mean(values[clip_mask(values, n_sigma=_CLIP)]))


def fit_curve(points: TransferPoints, *, noise: float | None, bend: bool, n_sigma: float = 5.0) -> CurveFit:
    """Fit the photon transfer curve.

    variance = (exp(2 a00 gain mean) - 1) / (2 gain^2 a00) + noise^2, which is mean / gain + noise^2 for
    a00 = 0: equation 16 of Astier et al. 2019 (A&A 629, A36).

    Parameters
    ----------
    noise
        Read noise, ADU, where it is known; else fitted.
    bend
        Whether a00 is fitted.
    n_sigma
        Points that stand off by more, as often as the typical one, are left out.

    Raises
    ------
    ValueError
        If there are fewer points than parameters, the variance does not grow with the mean, or nothing varies: the
        frames of the pairs are the same.
    """
    if len(points.mean) and not np.any(points.error > 0):
        raise ValueError("the two frames of a pair are equal to the last bit")
    points = points[points.error > 0]
    free = 1 + bend + (noise is None)
    keep = np.ones(len(points.mean), bool)
    fit, covariance = np.zeros(free), np.zeros((free, free))
    for _ in range(4):
        if keep.sum() < free or np.ptp(points.mean[keep], axis=0) < 0:
            raise ValueError(f"{int(keep.sum())} levels are too few to fit {free} numbers")
        fit, covariance = _solve(points[keep], noise, bend)
        pull = (points.variance - _model(fit, points.mean, noise, bend)) / points.error
        scale = max(1.0, float(np.median(np.abs(pull[keep]))) * 1.4826)
        new = np.abs(pull) <= n_sigma * scale
        if np.array_equal(new, keep):
            break
        keep = new
    slope, a00 = fit[0], (fit[1] if bend else 0.0)
    if not slope > 0:
        raise ValueError("the variance does not grow with the light")
    chi2 = float(np.sum(pull[keep] ** 2) / max(keep.sum() - free, 1))
    errors = np.sqrt(np.diag(covariance) * max(chi2, 1.0))
    found = noise if noise is not None else float(np.sqrt(max(fit[-1], 0.0)))
    bend_error = float(errors[1] * _A00) if bend else 0.0
    return CurveFit(float(1 / slope), float(errors[0] / slope**2), found, float(a00 * _A00), bend_error, chi2)


#: Unit of a00 in the fit, so that its numbers are of order one.
_A00 = 1e-6


def _model(fit: F64, mean: F64, noise: float | None, bend: bool) -> F64:
    slope, a00 = fit[0], (fit[1] * _A00 if bend else 0.0)
    floor = noise**2 if noise is not None else fit[-1]
    argument = 2 * a00 * mean / slope
    light = mean * slope * (np.expm1(argument) / argument if abs(a00) > 1e-12 else 1.0)
    return np.asarray(light + floor)


def _solve(points: TransferPoints, noise: float | None, bend: bool) -> tuple[F64, F64]:
    top = points.mean > 0.3 * points.mean.max()
    slope = float(np.median((points.variance - (noise or 0.0) ** 2)[top] / points.mean[top]))
    start = [max(slope, 1e-6), *([-0.1] if bend else []), *([1.0] if noise is None else [])]

    def misfit(fit: F64) -> F64:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            value = (points.variance - _model(fit, points.mean, noise, bend)) / points.error
        return np.nan_to_num(value, nan=1e6, posinf=1e6, neginf=-1e6)

    found = least_squares(misfit, start, x_scale=np.maximum(np.abs(start), 0.1))
    normal = found.jac.T @ found.jac
    return found.x, np.linalg.pinv(normal)


def turnoff(points: TransferPoints, *, drop: float = 0.1) -> float:
    """Return the level above which the variance falls, ADU; NaN if it never does.

    The variance per light falls slowly by the brighter-fatter effect and suddenly where pixels are full: looked for is
    the highest level from which on it is lower by the fraction `drop` than at the levels before.
    """
    if len(points.mean) < 4:
        return float("nan")
    peak = int(np.argmax(points.variance))
    after = points.variance[peak + 1 :]
    if after.size == 0 or not np.median(after) < (1 - drop) * points.variance[peak]:
        return float("nan")
    return float(points.mean[peak])
