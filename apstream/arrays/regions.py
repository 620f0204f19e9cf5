"""Connected regions as runs of pixels, and the peaks in them that stand out.

No image of labels is made: a region is looked up by row and column among the runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.masks import tell_above
from apstream.arrays.types import F32, F64, BoolArray, IntArray

__all__ = ["Regions", "compact_regions", "find_regions", "prominent", "refine_peaks", "regions_around"]

_ALL = np.uint64(0x0101010101010101)  # eight times True


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Connected regions (8 neighbours), numbered from 1 in scan order.

    Parameters
    ----------
    first : ndarray of int, shape (ny + 1,)
        First run of each row.
    runs : ndarray of int, shape (n, 3)
        First column, column after the last, number of the region.
    count
        Number of regions.
    """

    first: IntArray
    runs: IntArray
    count: int

    def at(self, y: IntArray, x: IntArray) -> IntArray:
        """Return the region of each pixel, 0 where there is none."""
        out = np.zeros(len(y), np.int64)
        _look_up(self.first, self.runs, np.asarray(y, np.int64), np.asarray(x, np.int64), out)
        return out


def find_regions(image: F32, threshold: float) -> Regions:
    """Find the connected regions of pixels above `threshold`; plain equivalent: scipy.ndimage.label.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Such as a significance map, or a mask of zeros and ones.
    """
    first, runs = _runs(image, image.dtype.type(threshold) if image.dtype.kind == "f" else threshold)
    parent = np.arange(len(runs))
    _join(first, runs, parent)
    count = int(_number(parent, runs))
    return Regions(first, runs, count)


@njit(cache=True, nogil=True)
def _runs(image, threshold):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    first = np.zeros(ny + 1, np.int64)
    runs, n = np.zeros((1024, 3), np.int64), 0
    above = np.zeros((nx + 7) // 8 * 8, np.uint8)
    words = above.view(np.uint64)
    for r in range(ny):
        if n + nx // 2 + 1 > len(runs):
            more = np.zeros((2 * len(runs) + nx, 3), np.int64)
            more[:n] = runs[:n]
            runs = more
        tell_above(image[r], threshold, above)
        inside, whole = False, np.uint64(0)
        for k in range(len(words)):
            if words[k] == whole:  # nothing begins or ends in these eight pixels
                continue
            for c in range(8 * k, 8 * k + 8):
                if above[c] and not inside:
                    runs[n, 0] = c
                if inside and not above[c]:
                    runs[n, 1] = c
                    n += 1
                inside = above[c] > 0
            whole = _ALL if inside else np.uint64(0)
        if inside:  # up to the border, where there are no pixels to fill the last eight
            runs[n, 1] = nx
            n += 1
        first[r + 1] = n
    return first, runs[:n].copy()


@njit(cache=True, nogil=True)
def _root(parent, n):  # type: ignore[no-untyped-def]
    while parent[n] != n:
        parent[n] = parent[parent[n]]
        n = parent[n]
    return n


@njit(cache=True, nogil=True)
def _join(first, runs, parent):  # type: ignore[no-untyped-def]
    for r in range(1, len(first) - 1):
        above, end = first[r - 1], first[r]
        for n in range(first[r], first[r + 1]):
            while above < end and runs[above, 1] < runs[n, 0]:
                above += 1
            k = above
            while k < end and runs[k, 0] <= runs[n, 1]:
                a, b = _root(parent, k), _root(parent, n)
                if a < b:
                    parent[b] = a
                elif b < a:
                    parent[a] = b
                k += 1


@njit(cache=True, nogil=True)
def _number(parent, runs):  # type: ignore[no-untyped-def]
    count = 0
    for n in range(len(parent)):
        root = _root(parent, n)
        if root == n:
            count += 1
            runs[n, 2] = count
        else:
            runs[n, 2] = runs[root, 2]
    return count


@njit(cache=True, nogil=True)
def _look_up(first, runs, y, x, out):  # type: ignore[no-untyped-def]
    for s in range(len(y)):
        low, high = first[y[s]], first[y[s] + 1]
        while low < high:
            middle = (low + high) // 2
            if runs[middle, 1] <= x[s]:
                low = middle + 1
            else:
                high = middle
        if low < first[y[s] + 1] and runs[low, 0] <= x[s]:
            out[s] = runs[low, 2]


def regions_around(image: F32, threshold: float, y: IntArray, x: IntArray) -> BoolArray:
    """Return True on the connected regions above `threshold` that hold one of the pixels (y, x)."""
    regions = find_regions(image, threshold)
    out, chosen = np.zeros(image.shape, np.bool_), np.zeros(regions.count + 1, np.bool_)
    chosen[regions.at(y, x)] = True
    _paint(regions.first, regions.runs, chosen, out)
    return out


def compact_regions(flags: BoolArray, longest: float) -> BoolArray:
    """Return `flags` without the regions whose boxes are longer than `longest` pixels in y or x."""
    regions = find_regions(flags.view(np.uint8), 0.5)
    out = np.zeros(flags.shape, np.bool_)
    boxes = np.zeros((regions.count + 1, 4), np.int64)
    boxes[:, 0] = boxes[:, 2] = 1 << 30
    _boxes(regions.first, regions.runs, boxes)
    short = np.maximum(boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]) <= longest
    _paint(regions.first, regions.runs, short, out)
    return out


