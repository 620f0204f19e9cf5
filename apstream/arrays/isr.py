"""Remove the instrument signature: overscan, assembly, calibration, masks and variance, one amplifier at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from apstream.arrays.stats import clip_mask, clipped_median, mad_sigma
from apstream.arrays.types import F32, F64, BoolArray, IntArray

__all__ = [
    "apply_calibs",
    "crosstalk_signal",
    "grow_bleeds",
    "mirrored",
    "overscan_level",
    "overscan_noise",
    "place_amplifier",
]


def overscan_level(overscan: F32, *, by_row: bool, smooth_rows: int = 1) -> F32:
    """Return the bias level of each row from the serial overscan.

    Parameters
    ----------
    overscan : ndarray, shape (ny, n), float32
        ADU; NaN is ignored. Columns whose median stands off (settling after the image) are left out.
    by_row
        False: one level for all rows.
    smooth_rows
        Odd length of a running mean over rows; 1 leaves the rows as they are.

    Returns
    -------
    ndarray, shape (ny,), float32
        Rows without finite overscan take the global level; NaN if there is none at all.
    """
    rows = clipped_median(overscan[:, _steady_columns(overscan)])
    finite = rows[np.isfinite(rows)]
    level = np.float32(np.median(finite)) if finite.size else np.float32(np.nan)
    if not by_row:
        return np.full(len(rows), level, np.float32)
    rows[~np.isfinite(rows)] = level
    if smooth_rows > 1:
        padded = np.pad(rows, smooth_rows // 2, mode="edge")
        rows = np.convolve(padded, np.full(smooth_rows, 1 / smooth_rows), mode="valid").astype(np.float32)
    return rows


def _steady_columns(overscan: F32) -> BoolArray:
    """Return True for columns whose median agrees with the others'."""
    medians = clipped_median(overscan[:: max(1, len(overscan) // 512)].T, n_sigma=5.0)
    finite = overscan[np.isfinite(overscan)]
    # The median of a column scatters by a small part of sigma; one that stands off by half of it is no overscan.
    floor = max(0.1 * mad_sigma(finite), 0.1) if finite.size else 1.0
    steady = clip_mask(medians, n_sigma=5.0, floor=floor)
    return steady if steady.any() else np.ones(overscan.shape[1], bool)


def overscan_noise(overscan: F32) -> float:
    """Return the read noise seen in the overscan, ADU: robust scatter of differences of neighbours in a row."""
    steady = overscan[:, _steady_columns(overscan)]
    if steady.shape[1] < 2:
        steady = overscan
    difference = np.diff(steady, axis=1)
    difference = difference[np.isfinite(difference)]
    keep = clip_mask(difference, n_sigma=5.0)
    return float(np.std(difference[keep]) / np.sqrt(2)) if keep.any() else float("nan")


def place_amplifier(raw: F32, level: F32, target: F32, *, flip_y: bool, flip_x: bool) -> None:
    """Write `raw` less the `level` of its rows into `target`, mirrored on the way as told; shapes equal."""
    np.subtract(raw, level[:, None], out=mirrored(target, flip_y=flip_y, flip_x=flip_x))


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


@njit(cache=True, nogil=True)
def apply_calibs(image: F32, bias: F32, dark: F32, flat: F32, variance: F32, numbers: F32) -> None:
    """Turn ADU into electrons in place and fill the variance, for one amplifier.

    image = ((image - bias - dark time) gain) / flat; variance = (max(electrons before the flat, 0) + noise^2) / flat^2.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        Written.
    bias, dark, flat : ndarray, shape (ny, nx) or (0, 0)
        Empty where there is none. Where the flat is not positive and finite both become NaN.
    numbers
        Gain, read noise in electrons, dark time in seconds.
    """
    ny, nx = image.shape
    gain, noise, time = numbers[0], numbers[1], numbers[2]
    one = np.float32(1)
    has_bias, has_dark, has_flat = bias.size > 0, dark.size > 0, flat.size > 0
    for r in range(ny):
        for c in range(nx):
            v = image[r, c]
            if has_bias:
                v -= bias[r, c]
            if has_dark:
                v -= dark[r, c] * time
            v *= gain
            response = flat[r, c] if has_flat else one
            if not (response > 0 and response < np.inf):
                response = np.float32(np.nan)
            image[r, c] = v / response
            variance[r, c] = (max(v, np.float32(0)) + noise * noise) / (response * response)


@njit(cache=True, nogil=True)
def grow_bleeds(saturated: BoolArray, image: F32, mask: IntArray, level: float, bit: int) -> None:
    """Flag bleed trails: follow columns on from saturated pixels while the image exceeds `level`.

    A pixel beside the trail must be much fainter for the trail to count, so that stars' wings are not eaten.
    """
    ny, nx = image.shape
    for c in range(1, nx - 1):
        for step in (1, -1):
            inside = False
            for n in range(ny):
                r = n if step == 1 else ny - 1 - n
                if saturated[r, c]:
                    inside = True
                elif inside:
                    side = min(image[r, c - 1], image[r, c + 1])
                    inside = image[r, c] > level and image[r, c] > 1.5 * side
                    if inside:
                        mask[r, c] |= bit
