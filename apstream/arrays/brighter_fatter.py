"""Undo the brighter-fatter effect: charge that has gathered pushes later charge into the neighbouring pixels."""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, F64

__all__ = ["moved_charge", "moved_charge_plain", "undo_brighter_fatter"]


def undo_brighter_fatter(
    image: F32, kernel: F64, *, max_iterations: int = 10, threshold: float = 1e-3
) -> tuple[F32, int]:
    """Return the image as it would be without the effect, and the number of iterations.

    Source: Coulton et al. 2018 (AJ 155, 258), equation 22: true = measured + 1/2 div(true grad(kernel * true)), by
    fixed-point iteration. Charge is taken across the borders of pixels, so that its sum stays as it is.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Electrons, before the flat. Pixels that are not finite stay so and push nothing.
    kernel : ndarray, shape (n, n), n odd
        1/electron, centred.
    threshold
        Iteration ends when no pixel changes by more than this fraction of the largest correction.
    """
    from scipy.signal import oaconvolve  # most of a second to import, and for cameras with such a kernel only

    measured = np.where(np.isfinite(image), image, np.float32(0))
    weights = np.ascontiguousarray(kernel, np.float32)
    true, moved = measured, np.zeros_like(measured)
    done = 0
    while done < max_iterations:
        done += 1
        new = moved_charge(true, oaconvolve(true, weights, mode="same").astype(np.float32, copy=False))
        largest = float(np.max(np.abs(new)))
        change = float(np.max(np.abs(new - moved)))
        moved, true = new, measured + new
        if change <= threshold * largest:
            break
    return np.where(np.isfinite(image), true, image), done


@njit(cache=True, nogil=True)
def moved_charge(image: F32, potential: F32) -> F32:
    """Return what each pixel gains: 1/2 div(image grad(potential)), nothing crossing the edges of the image.

    See Also
    --------
    moved_charge_plain : the same in numpy.
    """
    ny, nx = image.shape
    out = np.zeros((ny, nx), np.float32)
    quarter = np.float32(0.25)
    for r in range(ny):
        for c in range(nx):
            if c + 1 < nx:
                flow = quarter * (image[r, c] + image[r, c + 1]) * (potential[r, c + 1] - potential[r, c])
                out[r, c] += flow
                out[r, c + 1] -= flow
            if r + 1 < ny:
                flow = quarter * (image[r, c] + image[r + 1, c]) * (potential[r + 1, c] - potential[r, c])
                out[r, c] += flow
                out[r + 1, c] -= flow
    return out


def moved_charge_plain(image: F32, potential: F32) -> F64:
    """Return what `moved_charge` does, in numpy."""
    values, height = image.astype(float), potential.astype(float)
    out = np.zeros(values.shape)
    for axis in (0, 1):
        before, after = (tuple(slice(k, k - 1 or None) if a == axis else slice(None) for a in (0, 1)) for k in (0, 1))
        flow = (values[before] + values[after]) / 4 * (height[after] - height[before])
        out[before] += flow
        out[after] -= flow
    return out
