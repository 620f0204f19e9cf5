"""Bias levels and read noise from overscans, robust to hot columns and to charge that trails into them.

A serial overscan is given as it lies, ``shape (ny, n)``: one line for each row of the image. A parallel overscan is
given transposed, one line for each column.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import chebyshev, legendre

from apstream.arrays.compiled import njit
from apstream.arrays.stats import clip_mask, clipped_median, mad_sigma
from apstream.arrays.types import F32, F64, BoolArray, FloatArray

__all__ = [
    "constant_levels",
    "line_levels",
    "line_means",
    "overscan_noise",
    "polynomial_levels",
    "smoothed_levels",
    "spline_levels",
    "trailed_lines",
]

#: Lines of the running median that a trailed line is compared with.
_NEIGHBOURS = 101
_FITS = {"chebyshev": (chebyshev.chebfit, chebyshev.chebval), "legendre": (legendre.legfit, legendre.legval)}


def line_levels(overscan: F32) -> F32:
    """Return the clipped mean of each line, without columns that stand off from the others.

    Parameters
    ----------
    overscan : ndarray, shape (ny, n), float32
        ADU; NaN is ignored. Columns whose median stands off (hot, or settling after the image) are left out.

    Returns
    -------
    ndarray, shape (ny,), float32
        NaN where a line has no finite pixel.
    """
    return line_means(overscan[:, _steady_columns(overscan)])


def line_means(lines: FloatArray, *, n_sigma: float = 3.0) -> F32:
    """Return the mean of each line's values within `n_sigma` of its median; the scatter is that typical of all lines.

    Its noise is four fifths of a median's, and it knows steps smaller than those of whole numbers.

    Parameters
    ----------
    lines : ndarray, shape (n, m)
        NaN is ignored; a line without finite values gives NaN.

    Returns
    -------
    ndarray, shape (n,), float32
    """
    lines = np.ascontiguousarray(lines, np.float32)
    middle = _line_medians(lines) if lines.shape[1] <= 128 else _long_medians(lines)
    deviation = np.abs(lines - middle[:, None]).ravel()
    deviation = deviation[np.isfinite(deviation)][:: max(1, deviation.size // 20_000)]
    sigma = 1.4826 * float(np.median(deviation)) if deviation.size else 1.0
    return np.asarray(_means_within(lines, middle, np.float32(n_sigma * max(sigma, 0.4))))


def _long_medians(lines: F32) -> F32:
    ordered, counts = np.sort(lines, axis=1), np.isfinite(lines).sum(axis=1)
    at = np.arange(len(lines))
    low, high = np.maximum(counts - 1, 0) // 2, counts // 2
    middle = (ordered[at, low] + ordered[at, np.minimum(high, lines.shape[1] - 1)]) / 2
    return np.asarray(np.where(counts > 0, middle, np.nan), np.float32)


@njit(cache=True, nogil=True)
def _line_medians(lines: F32) -> F32:
    out = np.full(len(lines), np.nan, np.float32)
    values = np.empty(lines.shape[1], np.float32)
    for r in range(len(lines)):
        n = 0
        for v in lines[r]:
            if np.isfinite(v):
                at = n  # lines are short: sort by insertion
                while at > 0 and values[at - 1] > v:
                    values[at] = values[at - 1]
                    at -= 1
                values[at] = v
                n += 1
        if n:
            out[r] = (values[(n - 1) // 2] + values[n // 2]) / np.float32(2)
    return out


@njit(cache=True, nogil=True)
def _means_within(lines: F32, middle: F32, width: float) -> F32:
    out = middle.copy()
    for r in range(len(lines)):
        total, n = 0.0, 0
        for v in lines[r]:
            if abs(v - middle[r]) <= width:
                total += v
                n += 1
        if n:
            out[r] = total / n
    return out


def trailed_lines(overscan: F32, levels: F32, *, n_sigma: float = 10.0) -> BoolArray:
    """Return True for lines into which charge of the image has run.

    Such a line stands above its neighbours, and falls along the line or does so by far. One that is as high from end
    to end has another bias, which its image pixels share, and is left alone.

    Parameters
    ----------
    overscan, levels
        As given to and returned by `line_levels`.
    """
    from scipy.ndimage import median_filter

    finite = np.isfinite(levels)
    if finite.sum() < 3:
        return np.zeros(len(levels), bool)
    filled = np.where(finite, levels, np.median(levels[finite])).astype(np.float32)
    excess = filled - median_filter(filled, min(_NEIGHBOURS, len(levels)), mode="nearest")
    sigma = max(mad_sigma(excess), 0.05)
    high = finite & (excess > n_sigma * sigma)
    at, half = np.flatnonzero(high), overscan.shape[1] // 2
    if half < 2 or not len(at):
        return np.asarray(high)
    fall = line_means(overscan[at, :half]) - line_means(overscan[at, -half:])
    high[at] = (np.abs(fall) > 0.2 * excess[at]) | (excess[at] > 1000.0)
    return np.asarray(high)


def constant_levels(levels: F32) -> F32:
    """Return the median of the lines for all of them; NaN if there is none."""
    finite = levels[np.isfinite(levels)]
    return np.full(len(levels), np.median(finite) if finite.size else np.nan, np.float32)


def smoothed_levels(levels: F32, bad: BoolArray, *, smooth_lines: int = 1) -> F32:
    """Return the lines' own levels, a running mean over an odd number of them, or 1: as they are.

    Lines that are `bad` or not finite take the median of the lines around them.
    """
    usable = np.isfinite(levels) & ~bad
    if not usable.any():
        return constant_levels(levels)
    out = levels.copy()
    lines = np.arange(len(levels))
    for line in lines[~usable]:
        near = lines[usable][np.argsort(np.abs(lines[usable] - line), kind="stable")[:9]]
        out[line] = np.median(levels[near])
    if smooth_lines > 1:
        padded = np.pad(out, smooth_lines // 2, mode="edge")
        out = np.convolve(padded, np.full(smooth_lines, 1 / smooth_lines), mode="valid").astype(np.float32)
    return out


def spline_levels(levels: F32, bad: BoolArray, *, n_sigma: float = 3.0) -> F32:
    """Fit a cubic smoothing spline through the levels: as smooth as their scatter from line to line allows.

    Source: Dierckx 1975 (FITPACK); its residuals' sum of squares is what independent noise of that scatter gives, less
    its own scatter. Lines that are `bad` or not finite are left out of the fit, and such as stand `n_sigma` off from
    the lines around them; all lines together may stand off from a first fit, and are followed.
    """
    from scipy.interpolate import splev, splrep
    from scipy.ndimage import median_filter

    x = np.linspace(-1, 1, len(levels))
    keep = np.isfinite(levels) & ~bad
    if keep.sum() < 8:
        return constant_levels(levels)
    values = levels[keep].astype(float)
    alone = values - median_filter(values, 9, mode="nearest")
    keep[keep] = clip_mask(alone, n_sigma=n_sigma + 1, floor=1e-3)
    values = levels[keep].astype(float)
    sigma = max(mad_sigma(np.diff(values)) / np.sqrt(2), 1e-3)
    wanted = len(values) - np.sqrt(2 * len(values))
    spline = splrep(x[keep], values, w=np.full(len(values), 1 / sigma), s=wanted, quiet=1)
    return np.asarray(splev(x, spline), np.float32)


def polynomial_levels(levels: F32, bad: BoolArray, *, family: str, order: int, n_sigma: float = 3.0) -> F32:
    """Fit a polynomial through the levels, clipped; lines that are `bad` or not finite are left out of the fit.

    Parameters
    ----------
    family
        ``chebyshev`` or ``legendre``.
    order
        Degree; one that the lines do not determine is lowered.
    """
    fit, value = _FITS[family]
    x = np.linspace(-1, 1, len(levels))
    usable = np.isfinite(levels) & ~bad
    keep = usable.copy()
    out: F64 = constant_levels(levels).astype(float)
    for _ in range(5):
        if not keep.any():
            break
        out = np.asarray(value(x, fit(x[keep], levels[keep].astype(float), min(order, int(keep.sum()) - 1))))
        new = usable & clip_mask(np.where(usable, levels - out, np.nan), n_sigma=n_sigma, floor=1e-3)
        if np.array_equal(new, keep):
            break
        keep = new
    return np.asarray(out, np.float32)


def overscan_noise(overscan: F32) -> float:
    """Return the read noise seen in an overscan, ADU: clipped scatter about the means of its lines and columns.

    What is common to a line is its level, what is common to a column is fixed: neither is noise. NaN if there are not
    two columns with finite pixels; zero if nothing scatters.
    """
    steady = overscan[:, _steady_columns(overscan)]
    if steady.shape[1] < 2:
        steady = overscan
    lines, columns = steady.shape
    if columns < 2 or not np.isfinite(steady).any():
        return float("nan")
    rest = steady - line_means(steady)[:, None]
    if lines > 2:
        rest -= line_means(rest.T)[None, :]
    values = rest[np.isfinite(rest)]
    # Whole numbers of small scatter have a median deviation of zero: do not clip below a step or two.
    kept = values[clip_mask(values, n_sigma=5.0, floor=0.4)]
    dof = (1 - 1 / columns) * (1 - 1 / lines if lines > 2 else 1)
    return float(np.std(kept, dtype=np.float64) / np.sqrt(dof)) if kept.size else float("nan")


def _steady_columns(overscan: F32) -> BoolArray:
    """Return True for columns whose median agrees with the others'."""
    sample = overscan[:: max(1, len(overscan) // 512)]
    medians = np.sort(sample, axis=0)[len(sample) // 2] if np.isfinite(sample).all() else clipped_median(sample.T)
    finite = sample[np.isfinite(sample)]
    # The median of a column scatters by a small part of sigma; one that stands off by half of it is no overscan.
    floor = max(0.1 * mad_sigma(finite), 0.1) if finite.size else 1.0
    steady = clip_mask(medians, n_sigma=5.0, floor=floor)
    return steady if steady.any() else np.ones(overscan.shape[1], bool)
