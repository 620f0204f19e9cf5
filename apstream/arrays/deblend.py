"""Share the light of sources that overlap: stars by a joint fit of PSFs, extended ones by symmetric templates.

Stars are fitted together with their neighbours, fluxes and positions at once. Each star's equations are those of
`arrays.psf.fit_stamps`: for its flux the pixels near it count alike, so that the noise of its light does not bias it,
and for its position by their variance, which reaches the Cramer-Rao bound; errors are those of the joint solution.
Extended sources take part of each pixel's light in proportion to templates that are symmetric about the peak and fall
outwards, as the SDSS deblender does (Lupton 2005, "SDSS image processing I").
"""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, F64, BoolArray, IntArray, Records

__all__ = [
    "JOINT_DTYPE", "close_up", "fit_jointly", "neighbour_lists", "strip_order", "symmetric_templates",
    "template_shares",
]  # fmt: skip

_STRIP = 64  # rows of an image whose pixels around one column a cache holds

#: Corrections of a joint fit: of the flux, of the position times the flux, their errors, chi2 and pixels used.
JOINT_DTYPE = np.dtype([("flux", "f8"), ("fdy", "f8"), ("fdx", "f8"), ("flux_err", "f8"), ("fdy_err", "f8"),
                        ("fdx_err", "f8"), ("chi2", "f8"), ("n_pixels", "f8")])  # fmt: skip


def neighbour_lists(y: F64, x: F64, radius: float) -> tuple[IntArray, IntArray]:
    """Return starts and neighbours within `radius`, nearest first; of k: neighbours[starts[k] : starts[k + 1]]."""
    from scipy.spatial import cKDTree

    if len(y) < 2:
        return np.zeros(len(y) + 1, np.int64), np.zeros(0, np.int64)
    pairs = cKDTree(np.column_stack([y, x])).query_pairs(radius, output_type="ndarray")
    both = np.concatenate([pairs, pairs[:, ::-1]])
    gap = np.hypot(y[both[:, 0]] - y[both[:, 1]], x[both[:, 0]] - x[both[:, 1]])
    both = both[np.lexsort((both[:, 1], gap, both[:, 0]))]
    starts = np.searchsorted(both[:, 0], np.arange(len(y) + 1))
    return starts.astype(np.int64), np.ascontiguousarray(both[:, 1], np.int64)


def strip_order(y: F64, x: F64) -> IntArray:
    """Return an order of places along strips of rows: what is near in it is near in the image, and so in the cache."""
    return np.asarray(np.lexsort((x, np.floor_divide(y, _STRIP))), np.int64)


@njit(cache=True, nogil=True)
def close_up(cube: F32, rows: IntArray) -> None:
    """Move stamps to the front of `cube`, in place: rows[k], increasing, to k."""
    for k in range(len(rows)):
        if rows[k] != k:
            cube[k] = cube[rows[k]]


def fit_jointly(
    images: tuple[F32, F32],
    stars: tuple[F32, F64, F64],
    links: tuple[IntArray, IntArray],
    *,
    free: BoolArray,
    radius: float,
    most: int = 6,
    rows: IntArray | None = None,
) -> Records:
    """Fit corrections of flux and position of stars, those of their nearest neighbours being free with them.

    Parameters
    ----------
    images : pair of ndarray, shape (ny, nx), float32
        The image less all stars as known so far, and its variance; pixels whose variance is not positive and
        finite are not used.
    stars
        PSFs at the stars, shape (n, h, w), from `arrays.psf.psf_stamps`, and their y and x in array pixels.
    links
        From `neighbour_lists`.
    free : ndarray, shape (n,), bool
        False where the position is held.
    radius
        Pixels within this distance of a star give its equations.
    most
        Neighbours that are free with a star, the nearest.
    rows : ndarray of int, shape (m,)
        The stars to be fitted; None: all.

    Returns
    -------
    ndarray of JOINT_DTYPE, shape (m,)
        NaN where there are fewer than 9 pixels.
    """
    cube, y, x = stars
    rows = np.arange(len(cube)) if rows is None else np.asarray(rows, np.int64)
    out = np.full((len(rows), 8), np.nan)
    spots = np.column_stack([np.floor(y + 0.5), np.floor(x + 0.5)]).astype(np.int64)
    _fit_all(images, (cube, spots), links, rows, free, (float(radius), most), out)
    return out.view(JOINT_DTYPE).reshape(len(rows))


