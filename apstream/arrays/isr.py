"""Remove the instrument signature: crosstalk, assembly, calibration, masks and variance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, F64, IntArray

__all__ = [
    "Masters",
    "Planes",
    "apply_calibs",
    "apply_calibs_plain",
    "crosstalk_signal",
    "flag_high",
    "follow_bleeds",
    "grow_flags",
    "mirrored",
    "place_amplifier",
    "plateau_level",
]


def place_amplifier(raw: F32, rows: F32, columns: F32, target: F32, *, flip_y: bool, flip_x: bool) -> None:
    """Write `raw` less the levels of its `rows` and `columns` into `target`, mirrored on the way as told.

    Either levels may be empty: nothing is subtracted.
    """
    out = mirrored(target, flip_y=flip_y, flip_x=flip_x)
    np.subtract(raw, rows[:, None] if rows.size else np.float32(0), out=out)
    if columns.size:
        out -= columns


def mirrored(image: np.ndarray[Any, Any], *, flip_y: bool, flip_x: bool) -> np.ndarray[Any, Any]:
    """Return a view of `image` mirrored as told."""
    view = image[::-1] if flip_y else image
    return view[:, ::-1] if flip_x else view


def crosstalk_signal(segments: Sequence[F32], matrix: F64) -> list[F32]:
    """Return what the other amplifiers add to each one.

    Parameters
    ----------
    segments : arrays, shape (ny, nx), float32
        Overscan-subtracted pixels of every amplifier, ADU, all in the order of reading. Where sizes differ, pixels
        beyond the smaller one hear nothing of it. Pixels that are not finite are not heard.
    matrix : ndarray, shape (n, n)
        ``matrix[i, j]`` is the fraction of segment j that appears in segment i.

    Returns
    -------
    list of ndarray, float32
        ADU, of the shapes of the segments. The sources are as measured, so what is left of a signal once this is
        subtracted is of the order of the coefficient squared.
    """
    added = [np.zeros(segment.shape, np.float32) for segment in segments]
    for i, j in np.argwhere(matrix):
        _add_heard(added[i], segments[j], np.float32(matrix[i, j]))
    return added


@njit(cache=True, nogil=True)
def _add_heard(victim: F32, source: F32, fraction: float) -> None:
    """Add `fraction` of the finite pixels of `source` to `victim`, from the first pixel read on."""
    for r in range(min(victim.shape[0], source.shape[0])):
        for c in range(min(victim.shape[1], source.shape[1])):
            if np.isfinite(source[r, c]):
                victim[r, c] += fraction * source[r, c]


class Masters(NamedTuple):
    """Bias (ADU), dark (ADU per second) and flat of the whole detector; shape (0, 0) where there is none."""

    bias: F32
    dark: F32
    flat: F32


class Planes(NamedTuple):
    """Image, mask and variance of the whole detector."""

    image: F32
    mask: IntArray
    variance: F32


@njit(cache=True, nogil=True)
def flag_high(planes: Planes, box: IntArray, limits: F32, bits: IntArray, rows: IntArray) -> None:
    """Set ``bits[k]`` in the mask where the image reaches ``limits[k]``, k = 0, 1, in one part of a detector.

    Parameters
    ----------
    box
        y0, x0, y1, x1 of the part.
    rows : ndarray, shape (ny,)
        How many pixels of each row of the detector got the first bit is added here.
    """
    image, mask = planes.image, planes.mask
    low = min(limits[0], limits[1])
    for r in range(box[0], box[2]):
        top = -np.float32(np.inf)
        for v in image[r, box[1] : box[3]]:
            top = v if v > top else top
        if top < low:  # nearly all rows of nearly all images: one look, no writing
            continue
        for c in range(box[1], box[3]):
            if image[r, c] >= limits[0]:
                mask[r, c] |= bits[0]
                rows[r] += 1
            if image[r, c] >= limits[1]:
                mask[r, c] |= bits[1]


@njit(cache=True, nogil=True, error_model="numpy")
def apply_calibs(planes: Planes, masters: Masters, box: IntArray, numbers: F32, bits: IntArray) -> None:
    """Turn ADU into electrons in place, fill the variance and flag what has no value, in one part of a detector.

    image = ((image - bias - dark time) gain) / flat; variance = (max(electrons before the flat, 0) + noise^2) / flat^2.

    Parameters
    ----------
    planes
        Written.
    box
        y0, x0, y1, x1 of the part, usually an amplifier.
    numbers
        Gain, read noise in electrons, dark time in seconds, least flat.
    bits
        Set where a value is not finite or the flat not positive, which makes both NaN; and where the flat is below
        the least.

    See Also
    --------
    apply_calibs_plain : the same in numpy.
    """
    gain, noise2, time, least = numbers[0], numbers[1] * numbers[1], numbers[2], numbers[3]
    zero, one, huge = np.float32(0), np.float32(1), np.float32(np.inf)
    has_bias, has_dark, has_flat = masters.bias.size > 0, masters.dark.size > 0, masters.flat.size > 0
    x0, x1 = box[1], box[3]
    for r in range(box[0], box[2]):
        image, mask, variance = planes.image[r, x0:x1], planes.mask[r, x0:x1], planes.variance[r, x0:x1]
        if has_bias:
            image -= masters.bias[r, x0:x1]
        if has_dark:
            image -= masters.dark[r, x0:x1] * time
        if has_flat:
            flat = masters.flat[r, x0:x1]
            for c in range(x1 - x0):
                f = flat[c]
                inverse = one / f if f > zero and f < huge else np.float32(np.nan)
                v = image[c] * gain
                image[c] = v * inverse
                variance[c] = (max(v, zero) + noise2) * inverse * inverse
                mask[c] |= (not (f >= least)) * bits[1]
        else:
            for c in range(x1 - x0):
                v = image[c] * gain
                image[c] = v
                variance[c] = max(v, zero) + noise2
        for c in range(x1 - x0):
            mask[c] |= (not (abs(image[c]) < huge and variance[c] < huge)) * bits[0]


def apply_calibs_plain(planes: Planes, masters: Masters, box: IntArray, numbers: F32, bits: IntArray) -> None:
    """Do what `apply_calibs` does, in numpy."""
    gain, noise, time, least = (float(number) for number in numbers)
    part = np.s_[box[0] : box[2], box[1] : box[3]]
    bias, dark = (master[part].astype(float) if master.size else 0.0 for master in masters[:2])
    electrons = (planes.image[part] - bias - time * dark) * gain
    variance = np.maximum(electrons, 0) + noise**2
    if masters.flat.size:
        flat = masters.flat[part].astype(float)
        planes.mask[part] |= np.where(flat >= least, 0, bits[1])
        flat[~((flat > 0) & np.isfinite(flat))] = np.nan
        electrons, variance = electrons / flat, variance / flat**2
    planes.image[part], planes.variance[part] = electrons, variance
    planes.mask[part] |= np.where(np.isfinite(electrons) & np.isfinite(variance), 0, bits[0])


@njit(cache=True, nogil=True)
def follow_bleeds(planes: Planes, box: IntArray, level: float, bit: int, rows: IntArray) -> None:
    """Flag bleed trails: follow columns on from pixels with `bit` while the image exceeds `level`, within a part.

    A pixel beside the trail must be much fainter for the trail to count, so that stars' wings are not eaten.

    Parameters
    ----------
    box
        y0, x0, y1, x1 of the part.
    rows
        How many pixels of each row of the detector have `bit`; brought up to date.
    """
    image, mask = planes.image, planes.mask
    for r in np.flatnonzero(rows):
        if not box[0] <= r < box[2]:
            continue
        for c in range(max(box[1], 1), min(box[3], image.shape[1] - 1)):
            if mask[r, c] & bit:
                for step in (-1, 1):
                    at = r + step
                    while box[0] <= at < box[2] and not mask[at, c] & bit:
                        side = min(image[at, c - 1], image[at, c + 1])
                        if not (image[at, c] > level and image[at, c] > 1.5 * side):
                            break
                        mask[at, c] |= bit
                        rows[at] += 1
                        at += step


@njit(cache=True, nogil=True)
def grow_flags(mask: IntArray, bit: int, rows: IntArray, radius: int) -> None:
    """Set `bit` within a square of half-side `radius` around the pixels that have it; as `dilate`, for few pixels.

    Parameters
    ----------
    rows : ndarray, shape (ny,)
        How many pixels of each row have `bit`.
    """
    ny, nx = mask.shape
    places = np.empty((rows.sum(), 2), np.int64)
    n = 0
    for r in np.flatnonzero(rows):
        for c in range(nx):
            if mask[r, c] & bit:
                places[n] = r, c
                n += 1
    for r, c in places[:n]:
        for y in range(max(r - radius, 0), min(r + radius + 1, ny)):
            for x in range(max(c - radius, 0), min(c + radius + 1, nx)):
                mask[y, x] |= bit


def plateau_level(values: np.ndarray[Any, Any]) -> float:
    """Return the highest value of raw pixels if they pile up there, as saturated ones do; else infinity.

    A pile has at least eight pixels, at least as many as the three percent below it hold, and at most a twentieth
    of all.
    """
    if values.size == 0 or not np.isfinite(top := float(np.fmax.reduce(values, axis=None))):
        return np.inf
    high = values[values >= 0.97 * top]
    count = int(np.count_nonzero(high == top))
    piled = 8 <= count <= values.size / 20 and 2 * count >= high.size
    return top if piled else np.inf