@njit(cache=True, nogil=True)
def _boxes(first, runs, boxes):  # type: ignore[no-untyped-def]
    for r in range(len(first) - 1):
        for n in range(first[r], first[r + 1]):
            box = boxes[runs[n, 2]]
            box[0], box[1] = min(box[0], r), max(box[1], r + 1)
            box[2], box[3] = min(box[2], runs[n, 0]), max(box[3], runs[n, 1])


@njit(cache=True, nogil=True)
def _paint(first, runs, chosen, out):  # type: ignore[no-untyped-def]
    for r in range(len(first) - 1):
        for n in range(first[r], first[r + 1]):
            if chosen[runs[n, 2]]:
                out[r, runs[n, 0] : runs[n, 1]] = True


def prominent(snr: F32, y: IntArray, x: IntArray, starts: IntArray, neighbours: IntArray, least: float) -> BoolArray:
    """Tell which peaks rise by at least `least` above the way to every higher peak near them.

    The noise of a significance map is one, so bumps on the light of a bright source rise by 1 to 3.

    Parameters
    ----------
    snr : ndarray, shape (ny, nx)
    y, x : ndarray of int, shape (n,)
        Peaks, highest first.
    starts, neighbours
        The neighbours of peak k are ``neighbours[starts[k]:starts[k + 1]]``, see `arrays.deblend.neighbour_lists`.
    least
        In units of `snr`; the way is the straight line.
    """
    keep = np.ones(len(y), np.bool_)
    _prominent(snr, np.asarray(y, np.int64), np.asarray(x, np.int64), starts, neighbours, float(least), keep)
    return keep


@njit(cache=True, nogil=True)
def _prominent(snr, y, x, starts, neighbours, least, keep):  # type: ignore[no-untyped-def]
    for s in range(len(y)):
        height = snr[y[s], x[s]]
        for k in neighbours[starts[s] : starts[s + 1]]:
            if k >= s or not keep[k]:
                continue
            dy, dx = float(y[k] - y[s]), float(x[k] - x[s])
            steps = int(max(abs(dy), abs(dx)))
            lowest = height
            for t in range(1, steps):
                lowest = min(lowest, snr[int(y[s] + dy * t / steps + 0.5), int(x[s] + dx * t / steps + 0.5)])
            if height - lowest < least:
                keep[s] = False
                break


def refine_peaks(snr: F32, y: IntArray, x: IntArray) -> tuple[F64, F64]:
    """Return the peaks of the parabolas through each peak pixel and its neighbours, at most half a pixel away."""
    ny, nx = snr.shape
    r, c = np.clip(y, 1, ny - 2), np.clip(x, 1, nx - 2)
    middle = snr[r, c].astype(float)
    offsets = []
    for low, high in ((snr[r - 1, c], snr[r + 1, c]), (snr[r, c - 1], snr[r, c + 1])):
        curve = 2 * middle - low - high
        with np.errstate(divide="ignore", invalid="ignore"):
            offsets.append(np.clip(np.nan_to_num((high - low) / (2 * curve)), -0.5, 0.5))
    return r + offsets[0], c + offsets[1]
