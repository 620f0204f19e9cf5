"""Adaptive second moments of sources on stamps (Bernstein & Jarvis 2002).

The Gaussian weight is stepped from row to row, whole rows at a time, without exponentials. The plain, slow equivalent
stands in the test.
"""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, F64, BoolArray, FloatArray, Records

__all__ = ["MOMENTS_DTYPE", "adaptive_moments", "principal_axes"]

#: Moments in pixel^2 of the best-fitting elliptical Gaussian; y, x are offsets from the middle pixel.
MOMENTS_DTYPE = np.dtype([("iyy", "f8"), ("ixx", "f8"), ("iyx", "f8"), ("y", "f8"), ("x", "f8"), ("converged", "?")])

_ITERATIONS, _TOLERANCE, _REACH = 60, 2e-4, 4.0


def adaptive_moments(
    data: F32 | F64,
    good: BoolArray,
    *,
    y: FloatArray,
    x: FloatArray,
    start: FloatArray,
    sign: FloatArray | None = None,
) -> Records:
    """Measure second moments with an elliptical Gaussian weight matched to the source.

    Parameters
    ----------
    data : ndarray, shape (n, side, side)
        Stamps.
    good : ndarray, shape (n, side, side), bool
        Pixels to use; the others take the value of the current Gaussian, which leaves the moments unbiased.
    y, x : ndarray, shape (n,)
        Centroids, offsets from the middle pixels; the centre moves with the weight.
    start : ndarray, shape (n,) or (n, 3)
        First guess of the variance per axis, pixel^2, or of iyy, ixx, iyx; such as those of the PSF.
    sign : ndarray, shape (n,)
        +1 or -1: negative sources are turned over. None: all are positive.

    Returns
    -------
    ndarray of MOMENTS_DTYPE
        Where the iteration does not converge, or leaves the stamp, moments are NaN.
    """
    out = np.zeros((len(data), 6))
    guess = np.asarray(start, float)
    out[:, :3] = guess if guess.ndim == 2 else guess[:, None] * np.array([1.0, 1.0, 0.0])
    out[:, 3], out[:, 4] = y, x
    _all(data, good, np.ones(len(data)) if sign is None else np.asarray(sign, float), out)
    results = np.zeros(len(data), MOMENTS_DTYPE)
    results["y"], results["x"], results["converged"] = out[:, 3], out[:, 4], out[:, 5] > 0
    for k, name in enumerate(("iyy", "ixx", "iyx")):
        results[name] = np.where(results["converged"], out[:, k], np.nan)
    return results


@njit(cache=True, nogil=True)
def _all(data, good, sign, out):  # type: ignore[no-untyped-def]
    side = data.shape[1]
    light, bad = np.empty((side, side)), np.empty((side * side, 2), np.int64)
    room, sums = np.empty((3, side)), np.empty(6)
    for n in range(len(data)):
        count = _take(data[n], good[n], sign[n], light, bad)
        _adapt(light, bad[:count], (room, sums), out[n])


@njit(cache=True, nogil=True)
def _take(data, good, sign, light, bad):  # type: ignore[no-untyped-def]
    """Write the good pixels to `light`, zero for the others, and the places of these to `bad`; return their number."""
    count = 0
    for i in range(len(data)):
        for j in range(len(data)):
            light[i, j] = sign * data[i, j] if good[i, j] else 0.0
        if not good[i].all():
            for j in range(len(data)):
                if not good[i, j]:
                    bad[count] = i, j
                    count += 1
    return count


@njit(cache=True, nogil=True)
def _adapt(light, bad, rooms, out):  # type: ignore[no-untyped-def]
    """Iterate; `out` holds iyy, ixx, iyx, y, x to begin and to end with, and whether they stand still."""
    half, limit, y0, x0 = len(light) // 2, (len(light) / 4.0) ** 2, out[3], out[4]
    found, step, past = np.empty(5), np.empty(5), np.zeros((2, 5))
    for k in range(_ITERATIONS):
        det = out[0] * out[1] - out[2] * out[2]
        if not det > 1e-6:
            return
        form, reach = (out[1] / det, out[0] / det, -out[2] / det), (_REACH * np.sqrt(out[0]), _REACH * np.sqrt(out[1]))
        _weighted(light, bad, (half + out[3], half + out[4]), form, reach, rooms)
        if not _match(rooms[1], out, det, found):
            return
        if max(found[0], found[1]) > limit or (found[3] - y0) ** 2 + (found[4] - x0) ** 2 > limit:
            return
        for i in range(5):
            step[i] = found[i] - out[i]
        still = abs(step[0]) + abs(step[1]) + abs(step[2]) < _TOLERANCE * (out[0] + out[1])
        if still and abs(step[3]) + abs(step[4]) < 2e-3:
            out[:5], out[5] = found, 1
            return
        _advance(found, step, past, k, out)


