"""Paint sources onto pixels: an elliptical Moffat core with a faint power-law wing, evaluated per source.

The profile is the effective PSF (pixel response included), sampled at pixel centres; a core of index 3 and a
wing of index 2 need no power function, so a source costs a few nanoseconds per pixel. Galaxies are clouds of
point sources, so that every visit spreads exactly the same sky with its own PSF.
"""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, F64, FloatArray

__all__ = ["WING", "add_points", "effective_area", "galaxy_points", "psf_stamp"]

#: Share of the light in the wing, and the wing's scale relative to the core's.
WING, WING_SCALE = 0.06, 2.0
GOLDEN = np.pi * (3 - np.sqrt(5))


@njit(cache=True, nogil=True, error_model="numpy")
def _paint(image, y, x, flux, psf, threshold, max_radius):  # type: ignore[no-untyped-def]
    alpha, g1, g2 = psf
    ny, nx = image.shape
    steps = np.arange(nx).astype(np.float32)
    for i in range(y.size):
        a2 = alpha[i] * alpha[i]
        w2 = WING_SCALE * WING_SCALE * a2
        wing = flux[i] * WING / (np.pi * w2)
        core = flux[i] * (1 - WING) * 2 / (np.pi * a2)
        radius = WING_SCALE * alpha[i] * (abs(wing) / threshold) ** 0.25 + 2 * alpha[i]
        radius = min(max(radius, 5 * alpha[i]), max_radius)
        y0, y1 = max(0, int(np.ceil(y[i] - radius))), min(ny - 1, int(np.floor(y[i] + radius)))
        x0, x1 = max(0, int(np.ceil(x[i] - radius))), min(nx - 1, int(np.floor(x[i] + radius)))
        norm = 1 / np.sqrt(1 - g1[i] * g1[i] - g2[i] * g2[i])
        axx, axy, ayy = norm * (1 - g1[i]), -norm * g2[i], norm * (1 + g1[i])
        inv_a2, inv_w2 = np.float32(1 / a2), np.float32(1 / w2)
        c32, w32 = np.float32(core), np.float32(wing)
        one, ax, ay = np.float32(1), np.float32(axx), np.float32(axy)
        for yy in range(y0, y1 + 1):
            row, dy = image[yy, x0 : x1 + 1], yy - y[i]
            u0, v0 = np.float32(axx * (x0 - x[i]) + axy * dy), np.float32(axy * (x0 - x[i]) + ayy * dy)
            for k in range(row.size):  # single precision and no branch: the compiler makes vectors of it
                u, v = u0 + ax * steps[k], v0 + ay * steps[k]
                r2 = u * u + v * v
                a, w = one + r2 * inv_a2, one + r2 * inv_w2
                inverse = one / (a * w)
                p, q = w * inverse, a * inverse
                row[k] += c32 * p * p * p + w32 * q * q


def add_points(
    image: F32,
    y: FloatArray,
    x: FloatArray,
    flux: FloatArray,
    psf: tuple[FloatArray, FloatArray, FloatArray],
    *,
    threshold: float = 0.02,
) -> None:
    """Add point sources to `image` in place.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Changed in place.
    y, x, flux : ndarray, shape (n,)
        Positions (0-based) and total fluxes.
    psf
        Moffat alpha (pixels), shear g1 and g2, each of shape (n,).
    threshold
        A source is cut off where its surface brightness falls below this.
    """
    near = np.isfinite(y) & np.isfinite(x) & (flux != 0)
    ys, xs, fluxes, alpha, g1, g2 = (
        np.ascontiguousarray(np.asarray(a)[near], dtype=np.float64) for a in (y, x, flux, *psf)
    )
    _paint(image, ys, xs, fluxes, (alpha, g1, g2), threshold, float(max(image.shape)))


def psf_stamp(alpha: float, g1: float, g2: float, dy: float, dx: float, half: int = 25) -> F64:
    """Return the PSF on a (2 half + 1)^2 stamp, its centre off the middle pixel by (dy, dx)."""
    stamp = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    one = np.ones(1)
    add_points(stamp, half + dy * one, half + dx * one, one, (alpha * one, g1 * one, g2 * one), threshold=1e-12)
    return stamp.astype(float)


def effective_area(alpha: float, g1: float, g2: float) -> float:
    """Return 1 / sum(PSF^2), the noise-equivalent area in pixels."""
    return float(1 / np.sum(psf_stamp(alpha, g1, g2, 0.0, 0.0) ** 2))


def galaxy_points(radius: float, sersic: float, spacing: float) -> tuple[F64, F64, F64]:
    """Return unit-disc offsets (dy, dx) and weights of the points that stand for a round galaxy.

    Points lie on a sunflower spiral out to several half-light radii, denser inside, weighted by the profile
    times the area that each stands for. The number of points grows with the size, so that they blur into one.

    Parameters
    ----------
    radius
        Half-light radius, in the unit of the offsets.
    sersic
        1 for an exponential disc, 4 for a de Vaucouleurs bulge.
    spacing
        Largest mean distance of the points, same unit; about a third of the sharpest PSF.
    """
    b = 2 * sersic - 1 / 3
    extent = radius * (4.0 if sersic < 2 else 5.0)
    count = int(np.clip(np.pi * (extent / spacing) ** 2 / 2, 16, 3000))
    t = (np.arange(count) + 0.5) / count
    r = extent * t**0.75
    weight = np.exp(-b * (r / radius) ** (1 / sersic)) * r * t**-0.25
    angle = GOLDEN * np.arange(count)
    return r * np.sin(angle), r * np.cos(angle), weight / weight.sum()