@njit(cache=True, nogil=True)
def _fit_all(images, stars, links, rows, free, limits, out):  # type: ignore[no-untyped-def]
    radius, most = limits
    group = np.empty(most + 1, np.int64)
    starts, others = links
    # a pair comes back in the group of every neighbour: its sums are kept, a star's own first, then those of links
    known = np.zeros(len(starts) + len(others), np.bool_)
    memory = np.empty((len(known), 23)), known
    for m in range(len(rows)):
        s = rows[m]
        group[0] = s
        n = 1
        for k in others[starts[s] : starts[s + 1]]:
            if n <= most:
                group[n] = k
                n += 1
        _fit_group((images, stars, links, memory, radius), group[:n], free, out[m])


@njit(cache=True, nogil=True)
def _fit_group(field, group, free, out):  # type: ignore[no-untyped-def]
    n = len(group)
    normal, noise, vector = np.zeros((3 * n, 3 * n)), np.zeros((3 * n, 3 * n)), np.zeros(3 * n)
    out[6], out[7] = 0.0, 0.0
    for a in range(n):
        _add_star(field, group, a, (normal, noise, vector), out)
    if out[7] < 9 or not normal[0, 0] > 0:
        out[:] = np.nan
        return
    for a in range(n):
        for k in range(3):
            own = 3 * a + k
            if not normal[own, own] > 0 or (k > 0 and not free[group[a]]):
                normal[own, :] = 0
                normal[:, own] = 0
                noise[own, :] = 0
                noise[:, own] = 0
                vector[own] = 0
                normal[own, own] = 1
            normal[own, own] *= 1 + 1e-7
    inverse = np.ascontiguousarray(np.linalg.inv(normal))
    for k in range(3):
        row = np.ascontiguousarray(inverse[k])
        out[k] = np.dot(row, vector)
        out[3 + k] = np.sqrt(max(np.dot(np.dot(row, noise), row), 0.0))


@njit(cache=True, nogil=True)
def _add_star(field, group, a, system, out):  # type: ignore[no-untyped-def]
    """Add the equations of member `a`: its pixels times all members."""
    for b in range(len(group)):
        sums = _pair_sums(field, group[a], group[b])
        for k in range(3):
            for m in range(3):
                system[0][3 * a + k, 3 * b + m] += sums[3 * k + m]
                system[1][3 * a + k, 3 * b + m] += sums[9 + 3 * k + m]
        if b == a:
            for k in range(3):
                system[2][3 * a + k] += sums[18 + k]
            if a == 0:
                out[6], out[7] = sums[21], sums[22]


@njit(cache=True, nogil=True)
def _pair_sums(field, one, two):  # type: ignore[no-untyped-def]
    """Return the sums of `_add_pair`, from memory where they are known."""
    images, stars, (starts, others), (table, known), radius = field
    place, scratch = one, len(starts) - 1
    if two != one:
        place = scratch
        for k in range(starts[one], starts[one + 1]):
            if others[k] == two:
                place = len(starts) + k
                break
    if not known[place]:
        _add_pair(images, stars, (one, two), radius, table[place])
        known[place] = place != scratch
    return table[place]


@njit(cache=True, nogil=True)
def _slopes(psf, i, j):  # type: ignore[no-untyped-def]
    """Return minus the slopes of a PSF at a pixel by five points, by three at its rim."""
    y, x = (psf[i - 1, j] - psf[i + 1, j]) / 2, (psf[i, j - 1] - psf[i, j + 1]) / 2
    if i < 2 or j < 2 or i >= psf.shape[0] - 2 or j >= psf.shape[1] - 2:
        return np.float64(y), np.float64(x)
    far_y, far_x = (psf[i - 2, j] - psf[i + 2, j]) / 4, (psf[i, j - 2] - psf[i, j + 2]) / 4
    return (4 * y - far_y) / 3, (4 * x - far_x) / 3