@njit(cache=True, nogil=True)
def _match(sums, now, det, found):  # type: ignore[no-untyped-def]
    """Write the Gaussian that has these sums under the weight `now`; tell whether there is one."""
    if not sums[0] > 0:
        return False
    my, mx = sums[1] / sums[0], sums[2] / sums[0]
    yy, xx, yx = sums[3] / sums[0] - my * my, sums[4] / sums[0] - mx * mx, sums[5] / sums[0] - my * mx
    inner = yy * xx - yx * yx
    if not (inner > 1e-6 and yy > 0 and xx > 0):
        return False
    # M = C/2 for a Gaussian seen through its own weight: C = 2 M, reached by undoing the weight.
    a, b, c = xx / inner - now[1] / det, yy / inner - now[0] / det, -yx / inner + now[2] / det
    both = a * b - c * c
    if both > 1e-9 and a > 0 and b > 0:
        found[0], found[1], found[2] = min(b / both, 3 * now[0]), min(a / both, 3 * now[1]), -c / both
    else:  # wider than any Gaussian seen through this weight
        found[0], found[1], found[2] = 1.5 * now[0], 1.5 * now[1], 1.5 * now[2]
    if not found[0] * found[1] > found[2] * found[2]:
        found[2] = 0.0
    found[3], found[4] = now[3] + 2 * my, now[4] + 2 * mx
    return True


@njit(cache=True, nogil=True)
def _advance(found, step, past, k, now):  # type: ignore[no-untyped-def]
    """Go on from where a step led, farther than there by what it was shorter than the last (Anderson 1965)."""
    top, bottom = 0.0, 0.0
    for i in range(5):
        change = step[i] - past[1, i]
        top += step[i] * change
        bottom += change * change
    mix = min(max(top / bottom, -3.0), 0.5) if k > 0 and bottom > 0 else 0.0
    for i in range(5):
        now[i] = found[i] - mix * (found[i] - past[0, i])
        past[0, i], past[1, i] = found[i], step[i]
    least = 0.2 * (found[0] * found[1] - found[2] * found[2])
    if not (now[0] > 0 and now[1] > 0 and now[0] * now[1] - now[2] * now[2] > least):
        now[:5] = found


@njit(cache=True, nogil=True)
def _weighted(light, bad, centre, form, reach, rooms):  # type: ignore[no-untyped-def]
    """Sum light, its first and second moments under exp(-q / 2), q = ayy dy^2 + axx dx^2 + 2 ayx dy dx, in a box."""
    (room, sums), side = rooms, len(light)
    sums[:] = 0
    i0, i1 = max(0, int(centre[0] - reach[0])), min(side, int(centre[0] + reach[0]) + 2)
    j0, j1 = max(0, int(centre[1] - reach[1])), min(side, int(centre[1] + reach[1]) + 2)
    if i0 >= i1 or j0 >= j1:
        return
    middle = min(max(int(centre[0] + 0.5), i0), i1 - 1)
    box, rows = light[:, j0:j1], room[:, : j1 - j0]
    dy, dx = middle - centre[0], j0 - centre[1]
    _first_row(form, dy, dx, rows[0])
    rows[1] = rows[0]
    # a row's weights are those of the one before times a factor of the row and one of the column
    _powers(np.exp(-form[2] * dx), np.exp(-form[2]), rows[2])
    _step_rows(box, (middle, i1, 1), (dy, dx), form[0], (rows[0], rows[2]), sums)
    _powers(np.exp(form[2] * dx), np.exp(form[2]), rows[2])
    _step_rows(box, (middle, i0 - 1, -1), (dy, dx), form[0], (rows[1], rows[2]), sums)
    if len(bad):
        _fill_bad(bad, (i0, i1, j0, j1), centre, form, sums)


@njit(cache=True, nogil=True)
def _powers(first, ratio, out):  # type: ignore[no-untyped-def]
    for j in range(len(out)):
        out[j] = first
        first *= ratio


