"""Which pixels of smoothed images are in excess of the static sky: kernels of `arrays.artifacts`.

Few pixels are: what lies around is looked at for these alone. `grown_plain` says the same with whole arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.compiled import njit
from apstream.arrays.neighbours import true_near
from apstream.arrays.types import F32, BoolArray, IntArray

__all__ = ["State", "classify", "count_flagged", "grow", "grown_plain", "magnitude", "thinned", "variance_of_model"]

_HIGH, _COUNTED, _LOW, _NEGATIVE, _BODY = 1, 2, 4, 8, 16
State = NDArray[np.uint8]
#: Pixels of a row that are passed over in one go if none is high.
_RUN = 64
#: Variance of the median of many values over that of their mean.
_MEDIAN_VARIANCE = np.float32(np.pi / 2)


@njit(cache=True, nogil=True)
def magnitude(image: F32) -> F32:
    """Return absolute values, zero for NaN; `np.nan_to_num(np.abs(image))` is the same."""
    out = np.empty_like(image)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            value = abs(image[i, j])
            out[i, j] = value if value == value else np.float32(0)
    return out


@njit(cache=True, nogil=True)
def thinned(image: F32, there: BoolArray, step: int) -> F32:
    """Return every `step`-th pixel along both axes, zero where nothing is there; that is told of these pixels."""
    ny, nx = there.shape
    out = np.empty((ny, nx), np.float32)
    for i in range(ny):
        for j in range(nx):
            out[i, j] = image[i * step, j * step] if there[i, j] else np.float32(0)
    return out


@njit(cache=True, nogil=True)
def count_flagged(mask: IntArray, good: BoolArray, bit: np.int32, count: IntArray) -> None:
    """Add one, in place, where a bit is set and the image is not good: `count += (mask & bit != 0) & ~good`."""
    ny, nx = good.shape
    for i in range(ny):
        for first in range(0, nx, _RUN):
            last, all_good = min(first + _RUN, nx), True
            for j in range(np.uintp(first), np.uintp(last)):
                all_good &= good[np.uintp(i), j]
            if not all_good:
                for j in range(first, last):
                    count[i, j] += (mask[i, j] & bit != 0) & (not good[i, j])


@njit(cache=True, nogil=True, error_model="numpy")
def variance_of_model(spread: F32, number: IntArray) -> F32:
    """Return the variance of the median of images of which `number` count, from theirs, shape (n, ny, nx)."""
    n, ny, nx = spread.shape
    out = np.empty((ny, nx), np.float32)
    for i in range(ny):
        out[i] = spread[0, i]
        for k in range(1, n):
            for j in range(nx):
                out[i, j] += spread[k, i, j]
        for j in range(nx):
            counted = np.float32(max(number[i, j], 1))
            out[i, j] = _MEDIAN_VARIANCE * out[i, j] / (counted * counted)
    return out


@njit(cache=True, nogil=True)
def classify(
    matched: tuple[F32, F32],
    variances: tuple[F32, F32],
    known: tuple[BoolArray, IntArray, F32],
    thresholds: F32,
    out: State,
) -> None:
    """Tell what is in excess of the static sky and how much, in place.

    Parameters
    ----------
    matched, variances
        One image and the median of all, of one PSF, and their variances, shape (ny, nx).
    known
        Which pixels of the image count, in how many images a pixel does, and how bright its surroundings are.
    thresholds : ndarray, shape (4,)
        Standard errors of high pixels, of those that count as showing something, and of low ones; fraction of the
        brightness that the first two may differ by.
    out : ndarray, shape (ny, nx), uint8
        Nothing where fewer than three images count.
    """
    image, model = matched
    spread, of_model = variances
    good, number, bright = known
    high, counted, low, fraction = thresholds
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            difference = image[i, j] - model[i, j]
            value, sigma = abs(difference), np.sqrt(spread[i, j] + of_model[i, j])
            beyond = value - fraction * bright[i, j]
            state = np.uint8(value > low * sigma) * np.uint8(_LOW)
            state |= np.uint8(beyond > high * sigma) * np.uint8(_HIGH)
            state |= np.uint8(beyond > counted * sigma) * np.uint8(_COUNTED)
            state |= np.uint8(difference < 0) * np.uint8(_NEGATIVE)
            out[i, j] = state * np.uint8(good[i, j] & (number[i, j] >= 3))


@njit(cache=True, nogil=True)
def grow(
    states: State,
    own: int,
    known: tuple[IntArray, IntArray],
    reach: tuple[int, int],
    enlarged: tuple[int, BoolArray, BoolArray],
) -> None:
    """Mark the high pixels of one image that few images show, with their surroundings.

    Parameters
    ----------
    states : ndarray, shape (n, ny, nx)
        Those of `classify` of all images; `own` is the one.
    known
        In how many images a pixel counts, and in how many of so many an artifact may be.
    reach
        How far low pixels of the same sign go with a high one, and how far all go with these.
    enlarged
        Pixels of the image to one searched, along each axis; which of them count; and where marks are set, (h, w).
    """
    number, allowed = known
    state = states[own]
    for i in range(state.shape[0]):
        for first in range(0, state.shape[1], _RUN):
            last, union = min(first + _RUN, state.shape[1]), np.uint8(0)
            for j in range(np.uintp(first), np.uintp(last)):
                union |= state[np.uintp(i), j]
            if not union & _HIGH:
                continue
            for j in range(first, last):
                if state[i, j] & _HIGH and _shown(states, i, j) <= allowed[number[i, j]]:
                    _take_along(state, (i, j), reach, enlarged)


@njit(cache=True, nogil=True)
def _shown(states: State, i: int, j: int) -> int:
    # how many images show something within a pixel
    n, ny, nx = states.shape
    total = 0
    for k in range(n):
        union = np.uint8(0)
        for y in range(max(0, i - 1), min(ny, i + 2)):
            for x in range(max(0, j - 1), min(nx, j + 2)):
                union |= states[k, y, x]
        total += (union & _COUNTED) != 0
    return total


@njit(cache=True, nogil=True)
def _take_along(
    state: State, place: tuple[int, int], reach: tuple[int, int], enlarged: tuple[int, BoolArray, BoolArray]
) -> None:
    ny, nx = state.shape
    i, j = place
    sign = state[i, j] & _NEGATIVE
    for y in range(max(0, i - reach[0]), min(ny, i + reach[0] + 1)):
        for x in range(max(0, j - reach[0]), min(nx, j + reach[0] + 1)):
            own = state[y, x]
            if own & _BODY or own & _NEGATIVE != sign or not (own & _LOW or (y == i and x == j)):
                continue
            state[y, x] |= np.uint8(_BODY)
            _mark_rim(y, x, reach[1], enlarged)


@njit(cache=True, nogil=True)
def _mark_rim(y: int, x: int, rim: int, enlarged: tuple[int, BoolArray, BoolArray]) -> None:
    step, good, out = enlarged
    for row in range(max(0, (y - rim) * step), min(out.shape[0], (y + rim + 1) * step)):
        for column in range(max(0, (x - rim) * step), min(out.shape[1], (x + rim + 1) * step)):
            out[row, column] = good[row, column]


def grown_plain(states: State, own: int, rare: int, reach: tuple[int, int]) -> BoolArray:
    """Return what `grow` marks at the resolution of the search, where all counts and `rare` is allowed everywhere."""
    shown = sum(true_near((state & _COUNTED) != 0, 1).astype(int) for state in states)
    state, out = states[own], np.zeros(states[own].shape, bool)
    for sign in (0, _NEGATIVE):
        same = (state & _NEGATIVE) == sign
        seed = ((state & _HIGH) != 0) & (shown <= rare) & same
        out |= true_near(seed | (true_near(seed, reach[0]) & ((state & _LOW) != 0) & same), reach[1])
    return out