@njit(cache=True, nogil=True, error_model="numpy")
def _add_pair(images, stars, pair, radius, sums):  # type: ignore[no-untyped-def]
    """Write sums over the pixels of a star: its equations (PSF, minus its slopes over the variance) times the shapes
    of another star (PSF, minus its slopes).

    Elements 0 to 8: outer product; 9 to 17: that of both stars' equations times the variance, where the pixel is the
    other's too; 18 to 20: own equations times the residual; 21, 22: chi2 and count. A shape is zero outside its stamp.
    """
    residual, variance = images
    ny, nx = residual.shape
    one, two = stars[0][pair[0]], stars[0][pair[1]]
    (h, w), spots = one.shape, stars[1]
    row, col = spots[pair[0], 0], spots[pair[0], 1]
    down, aside = row - spots[pair[1], 0], col - spots[pair[1], 1]
    reach, limit, same = int(radius), radius * radius, pair[0] == pair[1]
    sums[:] = 0
    for r in range(max(0, row - reach, row - h // 2 + 1), min(ny, row + reach + 1, row + h // 2)):
        i = r - row + h // 2
        for c in range(max(0, col - reach, col - w // 2 + 1), min(nx, col + reach + 1, col + w // 2)):
            v = variance[r, c]
            if (r - row) ** 2 + (c - col) ** 2 > limit or not (v > 0 and v < np.inf):
                continue
            j = c - col + w // 2
            p, u = np.float64(one[i, j]), 1 / np.float64(v)
            gy, gx = _slopes(one, i, j)
            py, px = u * gy, u * gx
            if same:
                d = residual[r, c]
                sums[18] += p * d
                sums[19] += py * d
                sums[20] += px * d
                sums[21] += d * d / v
                sums[22] += 1
            s, t = i + down, j + aside
            if s < 1 or t < 1 or s >= h - 1 or t >= w - 1:
                continue
            q, (qy, qx) = np.float64(two[s, t]), (gy, gx) if same else _slopes(two, s, t)
            products = p * q, p * qy, p * qx, py * q, py * qy, py * qx, px * q, px * qy, px * qx
            near = same or (r - row + down) ** 2 + (c - col + aside) ** 2 <= limit
            for k in range(9):
                sums[k] += products[k]
            if near:  # the other's equations of its place, times the variance, are its slopes
                for k in (0, 3, 6):
                    sums[9 + k] += products[k] * v
                    sums[10 + k] += products[k + 1]
                    sums[11 + k] += products[k + 2]


def symmetric_templates(image: F32, y: IntArray, x: IntArray) -> F32:
    """Return templates of the sources with peaks at (y, x): symmetric about the peak, falling outwards.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        The light of a blend.
    y, x : ndarray of int, shape (n,)
        Peaks inside it.

    Returns
    -------
    ndarray, shape (n, ny, nx), float32
        The lesser of each pixel and its mirror image about the peak, not below zero, and nowhere above the
        highest of the neighbours that are nearer to the peak.
    """
    templates = np.zeros((len(y), *image.shape), np.float32)
    for k in range(len(y)):
        _mirror(image, int(y[k]), int(x[k]), templates[k])
        _fall(int(y[k]), int(x[k]), templates[k])
    return templates


@njit(cache=True, nogil=True)
def _mirror(image, y, x, out):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    for r in range(ny):
        for c in range(nx):
            v, u = 2 * y - r, 2 * x - c
            twin = image[v, u] if 0 <= v < ny and 0 <= u < nx else np.float32(0)
            out[r, c] = max(min(image[r, c], twin), np.float32(0))


@njit(cache=True, nogil=True)
def _fall(y, x, out):  # type: ignore[no-untyped-def]
    """Cut what rises outwards, ring of squares by ring: a pixel is not above those next to it on the way in."""
    ny, nx = out.shape
    far = max(max(y, ny - 1 - y), max(x, nx - 1 - x))
    for ring in range(1, far + 1):
        for r in range(max(0, y - ring), min(ny, y + ring + 1)):
            edge = abs(r - y) == ring
            step = 1 if edge else 2 * ring
            for c in range(x - ring, x + ring + 1, step):
                if c < 0 or c >= nx:
                    continue
                t = (ring - 1.0) / ring
                inner_y, inner_x = y + (r - y) * t, x + (c - x) * t
                limit = np.float32(0)
                for i in range(int(np.floor(inner_y)), int(np.ceil(inner_y)) + 1):
                    for j in range(int(np.floor(inner_x)), int(np.ceil(inner_x)) + 1):
                        limit = max(limit, out[i, j])
                out[r, c] = min(out[r, c], limit)


def template_shares(image: F32, templates: F32) -> F32:
    """Return the part of each pixel's light that belongs to each template, the parts of a pixel adding to one.

    Templates are scaled to fit the image together (least squares, none negative) before they share.
    """
    flat = templates.reshape(len(templates), -1).astype(float)
    normal, vector = flat @ flat.T, flat @ image.ravel().astype(float)
    normal[np.diag_indices(len(normal))] *= 1 + 1e-9
    weights = np.clip(np.linalg.lstsq(normal, vector, rcond=None)[0], 0.05, 1.5)
    scaled = templates * weights[:, None, None].astype(np.float32)
    total = scaled.sum(axis=0)
    even = np.float32(1 / len(templates))
    return np.where(total > 0, scaled / np.where(total > 0, total, 1), even).astype(np.float32)
