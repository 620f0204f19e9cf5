"""How much of the signal of one amplifier shows up in another."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from apstream.arrays.bad_pixels import smooth_shape
from apstream.arrays.stats import clip_mask, mad_sigma, subsample
from apstream.arrays.types import F32, F64, BoolArray

__all__ = ["CrosstalkSums", "flattened"]


def flattened(segment: F32, *, block: int = 32, n_sigma: float = 3.0) -> tuple[F32, float]:
    """Return a segment less its smooth background, to which no light above `n_sigma` counts, and its noise."""
    level, noise = segment, float("nan")
    for _ in range(3):
        above = level > n_sigma * noise
        level = segment - smooth_shape(np.where(above, np.float32(np.nan), segment), block)
        noise = mad_sigma(subsample(np.where(above, np.float32(np.nan), level)))
    return level, noise


@dataclass(slots=True)
class CrosstalkSums:
    """Sums of the regression of every victim on every source, over any number of frames.

    Parameters
    ----------
    size
        Number of amplifiers.
    bright_adu
        Pixels of a source count from this far above its background on.
    n_sigma
        Where a victim, or a third amplifier, stands off by more than this there is light of its own.
    """

    size: int
    bright_adu: float
    n_sigma: float
    xx: F64 = field(init=False)
    xy: F64 = field(init=False)
    yy: F64 = field(init=False)
    count: F64 = field(init=False)
    slopes: dict[tuple[int, int], list[tuple[float, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.xx, self.xy, self.yy, self.count = (np.zeros((self.size, self.size)) for _ in range(4))

    def add(self, segments: list[F32], ceilings: list[float]) -> None:
        """Add the segments of one frame, all in the order of reading, ADU above the bias level.

        Parameters
        ----------
        ceilings
            Above these ADU a source is saturated: what it sends is not known.
        """
        flat, noise = zip(*(flattened(segment) for segment in segments), strict=True)
        flat = tuple(self._centred(one, sigma) for one, sigma in zip(flat, noise, strict=True))
        for j in range(self.size):
            bright = (flat[j] > self.bright_adu) & (segments[j] < ceilings[j])
            if not bright.any():
                continue
            for i in range(self.size):
                if i != j:
                    self._add_pair(i, j, flat, noise, bright)

    def _centred(self, level: F32, noise: float) -> F32:
        """Return a segment whose mean, of what is not clipped, is zero: faint light is everywhere."""
        dark = level[np.abs(level) < self.n_sigma * noise]
        return level - np.float32(dark.mean(dtype=np.float64)) if dark.size else level

    def _add_pair(self, i: int, j: int, flat: tuple[F32, ...], noise: tuple[float, ...], bright: BoolArray) -> None:
        ny, nx = (min(flat[i].shape[axis], flat[j].shape[axis]) for axis in (0, 1))
        where = bright[:ny, :nx] & np.isfinite(flat[i][:ny, :nx])
        for k in range(self.size):
            if k not in (i, j):
                third = flat[k][:ny, :nx]
                quiet = third < max(self.n_sigma * noise[k], 0.1 * self.bright_adu)
                where[: third.shape[0], : third.shape[1]] &= quiet
        x, y = flat[j][:ny, :nx][where].astype(float), flat[i][:ny, :nx][where].astype(float)
        if len(x) < 16:
            return
        slope = float(np.median(y / x))
        for _ in range(4):
            keep = clip_mask(y - slope * x, n_sigma=self.n_sigma, floor=noise[i])
            slope = float(x[keep] @ y[keep] / (x[keep] @ x[keep]))
        x, y = x[keep], y[keep]
        self.slopes.setdefault((i, j), []).append((slope, float(x @ x)))
        self.xx[i, j] += x @ x
        self.xy[i, j] += x @ y
        self.yy[i, j] += y @ y
        self.count[i, j] += len(x)

    def coefficients(self) -> tuple[F64, F64]:
        """Return ``matrix[i, j]``, the fraction of source j in victim i, and its error; NaN where nothing was seen.

        The error is that of the regression or, from three frames on, that of the scatter between frames if larger.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            value = self.xy / self.xx
            scatter = np.maximum(self.yy - value * self.xy, 0) / np.maximum(self.count - 1, 1)
            error = np.sqrt(scatter / self.xx)
        for (i, j), frames in self.slopes.items():
            slope, weight = np.array(frames).T
            if len(slope) >= 3:
                between = np.sqrt(np.sum((weight * (slope - value[i, j])) ** 2)) / weight.sum()
                error[i, j] = max(error[i, j], between)
        return value, error
