"""The sky: a mesh of clipped modes, evaluated by natural cubic splines."""

from __future__ import annotations

import numpy as np
import sep

from apstream.arrays.compiled import njit
from apstream.arrays.stats import nth_value
from apstream.arrays.types import F32, F64, BoolArray

__all__ = ["evaluate_mesh", "measure_mesh", "remaining_mesh", "subtract_mesh"]

_ROWS = 64  # worked on at a time: what a processor's cache holds
_ENOUGH = 500  # pixels that tell a first median and width


def measure_mesh(image: F32, bad: BoolArray, *, cell: int, smooth: int = 3) -> tuple[F32, F32]:
    """Measure the sky and its noise in square cells with sep (SExtractor's clipped mode).

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Values under `bad` may be anything, NaN too.
    bad : ndarray, shape (ny, nx), bool
        True where the pixel must not be used. A cell with fewer than half its pixels left takes its
        neighbours' value.
    cell
        Side of the cells, pixels.
    smooth
        Side of the median filter over the mesh, in cells.

    Returns
    -------
    mesh, rms : ndarray, shape (ceil(ny / cell), ceil(nx / cell)), float32
        At the cells' centres, (i + 0.5) cell - 0.5.
    """
    clean = np.ascontiguousarray(image, np.float32)
    wrong = ~np.isfinite(clean)
    if wrong.any():
        clean = np.where(wrong, np.float32(0), clean)
        bad = bad | wrong
    cell = min(cell, *image.shape)
    sky = sep.Background(clean, mask=np.ascontiguousarray(bad), bw=cell, bh=cell, fw=smooth, fh=smooth)
    return _at_centers(sky.back(dtype=np.float32), cell), _at_centers(sky.rms(dtype=np.float32), cell)


