"""Outliers of a stack of aligned images, and the sum of overlapping ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from apstream.arrays.neighbours import largest_near, true_near
from apstream.arrays.types import F32, BoolArray, FloatArray, IntArray

__all__ = [
    "RIM_SHARE",
    "ClipLimits",
    "add_part",
    "clip_outliers",
    "finish_sum",
    "masked_median",
    "masked_median_plain",
]

#: Pixels at the rim of an image count so much where another has full pixels.
RIM_SHARE = 1e-5
_FAR = 2
#: Up to so many values are sorted for many pixels at a time.
_FEW = 24
#: An input counts as showing what another has clipped from this share of the limit on.
_COUNTED = np.float32(0.7)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLimits:
    """When a pixel of one input is an outlier.

    Parameters
    ----------
    nsigma
        Deviation from the median, in the pixel's standard deviations,
        beyond a fraction of the brightest median value within `reach` pixels: inputs of different seeing
        differ by a fraction of a star's peak around it, and must not be clipped there.
    reach
        About the FWHM of a star, pixels.
    grow_nsigma, grow
        Pixels above the lower limit within `grow` pixels of an outlier go with it.
    """

    nsigma: float = 5.0
    reach: int = 4
    grow_nsigma: float = 2.5
    grow: int = 3

    @property
    def margin(self) -> int:
        """Pixels around a region that its result depends on."""
        return self.reach + 2 * self.grow


def masked_median(stack: F32, good: BoolArray) -> F32:
    """Return the median over the good values of every pixel, NaN where there is none.

    Parameters
    ----------
    stack, good : ndarray, shape (n, ny, nx)
        Values, and which of them count; these are not NaN.
    """
    out = np.empty(stack.shape[1:], np.float32)
    if len(stack):
        (_median_few if len(stack) <= _FEW else _median_many)(stack, good, out)
    else:
        out[:] = np.nan
    return out


@njit(cache=True, nogil=True)
def _median_few(stack: F32, good: BoolArray, out: F32) -> None:
    # the values of a row of pixels are sorted side by side, those that do not count behind all others
    n, ny, nx = stack.shape
    lines, number = np.empty((n, nx), np.float32), np.empty(nx, np.int32)
    for i in range(ny):
        number[:] = 0
        for k in range(n):
            _take_good(stack[k, i], good[k, i], lines[k], number)
        whole = number.min() == n
        for last in range(n - 1, (n - 1) // 2 - 1 if whole else 0, -1):
            for k in range(last):
                _order(lines[k], lines[k + 1])
        if whole:
            _average(lines[(n - 1) // 2], lines[n // 2], out[i])
            continue
        for j in range(nx):
            m = number[j]
            out[i, j] = (lines[(m - 1) // 2, j] + lines[m // 2, j]) * np.float32(0.5) if m > 0 else np.nan


@njit(cache=True, nogil=True)
def _take_good(values: F32, good: BoolArray, line: F32, number: IntArray) -> None:
    beyond = np.float32(np.inf)
    for j in range(values.size):
        line[j] = values[j] if good[j] else beyond
        number[j] += np.int32(good[j])


@njit(cache=True, nogil=True)
def _order(low: F32, high: F32) -> None:
    for j in range(low.size):
        a, b = low[j], high[j]
        low[j] = a if a < b else b
        high[j] = b if a < b else a


@njit(cache=True, nogil=True)
def _average(low: F32, high: F32, out: F32) -> None:
    for j in range(low.size):
        out[j] = (low[j] + high[j]) * np.float32(0.5)


@njit(cache=True, nogil=True)
def _median_many(stack: F32, good: BoolArray, out: F32) -> None:
    n, ny, nx = stack.shape
    values = np.empty(n, np.float32)
    for i in range(ny):
        for j in range(nx):
            m = 0
            for k in range(n):
                if good[k, i, j]:
                    value = stack[k, i, j]
                    place = m
                    while place > 0 and values[place - 1] > value:
                        values[place] = values[place - 1]
                        place -= 1
                    values[place] = value
                    m += 1
            out[i, j] = (values[(m - 1) // 2] + values[m // 2]) * np.float32(0.5) if m > 0 else np.nan


def masked_median_plain(stack: F32, good: BoolArray) -> F32:
    """Do what `masked_median` does with numpy."""
    masked = np.ma.masked_array(stack, ~good)
    median = np.ma.median(masked, axis=0)  # type: ignore[no-untyped-call]
    return np.asarray(median.filled(np.nan), np.float32)


def clip_outliers(
    stack: F32,
    variance: F32,
    good: BoolArray,
    limits: ClipLimits,
    allowed: IntArray,
    fractions: FloatArray,
    median: F32 | None = None,
) -> BoolArray:
    """Tell which good pixels are outliers of their input: cosmic rays, asteroids, satellites.

    Parameters
    ----------
    stack, variance, good : ndarray, shape (n, ny, nx)
        Background-subtracted values on one flux scale, their variance, and which of them count.
    allowed : ndarray, shape (n + 1,)
        In how many inputs of so many good ones a pixel may be an outlier; in more it is real.
    fractions : ndarray, shape (n,)
        Fraction of the brightest median value within reach that each input may differ by.
    median : ndarray, shape (ny, nx)
        That of `masked_median`, if it is known already.

    Returns
    -------
    ndarray, shape (n, ny, nx), bool
        Pixels within `limits.margin` of the border would need neighbours that are not there.
    """
    if median is None:
        median = masked_median(stack, good)
    enough = allowed[good.sum(axis=0)].astype(np.int16)
    bright = largest_near(np.nan_to_num(np.abs(median)), limits.reach)
    states = np.zeros(stack.shape, np.uint8)
    count = np.zeros(enough.shape, np.int16)
    for k, state in enumerate(states):
        levels = np.array([fractions[k], limits.nsigma, limits.grow_nsigma], np.float32)
        _deviations(stack[k], variance[k], good[k], (median, bright), levels, state, count)
    rare = count <= enough
    out = np.zeros(stack.shape, bool)
    for k, state in enumerate(states):
        high = (state == _FAR) & rare
        if high.any():
            near = true_near(high, limits.grow)
            out[k] = high | (near & (state > 0) & (enough > 0))
    return out


@njit(cache=True, nogil=True)
def _deviations(
    image: F32, variance: F32, good: BoolArray, around: tuple[F32, F32], levels: F32, out: IntArray, count: IntArray
) -> None:
    median, bright = around
    fraction, high, low = levels
    ny, nx = image.shape
    for i in range(ny):
        for j in range(nx):
            if good[i, j]:
                difference, sigma = abs(image[i, j] - median[i, j]), np.sqrt(variance[i, j])
                beyond = difference - fraction * bright[i, j]
                if beyond > low * sigma:
                    out[i, j] = _FAR if beyond > high * sigma else 1
                if difference > _COUNTED * high * sigma:
                    count[i, j] += 1


@njit(cache=True, nogil=True)
def add_part(
    total: tuple[F32, F32, F32, IntArray, IntArray],
    part: tuple[F32, F32, IntArray],
    place: tuple[int, int],
    weight: float,
    bits: tuple[int, int],
    shared: bool = False,
) -> None:
    """Add an image to a running weighted sum, in place.

    Parameters
    ----------
    total
        Sums of image, variance and weight, the mask of full pixels and that of rim pixels, shape (ny, nx).
    part
        Image, variance and mask of the addition.
    place
        Its first pixel in the sums.
    weight
        Its weight.
    bits
        NO_DATA, whose pixels add nothing, and EDGE, whose pixels (the rim) add next to nothing.
    shared
        Whether all additions have the same noise; their variances are averaged then.
    """
    image, variance, weights, mask, rim = total
    pixels, noise, flags = part
    ny, nx = pixels.shape
    for i in range(ny):
        for j in range(nx):
            flag = flags[i, j]
            if flag & bits[0]:
                continue
            y, x = i + place[0], j + place[1]
            share = np.float32(weight)
            if flag & bits[1]:
                share *= np.float32(RIM_SHARE)
                rim[y, x] |= flag
            else:
                mask[y, x] |= flag
            image[y, x] += share * pixels[i, j]
            variance[y, x] += (share if shared else share * share) * noise[i, j]
            weights[y, x] += share


@njit(cache=True, nogil=True)
def finish_sum(total: tuple[F32, F32, F32, IntArray, IntArray], no_data: int, shared: bool = False) -> int:
    """Turn the sums of `add_part` into mean, variance and mask in place; return how many pixels have data.

    `shared` is that of `add_part`.
    Pixels without data become zero, with zero variance and the bit `no_data`.
    """
    image, variance, weights, mask, rim = total
    count = 0
    ny, nx = image.shape
    for i in range(ny):
        for j in range(nx):
            w = weights[i, j]
            if w > 0:
                count += 1
                image[i, j] /= w
                variance[i, j] /= w if shared else w * w
                if w < 100 * RIM_SHARE:
                    mask[i, j] = rim[i, j]
            else:
                mask[i, j] = no_data
    return count