@njit(cache=True, nogil=True)
def _step_rows(light, rows, corner, ayy, factors, sums):  # type: ignore[no-untyped-def]
    """Add the sums of rows outward from the middle one, which goes down with the first sweep only.

    Outward the weight falls, so that what is lost below the least number there is is lost for good.
    """
    (first, end, step), (dy, dx), (weight, across) = rows, corner, factors
    down, inner = np.exp(-0.5 * ayy * (1 + 2 * step * dy)), np.exp(-ayy)
    if step < 0:
        for j in range(len(weight)):
            weight[j] *= across[j] * down
        first, down, dy = first - 1, down * inner, dy - 1
    for i in range(first, end, step):
        s0, s1, s2 = _sum_row(light[i], weight, across, down, dx)
        sums[0] += s0
        sums[1] += s0 * dy
        sums[2] += s1
        sums[3] += s0 * dy * dy
        sums[4] += s2
        sums[5] += s1 * dy
        down *= inner
        dy += step


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _sum_row(line, weight, across, down, dx):  # type: ignore[no-untyped-def]
    """Return sums of w f, w f dx, w f dx^2, and step the weight."""
    s0, s1, s2 = 0.0, 0.0, 0.0
    for j in range(len(weight)):
        gap, part = dx + j, weight[j] * line[j]
        s0 += part
        s1 += part * gap
        s2 += part * (gap * gap)
        weight[j] *= across[j] * down
    return s0, s1, s2


@njit(cache=True, nogil=True)
def _first_row(form, dy, dx, weight):  # type: ignore[no-untyped-def]
    """Write the weights of a row whose first pixel is at (dy, dx), stepping outward from the column of the centre."""
    ayy, axx, ayx = form
    middle = min(max(int(0.5 - dx), 0), len(weight) - 1)
    gap, inner = dx + middle, np.exp(-axx)
    weight[middle] = np.exp(-0.5 * (ayy * dy * dy + axx * gap * gap) - ayx * dy * gap)
    ratio = np.exp(-0.5 * axx * (1 + 2 * gap) - ayx * dy)
    for j in range(middle + 1, len(weight)):
        weight[j] = weight[j - 1] * ratio
        ratio *= inner
    ratio = np.exp(-0.5 * axx * (1 - 2 * gap) + ayx * dy)
    for j in range(middle - 1, -1, -1):
        weight[j] = weight[j + 1] * ratio
        ratio *= inner


@njit(cache=True, nogil=True)
def _fill_bad(bad, box, centre, form, sums):  # type: ignore[no-untyped-def]
    """Add bad pixels as the Gaussian that fits the good ones has them."""
    i0, i1, j0, j1 = box
    power = 0.0
    for i in range(i0, i1):
        for j in range(j0, j1):
            power += _weight(i - centre[0], j - centre[1], form) ** 2
    for k in range(len(bad)):
        if i0 <= bad[k, 0] < i1 and j0 <= bad[k, 1] < j1:
            power -= _weight(bad[k, 0] - centre[0], bad[k, 1] - centre[1], form) ** 2
    amplitude = sums[0] / power if power > 1e-9 else 0.0
    for k in range(len(bad)):
        if i0 <= bad[k, 0] < i1 and j0 <= bad[k, 1] < j1:
            dy, dx = bad[k, 0] - centre[0], bad[k, 1] - centre[1]
            value = amplitude * _weight(dy, dx, form) ** 2
            sums[0] += value
            sums[1] += value * dy
            sums[2] += value * dx
            sums[3] += value * dy * dy
            sums[4] += value * dx * dx
            sums[5] += value * dy * dx


@njit(cache=True, nogil=True)
def _weight(dy, dx, form):  # type: ignore[no-untyped-def]
    return np.exp(-0.5 * (form[0] * dy * dy + form[1] * dx * dx) - form[2] * dy * dx)


def principal_axes(iyy: FloatArray, ixx: FloatArray, iyx: FloatArray) -> tuple[F64, F64, F64]:
    """Return major and minor variance and the angle of the major axis in radians, from +x towards +y."""
    mean, half = (iyy + ixx) / 2, (ixx - iyy) / 2
    root = np.hypot(half, iyx)
    return (
        np.asarray(mean + root, float),
        np.asarray(mean - root, float),
        np.asarray(np.arctan2(iyx, half) / 2, float),
    )
