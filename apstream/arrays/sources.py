"""Find sources and measure them: from a background-subtracted image to a list with shapes and PSF fluxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep
from numba import njit

from apstream.arrays.moments import FWHM_PER_SIGMA, adaptive_moments
from apstream.arrays.peaks import find_peaks, footprints, gaussian_smooth, matched_noise
from apstream.arrays.psf import psf_fit, render_psf
from apstream.arrays.types import F32, F64, BoolArray, IntArray, Records

__all__ = ["Shapes", "Sky", "aperture_sums", "detect", "flags_near", "psf_photometry", "source_mask"]


@dataclass(frozen=True, slots=True, eq=False)
class Sky:
    """Noise of the sky on a mesh of `cell` pixels."""

    rms: F32
    cell: int

    def at(self, y: F64, x: F64) -> F64:
        """Return the noise at array positions."""
        rows = np.clip((y / self.cell).astype(int), 0, self.rms.shape[0] - 1)
        cols = np.clip((x / self.cell).astype(int), 0, self.rms.shape[1] - 1)
        return np.asarray(self.rms[rows, cols], np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Shapes:
    """Detected sources; arrays of one length, brightest peak first.

    Parameters
    ----------
    y, x
        Centroids, array pixels.
    flux, snr
        Of the matched Gaussian; NaN where the moments failed.
    sigma, minor
        Geometric mean and lesser axis of the matched Gaussian, pixels.
    ellipticity
        |e| with e = (xx - yy, 2 xy) / (xx + yy).
    peak
        Highest pixel.
    """

    y: F64
    x: F64
    flux: F64
    snr: F64
    sigma: F64
    minor: F64
    ellipticity: F64
    peak: F64

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: IntArray | BoolArray) -> Shapes:
        """Return the chosen rows."""
        return Shapes(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def detect(image: F32, bad: BoolArray, sky: Sky, *, fwhm: float, n_sigma: float, limit: int) -> Shapes:
    """Detect sources on the image smoothed by a Gaussian of `fwhm`, and measure their adaptive moments.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Background-subtracted, no NaN.
    bad : ndarray, shape (ny, nx), bool
        Left out of the moments; peaks may lie there (saturated stars do).
    n_sigma
        Threshold in standard deviations of the smoothed sky.
    limit
        Most sources kept, the brightest.
    """
    sigma = fwhm / FWHM_PER_SIGMA
    threshold = np.asarray(n_sigma * matched_noise(sky.rms, sigma), np.float32)
    rows, cols = find_peaks(
        gaussian_smooth(image, sigma), threshold, cell=sky.cell, radius=max(1, round(0.6 * fwhm))
    )
    rows, cols = rows[:limit], cols[:limit]
    found = adaptive_moments(image, bad, y=rows.astype(float), x=cols.astype(float), sigma=sigma)
    return _shapes(_unique(found, fwhm), sky)


def _unique(found: Records, fwhm: float) -> Records:
    """Drop moments that ran into a source listed before (brighter), within a third of the FWHM."""
    from scipy.spatial import cKDTree

    if len(found) < 2:
        return found
    pairs = cKDTree(np.column_stack([found["y"], found["x"]])).query_pairs(
        max(fwhm / 3, 0.7), output_type="ndarray"
    )
    keep = np.ones(len(found), bool)
    for i, j in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
        if keep[i]:
            keep[j] = False
    return found[keep]


def _shapes(found: Records, sky: Sky) -> Shapes:
    with np.errstate(invalid="ignore"):
        det = np.sqrt(found["yy"] * found["xx"] - found["xy"] ** 2)
        trace, e1, e2 = found["yy"] + found["xx"], found["xx"] - found["yy"], 2 * found["xy"]
        minor = np.sqrt(np.maximum(trace - np.hypot(e1, e2), 0) / 2)
        noise = sky.at(found["y"], found["x"])
        flux = found["flux"]
        snr = flux / np.sqrt(4 * np.pi * det * noise**2)
    return Shapes(
        found["y"], found["x"], flux, snr, np.sqrt(det), minor, np.hypot(e1, e2) / trace, found["peak"]
    )


def source_mask(
    image: F32, sky: Sky, *, fwhm: float, n_sigma: float, grow: int, most: float = 0.4
) -> BoolArray:
    """Return True on sources; the threshold rises until at most the fraction `most` is covered (crowded fields)."""
    sigma = fwhm / FWHM_PER_SIGMA
    smooth = gaussian_smooth(image, sigma)
    noise = matched_noise(sky.rms, sigma)
    while True:
        covered = footprints(smooth, np.asarray(n_sigma * noise, np.float32), cell=sky.cell, grow=grow)
        if covered.mean() <= most or not np.any(noise > 0):
            return covered
        n_sigma *= 1.6


@njit(cache=True, nogil=True)
def _flags_near(mask, y, x, radius, out):  # type: ignore[no-untyped-def]
    ny, nx = mask.shape
    for s in range(len(y)):
        r, c, reach = int(np.floor(y[s] + 0.5)), int(np.floor(x[s] + 0.5)), int(np.ceil(radius))
        for i in range(max(0, r - reach), min(ny, r + reach + 1)):
            for j in range(max(0, c - reach), min(nx, c + reach + 1)):
                if (i - r) ** 2 + (j - c) ** 2 <= radius * radius:
                    out[s] |= mask[i, j]


def flags_near(mask: IntArray, *, y: F64, x: F64, radius: float) -> IntArray:
    """Return the union of mask bits within `radius` of each position (array pixels)."""
    out = np.zeros(len(y), np.int32)
    _flags_near(
        np.ascontiguousarray(mask, np.int32), np.asarray(y, float), np.asarray(x, float), float(radius), out
    )
    return out


def psf_photometry(
    image: F32, variance: F32, basis: F64, terms: F64, *, shapes: Shapes, radius: float, passes: int = 2
) -> tuple[Records, F32]:
    """Fit PSF fluxes of all sources, each with the light of the others subtracted.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        See `psf.psf_fit`.
    terms : ndarray, shape (n, n_terms)
        Polynomial terms at the sources.
    radius
        Of the fit, pixels.
    passes
        Rounds of subtracting and fitting what is left.

    Returns
    -------
    fits : ndarray, shape (n,)
        `psf.PSF_FIT_DTYPE`; positions refined.
    residual : ndarray, shape (ny, nx), float32
        The image less all sources.
    """
    fits = psf_fit(image, variance, basis, terms, y=shapes.y, x=shapes.x, radius=radius, steps=2)
    flux = np.nan_to_num(fits["flux"])
    flux = np.maximum(flux, 0)
    residual = image.copy()
    render_psf(residual, basis, terms, fits["y"], fits["x"], -flux)
    for _ in range(passes):
        rest = psf_fit(residual, variance, basis, terms, y=fits["y"], x=fits["x"], radius=radius)
        change = np.maximum(0.8 * np.nan_to_num(rest["flux"]), -flux)
        render_psf(residual, basis, terms, fits["y"], fits["x"], -change)
        flux = flux + change
    fits["chi2"] = rest["chi2"] if passes else fits["chi2"]
    fits["flux"] = np.where(np.isfinite(fits["flux"]), flux, np.nan)
    return fits, residual


def aperture_sums(
    residual: F32, variance: F32, bad: BoolArray, fits: Records, *, basis: F64, terms: F64, radius: float
) -> tuple[F64, F64]:
    """Return aperture fluxes and errors of sources from the image less all sources, each one's light put back.

    Parameters
    ----------
    residual, fits
        From `psf_photometry`.
    radius
        Of the aperture, pixels.
    """
    good = np.isfinite(variance) & (variance > 0) & ~bad
    values = np.where(good, residual, np.float32(0))
    noise = np.where(good, variance, np.float32(0))
    y, x = fits["y"], fits["x"]
    rest, _, _ = sep.sum_circle(values, x, y, radius, subpix=3)
    var, _, _ = sep.sum_circle(noise, x, y, radius, subpix=1)
    inside = _enclosed(basis, terms, radius)
    return rest + fits["flux"] * inside, np.sqrt(np.maximum(var, 0))


def _enclosed(basis: F64, terms: F64, radius: float) -> F64:
    """Return the fraction of the PSF's light within `radius`, for each row of `terms`."""
    half = basis.shape[1] // 2
    offsets = np.arange(-half, half + 1)
    inside = np.clip(radius + 0.5 - np.hypot(offsets[:, None], offsets[None, :]), 0, 1)
    part = np.sum(basis * inside, axis=(1, 2))
    return np.asarray((terms @ part) / (terms @ basis.sum(axis=(1, 2))))
