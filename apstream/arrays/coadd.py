"""Outliers of a stack of aligned images, and the sum of overlapping ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, BoolArray, FloatArray, IntArray

__all__ = [
    "RIM_SHARE",
    "ClipLimits",
    "add_part",
    "clip_outliers",
    "clip_outliers_plain",
    "finish_sum",
    "masked_median",
    "masked_median_plain",
]

#: Pixels at the rim of an image count so much where another has full pixels.
RIM_SHARE = 1e-5
_SUSPECT, _SEEN = 1, 2
#: Pixels of a row that are passed over in one go if none is suspect.
_RUN = 64
#: Rows of all images that are sorted at a time.
_ROWS = 16
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


def masked_median(stack: F32 | Sequence[F32], good: BoolArray) -> F32:
    """Return the median over the good values of every pixel, NaN where there is none.

    Parameters
    ----------
    stack, good : ndarray, shape (n, ny, nx), or n arrays
        Values, and which of them count; these are not NaN.
    """
    out: F32 = np.empty(good.shape[1:], np.float32)
    if not len(stack):
        out[:] = np.nan
        return out
    if len(stack) > _FEW:
        _many(stack, good, out)
        return out
    nx = good.shape[-1]
    lines, number = np.empty((len(stack), _ROWS, nx), np.float32), np.empty(nx, np.int32)
    for first in range(0, len(out), _ROWS):
        rows = slice(first, first + _ROWS)
        here = good[:, rows]
        for k, image in enumerate(stack):
            _take_good(image[rows], here[k], lines[k])
        _median_few(lines, here, number, out[rows])
    return out


@njit(cache=True, nogil=True)
def _take_good(values: F32, good: BoolArray, lines: F32) -> None:
    beyond = np.float32(np.inf)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            lines[i, j] = values[i, j] if good[i, j] else beyond


@njit(cache=True, nogil=True)
def _median_few(lines: F32, good: BoolArray, number: IntArray, out: F32) -> None:
    # the values of a row of pixels are sorted side by side, those that do not count behind all others
    n, ny, nx = good.shape
    for i in range(ny):
        number[:] = 0
        for k in range(n):
            _count(good[k, i], number)
        whole = number.min() == n
        for last in range(n - 1, (n - 1) // 2 - 1 if whole else 0, -1):
            for k in range(last):
                _order(lines[k, i], lines[k + 1, i])
        if whole:
            _average(lines[(n - 1) // 2, i], lines[n // 2, i], out[i])
            continue
        for j in range(nx):
            m = number[j]
            out[i, j] = (lines[(m - 1) // 2, i, j] + lines[m // 2, i, j]) * np.float32(0.5) if m > 0 else np.nan


@njit(cache=True, nogil=True)
def _count(good: BoolArray, number: IntArray) -> None:
    for j in range(good.size):
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


def _many(stack: F32 | Sequence[F32], good: BoolArray, out: F32) -> None:
    for first in range(0, len(out), _ROWS):
        rows = slice(first, first + _ROWS)
        _median_many(np.stack([image[rows] for image in stack]), good[:, rows], out[rows])


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
    images: Sequence[F32],
    variances: Sequence[F32],
    good: BoolArray,
    limits: ClipLimits,
    tolerated: tuple[IntArray, FloatArray],
    median: F32,
    out: BoolArray,
) -> None:
    """Mark good pixels that are outliers of their input: cosmic rays, asteroids, satellites.

    Parameters
    ----------
    images, variances : n ndarrays, shape (ny, nx)
        Background-subtracted values on one flux scale, and their variance.
    good : ndarray, shape (n, ny, nx)
        Which of them count.
    tolerated : ndarrays, shapes (n + 1,) and (n,)
        In how many inputs of so many good ones a pixel may be an outlier (in more it is real), and the fraction of
        the brightest median value within reach that each input may differ by.
    median : ndarray, shape (ny, nx)
        That of `masked_median`.
    out : ndarray, shape (n, ny, nx), bool
        Where outliers become true. Pixels within `limits.margin` of the border would need neighbours that are not
        there. `clip_outliers_plain` returns them, slowly.
    """
    runs = np.empty((*good.shape[:2], -(-good.shape[2] // _RUN)), np.bool_)
    states, count = np.zeros(good.shape, np.uint8), np.zeros(median.shape, np.int16)  # of most no page is touched
    squared = np.float32(_COUNTED * np.float32(limits.nsigma)) ** 2
    for k, (image, variance) in enumerate(zip(images, variances, strict=True)):
        _suspect(image, variance, good[k], median, squared, (runs[k], states[k], count))
    for k, (image, variance) in enumerate(zip(images, variances, strict=True)):
        levels = np.array([tolerated[1][k], limits.nsigma, limits.grow_nsigma], np.float32)
        around = (k, limits.reach, limits.grow)
        known = (good, count, tolerated[0])
        _judge((image, variance, median), known, levels, around, (runs[k], states[k]), out[k])


@njit(cache=True, nogil=True)
def _suspect(
    image: F32,
    variance: F32,
    good: BoolArray,
    median: F32,
    squared: np.float32,
    out: tuple[BoolArray, IntArray, IntArray],
) -> None:
    # comparisons with NaN are false
    runs, state, count = out
    ny, nx = image.shape
    for i in range(ny):
        for run in range(runs.shape[1]):
            first, last = run * _RUN, min((run + 1) * _RUN, nx)
            runs[i, run] = _any_far((image, variance, median), good, squared, (i, first, last))
            for j in range(first, last if runs[i, run] else first):
                difference = image[i, j] - median[i, j]
                far = good[i, j] & (difference * difference > squared * variance[i, j])
                state[i, j] = np.uint8(far)
                count[i, j] += np.int16(far)


@njit(cache=True, nogil=True)
def _any_far(values: tuple[F32, F32, F32], good: BoolArray, squared: np.float32, where: tuple[int, int, int]) -> bool:
    # free of branches: many pixels at a time
    image, variance, median = values
    found, i = np.int32(0), np.uintp(where[0])
    for j in range(np.uintp(where[1]), np.uintp(where[2])):
        difference = image[i, j] - median[i, j]
        found |= np.int32(good[i, j]) & np.int32(difference * difference > squared * variance[i, j])
    return bool(found != 0)


@njit(cache=True, nogil=True)
def _judge(
    values: tuple[F32, F32, F32],
    known: tuple[BoolArray, IntArray, IntArray],
    levels: F32,
    around: tuple[int, int, int],
    suspects: tuple[BoolArray, IntArray],
    out: BoolArray,
) -> None:
    # few pixels are suspects: what lies around is looked at for these alone
    good, count, allowed = known
    runs, state = suspects
    ny, nx = state.shape
    for i in range(ny):
        for run in range(runs.shape[1]):
            if not runs[i, run]:
                continue
            for j in range(run * _RUN, min((run + 1) * _RUN, nx)):
                if not state[i, j] & _SUSPECT or count[i, j] > allowed[_number(good, i, j)]:
                    continue
                if _is_beyond(values, levels[0], levels[1], (i, j, around[1])):
                    out[i, j] = True
                    _take_along(values, (good, allowed), levels, (i, j, *around), state, out)


@njit(cache=True, nogil=True)
def _take_along(
    values: tuple[F32, F32, F32],
    known: tuple[BoolArray, IntArray],
    levels: F32,
    where: tuple[int, int, int, int, int],
    state: IntArray,
    out: BoolArray,
) -> None:
    # the rim of an outlier
    good, allowed = known
    i, j, own, reach, grow = where
    for y in range(max(0, i - grow), min(state.shape[0], i + grow + 1)):
        for x in range(max(0, j - grow), min(state.shape[1], j + grow + 1)):
            if good[own, y, x] and not state[y, x] & _SEEN:
                state[y, x] |= _SEEN
                if allowed[_number(good, y, x)] > 0 and _is_beyond(values, levels[0], levels[2], (y, x, reach)):
                    out[y, x] = True


@njit(cache=True, nogil=True)
def _number(good: BoolArray, i: int, j: int) -> int:
    total = 0
    for k in range(good.shape[0]):
        total += good[k, i, j]
    return total


@njit(cache=True, nogil=True)
def _is_beyond(
    values: tuple[F32, F32, F32], fraction: np.float32, nsigma: np.float32, where: tuple[int, int, int]
) -> bool:
    image, variance, median = values
    i, j, reach = where
    difference, limit = abs(image[i, j] - median[i, j]), nsigma * np.sqrt(variance[i, j])
    bright = abs(median[i, j])
    if not difference - fraction * bright > limit:
        return False
    for y in range(max(0, i - reach), min(median.shape[0], i + reach + 1)):
        for x in range(max(0, j - reach), min(median.shape[1], j + reach + 1)):
            bright = max(bright, abs(median[y, x]) if median[y, x] == median[y, x] else np.float32(0))
    return bool(difference - fraction * bright > limit)


def clip_outliers_plain(
    stack: F32, variance: F32, good: BoolArray, limits: ClipLimits, tolerated: tuple[IntArray, FloatArray]
) -> BoolArray:
    """Return what `clip_outliers` marks, of whole arrays and with scipy."""
    from scipy.ndimage import maximum_filter

    median = masked_median_plain(stack, good)
    bright = maximum_filter(np.nan_to_num(np.abs(median)), 2 * limits.reach + 1, mode="nearest")
    enough = np.asarray(tolerated[0])[good.sum(axis=0)]
    difference = np.where(good, np.abs(stack - median), 0)
    fractions = np.asarray(tolerated[1], np.float32)[:, None, None]
    beyond, sigma = difference - fractions * bright, np.sqrt(variance)
    shown = (good & (difference > _COUNTED * np.float32(limits.nsigma) * sigma)).sum(axis=0)
    high = good & (beyond > np.float32(limits.nsigma) * sigma) & (shown <= enough)
    near = maximum_filter(high, (1, 2 * limits.grow + 1, 2 * limits.grow + 1), mode="nearest")
    return np.asarray(high | (near & good & (beyond > np.float32(limits.grow_nsigma) * sigma) & (enough > 0)))


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
