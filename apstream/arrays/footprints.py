"""Footprints: the connected regions of a significance image beyond a threshold of either sign."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, BoolArray, IntArray, Records

__all__ = ["FOOTPRINT_DTYPE", "find_footprints", "paint_signs"]

#: One footprint; pixels are array indices, boxes half-open; lobes that do not exist have snr 0.
FOOTPRINT_DTYPE = np.dtype(
    [
        ("y", "i4"),  # the strongest peak of either sign
        ("x", "i4"),
        ("snr", "f4"),  # signed
        ("pos_y", "i4"),
        ("pos_x", "i4"),
        ("pos_snr", "f4"),
        ("neg_y", "i4"),
        ("neg_x", "i4"),
        ("neg_snr", "f4"),
        ("y0", "i4"),
        ("x0", "i4"),
        ("y1", "i4"),
        ("x1", "i4"),
        ("n_pixels", "i4"),  # above threshold, before growing
        ("n_peaks", "i4"),
        ("label", "i4"),
    ]
)


def find_footprints(
    snr: F32, threshold: float, grow: float, *, split: float = np.inf, whole: BoolArray | None = None
) -> tuple[Records, NDArray[np.int32]]:
    """Find the connected regions around pixels beyond a threshold of either sign.

    Every such pixel is grown to a disc; discs that touch (8-connected) make one footprint, so a positive and
    a negative lobe that lie side by side become one. A footprint is divided again, each pixel going to the
    nearest peak, where its peaks are far apart with a valley between them: sources that only happen to touch.

    Parameters
    ----------
    snr : ndarray, shape (ny, nx)
        Significance.
    threshold
        Pixels with abs(snr) at least this.
    grow
        Radius of the disc in pixels.
    split
        Peaks at least this many pixels apart may divide a footprint.
    whole : ndarray, shape (ny, nx), bool
        A footprint that holds one of these pixels is not divided.

    Returns
    -------
    footprints : ndarray of FOOTPRINT_DTYPE
        In the order of their labels.
    labels : ndarray, shape (ny, nx), int32
        Footprint number, from 1, of each pixel of a grown footprint; 0 elsewhere.
    """
    seeds = np.flatnonzero((snr >= threshold) | (snr <= -threshold)).astype(np.int64)
    labels = np.zeros(snr.shape, np.int32)
    offsets = _disc(grow)
    count = int(_label(seeds, offsets[0], offsets[1], labels))
    footprints = _summary(seeds, snr, labels, count, grow)
    if np.isfinite(split) and np.any(footprints["n_peaks"] > 1):
        held = np.zeros((1, 1), bool) if whole is None else whole
        divided = int(_split(seeds, snr, labels, footprints, held, split))
        if divided > count:
            footprints = _summary(seeds, snr, labels, divided, grow)
    return footprints, labels


def _summary(seeds: NDArray[np.int64], snr: F32, labels: NDArray[np.int32], count: int, grow: float) -> Records:
    footprints = np.zeros(count, FOOTPRINT_DTYPE)
    footprints["label"] = np.arange(1, count + 1)
    _summarize(seeds, snr, labels, footprints)
    footprints["y0"] = np.maximum(footprints["y0"] - int(grow), 0)
    footprints["x0"] = np.maximum(footprints["x0"] - int(grow), 0)
    footprints["y1"] = np.minimum(footprints["y1"] + int(grow), snr.shape[0])
    footprints["x1"] = np.minimum(footprints["x1"] + int(grow), snr.shape[1])
    negative = -footprints["neg_snr"] > footprints["pos_snr"]
    for name in ("y", "x", "snr"):
        footprints[name] = np.where(negative, footprints[f"neg_{name}"], footprints[f"pos_{name}"])
    return footprints


def _disc(radius: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = y**2 + x**2 <= radius**2
    return y[inside].astype(np.int64), x[inside].astype(np.int64)


@njit(cache=True, nogil=True)
def _label(seeds, offset_y, offset_x, labels):  # type: ignore[no-untyped-def]
    ny, nx = labels.shape
    painted = 0
    for s in seeds:
        for k in range(len(offset_y)):
            y, x = s // nx + offset_y[k], s % nx + offset_x[k]
            if 0 <= y < ny and 0 <= x < nx and labels[y, x] == 0:
                labels[y, x] = -1
                painted += 1
    stack = np.empty(painted + 1, np.int64)
    count = 0
    for s in seeds:
        if labels[s // nx, s % nx] != -1:
            continue
        count += 1
        labels[s // nx, s % nx] = count
        stack[0] = s
        depth = 1
        while depth > 0:
            depth -= 1
            here = stack[depth]
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    y, x = here // nx + dy, here % nx + dx
                    if 0 <= y < ny and 0 <= x < nx and labels[y, x] == -1:
                        labels[y, x] = count
                        stack[depth] = y * nx + x
                        depth += 1
    return count


#: A peak is one of its own if the valley towards every stronger peak is lower than this part of it ...
_VALLEY = 0.6
#: ... and if it has at least this part of their height: less may be a ripple of a bad subtraction.
_RIPPLE = 0.1
_MOST_PARTS = 16


@njit(cache=True, nogil=True)
def _split(seeds, snr, labels, footprints, whole, distance):  # type: ignore[no-untyped-def]
    """Divide footprints among their separate peaks; new labels follow the old ones. Return the last label."""
    nx = snr.shape[1]
    count = len(footprints)
    peaks = np.zeros(len(footprints) + 1, np.int64)
    for f in footprints:
        peaks[f.label] = peaks[f.label - 1] + (f.n_peaks if f.n_peaks > 1 else 0)
    places = np.zeros(peaks[-1], np.int64)
    filled = peaks[:-1].copy()
    for s in seeds:
        n = labels[s // nx, s % nx] - 1
        if footprints[n].n_peaks > 1 and _is_peak(snr, s // nx, s % nx):
            places[filled[n]] = s
            filled[n] += 1
    for n in range(len(footprints)):
        if footprints[n].n_peaks < 2 or _holds(labels, footprints[n], whole):
            continue
        mine = places[peaks[n] : peaks[n + 1]]
        heights = np.array([-abs(snr[s // nx, s % nx]) for s in mine])
        chosen = np.zeros(_MOST_PARTS, np.int64)
        parts = 0
        for k in np.argsort(heights, kind="mergesort"):
            if parts < _MOST_PARTS and _stands_alone(snr, mine[k], chosen[:parts], distance):
                chosen[parts] = mine[k]
                parts += 1
        if parts > 1:
            _share_out(labels, footprints[n], chosen[:parts], count)
            count += parts - 1
    return count


@njit(cache=True, nogil=True)
def _holds(labels, f, whole):  # type: ignore[no-untyped-def]
    if whole.shape != labels.shape:
        return False
    for y in range(f.y0, f.y1):
        for x in range(f.x0, f.x1):
            if whole[y, x] and labels[y, x] == f.label:
                return True
    return False


@njit(cache=True, nogil=True)
def _stands_alone(snr, place, chosen, distance):  # type: ignore[no-untyped-def]
    nx = snr.shape[1]
    y, x = place // nx, place % nx
    height, sign = abs(snr[y, x]), np.sign(snr[y, x])
    for other in chosen:
        v, u = other // nx, other % nx
        gap = np.hypot(float(y - v), float(x - u))
        if gap < distance or height < _RIPPLE * abs(snr[v, u]):
            return False
        lowest = height
        steps = int(gap)
        for k in range(1, steps):
            t = k / steps
            lowest = min(lowest, sign * snr[int(y + t * (v - y) + 0.5), int(x + t * (u - x) + 0.5)])
        if lowest > _VALLEY * height:
            return False
    return True


@njit(cache=True, nogil=True)
def _share_out(labels, f, chosen, count):  # type: ignore[no-untyped-def]
    nx = labels.shape[1]
    for y in range(f.y0, f.y1):
        for x in range(f.x0, f.x1):
            if labels[y, x] != f.label:
                continue
            best, nearest = 0, np.inf
            for k in range(len(chosen)):
                gap = (y - chosen[k] // nx) ** 2 + (x - chosen[k] % nx) ** 2
                if gap < nearest:
                    best, nearest = k, gap
            if best > 0:
                labels[y, x] = count + best


@njit(cache=True, nogil=True)
def _summarize(seeds, snr, labels, footprints):  # type: ignore[no-untyped-def]
    nx = snr.shape[1]
    for s in seeds:
        y, x = s // nx, s % nx
        f = footprints[labels[y, x] - 1]
        value = snr[y, x]
        if f.n_pixels == 0:
            f.y0, f.x0, f.y1, f.x1 = y, x, y + 1, x + 1
        f.n_pixels += 1
        f.y0, f.y1 = min(f.y0, y), max(f.y1, y + 1)
        f.x0, f.x1 = min(f.x0, x), max(f.x1, x + 1)
        f.n_peaks += _is_peak(snr, y, x)
        if value > f.pos_snr:
            f.pos_y, f.pos_x, f.pos_snr = y, x, value
        elif value < f.neg_snr:
            f.neg_y, f.neg_x, f.neg_snr = y, x, value


@njit(cache=True, nogil=True)
def _is_peak(snr, y, x):  # type: ignore[no-untyped-def]
    """Tell whether no neighbour is beyond this pixel on its side; ties go to the first in reading order."""
    ny, nx = snr.shape
    sign = 1.0 if snr[y, x] > 0 else -1.0
    value = sign * snr[y, x]
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            v, u = y + dy, x + dx
            if (dy == 0 and dx == 0) or not (0 <= v < ny and 0 <= u < nx):
                continue
            other = sign * snr[v, u]
            if other > value or (other == value and (dy < 0 or (dy == 0 and dx < 0))):
                return 0
    return 1


def paint_signs(mask: IntArray, snr: F32, labels: NDArray[np.int32], *, positive: int, negative: int) -> IntArray:
    """Return the mask with one of two bits set on footprints, by the sign of the significance there."""
    painted = np.array(mask, np.int32) & ~np.int32(positive | negative)
    _paint(painted, snr, labels, np.int32(positive), np.int32(negative))
    return painted


@njit(cache=True, nogil=True)
def _paint(mask, snr, labels, positive, negative):  # type: ignore[no-untyped-def]
    ny, nx = mask.shape
    for y in range(ny):
        for x in range(nx):
            if labels[y, x] > 0:
                mask[y, x] |= positive if snr[y, x] >= 0 else negative