def _at_centers(values: F32, cell: int) -> F32:
    """Return `values` at the centres of the cells (means of the four pixels around, or the nearest ones)."""
    rows, cols = (np.arange(-(-n // cell)) * cell + (cell - 1) / 2 for n in values.shape)
    low = [np.minimum(np.floor(c).astype(int), n - 1) for c, n in zip((rows, cols), values.shape, strict=True)]
    high = [np.minimum(np.ceil(c).astype(int), n - 1) for c, n in zip((rows, cols), values.shape, strict=True)]
    total = sum(values[np.ix_(r, c)].astype(np.float64) for r in (low[0], high[0]) for c in (low[1], high[1]))
    return np.asarray(total / 4, np.float32)


def _spline_matrix(length: int, cells: int, cell: int) -> F32:
    """Return the matrix (length, cells) from values at cell centres to pixels; straight beyond the outer centres."""
    from scipy.interpolate import CubicSpline

    if cells == 1:
        return np.ones((length, 1), np.float32)
    nodes = np.minimum(np.arange(cells) * cell + (cell - 1) / 2, length - 1.0)
    pixels = np.arange(length, dtype=float)
    inside = np.clip(pixels, nodes[0], nodes[-1])
    spline = CubicSpline(nodes, np.eye(cells), bc_type="natural")
    matrix: F64 = spline(inside) + (pixels - inside)[:, None] * spline(inside, 1)
    return np.asarray(matrix, np.float32)


def evaluate_mesh(mesh: F32, *, cell: int, shape: tuple[int, int]) -> F32:
    """Evaluate a mesh of values at cell centres on all pixels of an array of `shape`."""
    cell = min(cell, *shape)
    rows = _spline_matrix(shape[0], mesh.shape[0], cell)
    cols = _spline_matrix(shape[1], mesh.shape[1], cell)
    return np.asarray((rows @ mesh.astype(np.float32)) @ cols.T, np.float32)


def subtract_mesh(image: F32, mesh: F32, *, cell: int) -> None:
    """Subtract what `evaluate_mesh` gives from an image in place, some rows at a time."""
    cell = min(cell, *image.shape)
    rows = _spline_matrix(image.shape[0], mesh.shape[0], cell) @ mesh.astype(np.float32)
    cols = np.ascontiguousarray(_spline_matrix(image.shape[1], mesh.shape[1], cell).T)
    for first in range(0, len(image), _ROWS):
        image[first : first + _ROWS] -= rows[first : first + _ROWS] @ cols


def remaining_mesh(image: F32, bad: BoolArray, variance: F32, *, cell: int, least: float = 0.25) -> F32:
    """Measure what is left of the sky in a background-subtracted image: clipped means in the cells of its mesh.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Finite.
    bad : ndarray, shape (ny, nx), bool
        Pixels not to use, those of sources above all.
    variance : ndarray, shape (ny, nx), float32
        Pixels where it is not positive are not used either.
    cell
        Side of the cells, pixels; every second pixel in y and x is looked at.
    least
        A cell with a smaller part of its pixels left takes the median of its neighbours.

    Returns
    -------
    ndarray, shape (ceil(ny / cell), ceil(nx / cell)), float32
        Smoothed by a 3 x 3 median; for `evaluate_mesh`.
    """
    cell = min(cell, *image.shape)
    mesh = np.full((-(-image.shape[0] // cell), -(-image.shape[1] // cell)), np.nan, np.float32)
    _remaining((image, bad, variance), cell, least, mesh)
    for _ in range(max(mesh.shape)):
        if not np.isnan(mesh).any():
            break
        mesh = np.where(np.isnan(mesh), _medians(mesh), mesh)
    return _medians(np.nan_to_num(mesh))


def _medians(mesh: F32) -> F32:
    padded = np.pad(mesh, 1, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(*mesh.shape, 9)
    known = ~np.isnan(windows).all(axis=2)
    out = np.full(mesh.shape, np.nan, np.float32)
    out[known] = np.nanmedian(windows[known], axis=1)
    return out


@njit(cache=True, nogil=True)
def _remaining(planes, cell, least, mesh):  # type: ignore[no-untyped-def]
    image, bad, variance = planes
    ny, nx = image.shape
    values = np.empty(((cell + 1) // 2) ** 2, np.float32)
    for a in range(mesh.shape[0]):
        for b in range(mesh.shape[1]):
            count, seen = 0, 0
            for y in range(a * cell, min(ny, (a + 1) * cell), 2):
                for x in range(b * cell, min(nx, (b + 1) * cell), 2):
                    seen += 1
                    if not bad[y, x] and variance[y, x] > 0:
                        values[count] = image[y, x]
                        count += 1
            if count < max(least * seen, 20):
                continue
            middle, width = _clipped(values[: count : max(1, count // _ENOUGH)])
            # counts are whole numbers and so would the median be: the mean of what lies next to it is not
            for _ in range(3):
                middle = _core_mean(values[:count], middle, 1.5 * width)
            mesh[a, b] = middle


@njit(cache=True, nogil=True)
def _clipped(values):  # type: ignore[no-untyped-def]
    """Median and width once what is far from the median has been left out."""
    middle, width = _middle(values)
    for _ in range(3):
        kept = values[np.abs(values - middle) <= 3 * width]
        if len(kept) < 20 or width == 0:
            break
        values = kept
        middle, width = _middle(values)
    return middle, width


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _core_mean(values, middle, reach):  # type: ignore[no-untyped-def]
    total, count = 0.0, np.int32(0)
    for i in range(len(values)):
        off = values[i] - middle
        inside = abs(off) <= reach
        total += off if inside else 0.0
        count += np.int32(inside)
    return middle + total / count if count else middle


@njit(cache=True, nogil=True)
def _middle(values):  # type: ignore[no-untyped-def]
    """Median, and the width of a Gaussian from what lies below it, where sources do not reach."""
    middle = nth_value(values, len(values) // 2)
    below = middle - values[values < middle]
    return middle, (nth_value(below, len(below) // 2) * 1.482602 if len(below) else 0.0)
