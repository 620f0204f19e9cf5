"""Find sources and measure them: from a background-subtracted image to a list with shapes and PSF fluxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.moments import FWHM_PER_SIGMA, adaptive_moments
from apstream.arrays.peaks import find_peaks, footprints, gaussian_smooth, matched_noise
from apstream.arrays.psf import add_stamps, fit_stamps, psf_stamps
from apstream.arrays.types import F32, F64, BoolArray, IntArray, Records

__all__ = [
    "LocalPsf",
    "Photometry",
    "Shapes",
    "Sky",
    "aperture_sums",
    "detect",
    "flags_near",
    "psf_photometry",
    "source_mask",
]


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
    e1, e2
        (xx - yy, 2 xy) / (xx + yy).
    peak
        Highest pixel.
    """

    y: F64
    x: F64
    flux: F64
    snr: F64
    sigma: F64
    minor: F64
    e1: F64
    e2: F64
    peak: F64

    def __len__(self) -> int:
        return len(self.y)

    @property
    def ellipticity(self) -> F64:
        """Absolute value of the ellipticity."""
        return np.hypot(self.e1, self.e2)

    def light(self) -> F64:
        """Return fluxes, guessed from the peak where the moments failed, as they do beside a brighter source."""
        known = np.isfinite(self.flux) & (self.peak > 0)
        ratio = float(np.median(self.flux[known] / self.peak[known])) if known.any() else 1.0
        return np.where(np.isfinite(self.flux), self.flux, ratio * np.maximum(self.peak, 0))

    def take(self, index: IntArray | BoolArray) -> Shapes:
        """Return the chosen rows."""
        return Shapes(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


@dataclass(frozen=True, slots=True, eq=False)
class LocalPsf:
    """A PSF basis (n_terms, h, w) and the polynomial terms (n, n_terms) at n sources."""

    basis: F64
    terms: F64


@dataclass(frozen=True, slots=True, eq=False)
class Photometry:
    """PSF fluxes of sources; positions in array pixels, `chi2` per pixel."""

    y: F64
    x: F64
    y_err: F64
    x_err: F64
    flux: F64
    flux_err: F64
    chi2: F64


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
    rows, cols = find_peaks(gaussian_smooth(image, sigma), threshold, cell=sky.cell, radius=max(1, round(0.6 * fwhm)))
    rows, cols = rows[:limit], cols[:limit]
    found = adaptive_moments(image, bad, y=rows.astype(float), x=cols.astype(float), sigma=sigma)
    return _shapes(_unique(found, fwhm), sky)


def _unique(found: Records, fwhm: float) -> Records:
    """Drop moments that ran into a source listed before (brighter), within a third of the FWHM."""
    from scipy.spatial import cKDTree

    if len(found) < 2:
        return found
    pairs = cKDTree(np.column_stack([found["y"], found["x"]])).query_pairs(max(fwhm / 3, 0.7), output_type="ndarray")
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
    return Shapes(found["y"], found["x"], flux, snr, np.sqrt(det), minor, e1 / trace, e2 / trace, found["peak"])


def source_mask(image: F32, sky: Sky, *, fwhm: float, n_sigma: float, grow: int, most: float = 0.4) -> BoolArray:
    """Return True on sources; the threshold rises until at most `most` of the image is covered."""
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
    _flags_near(np.ascontiguousarray(mask, np.int32), np.asarray(y, float), np.asarray(x, float), float(radius), out)
    return out


def psf_photometry(
    image: F32, variance: F32, psf: LocalPsf, shapes: Shapes, *, radius: float, rounds: int = 3
) -> tuple[Photometry, F32]:
    """Fit PSF fluxes and positions of all sources, each with the light of the others subtracted.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        See `psf.fit_stamps`.
    psf
        At the sources.
    shapes
        Where the sources are, and their fluxes to begin with.
    radius
        Of the fit, pixels.
    rounds
        Rounds of fitting what is left and subtracting anew.

    Returns
    -------
    photometry
        NaN where there are too few pixels.
    residual : ndarray, shape (ny, nx), float32
        The image less all sources.
    """
    y, x = shapes.y.copy(), shapes.x.copy()
    flux = np.maximum(np.nan_to_num(shapes.flux), 0.0)
    residual = image.copy()
    for step in range(rounds):
        cube = psf_stamps(psf.basis, psf.terms, y=y, x=x)
        add_stamps(residual, cube, y, x, -flux)
        fit = fit_stamps(residual, variance, cube, y=y, x=x, radius=radius)
        change = np.maximum((0.8 if step < rounds - 1 else 1.0) * np.nan_to_num(fit["flux"]), -flux)
        if step == rounds - 1:
            add_stamps(residual, cube, y, x, -change)
            flux = flux + change
            break
        add_stamps(residual, cube, y, x, flux)
        flux = flux + change
        y, x = y + _step(fit["fdy"], flux, fit["flux_err"]), x + _step(fit["fdx"], flux, fit["flux_err"])
    with np.errstate(divide="ignore", invalid="ignore"):
        y_err, x_err = fit["fdy_err"] / flux, fit["fdx_err"] / flux
    lost = ~np.isfinite(fit["flux"])
    flux = np.where(lost, np.nan, flux)
    return Photometry(y, x, y_err, x_err, flux, fit["flux_err"], fit["chi2"] / fit["n_pixels"]), residual


def _step(moment: F64, flux: F64, error: F64) -> F64:
    """Return a position correction in pixels, at most 0.3; none for sources too faint to be moved."""
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(flux > 5 * error, moment / flux, 0.0)
    return np.asarray(np.clip(np.nan_to_num(step), -0.3, 0.3))


@njit(cache=True, nogil=True)
def _sum_circles(image, variance, places, radius, out):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    reach = int(radius) + 2
    inner, outer = max(radius - 0.5, 0.0) ** 2, (radius + 0.5) ** 2
    for n in range(len(places)):
        y, x = places[n]
        row, col = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
        for r in range(max(0, row - reach), min(ny, row + reach + 1)):
            for c in range(max(0, col - reach), min(nx, col + reach + 1)):
                square = (r - y) ** 2 + (c - x) ** 2
                if square >= outer:
                    continue
                weight = 1.0 if square <= inner else radius + 0.5 - np.sqrt(square)
                v = variance[r, c]
                if weight > 0 and v > 0 and v < np.inf:
                    out[n, 0] += weight * image[r, c]
                    out[n, 1] += weight * v


def aperture_sums(
    residual: F32, variance: F32, photometry: Photometry, psf: LocalPsf, *, radius: float
) -> tuple[F64, F64]:
    """Return aperture fluxes and errors from the image less all sources, each source's own light put back.

    Pixels on the rim count by how far they reach inside (linear in their distance); pixels without
    variance count as the model has them.

    Parameters
    ----------
    residual, photometry
        From `psf_photometry`.
    radius
        Of the aperture, pixels.
    """
    out = np.zeros((len(photometry.y), 2))
    _sum_circles(residual, variance, np.column_stack([photometry.y, photometry.x]), float(radius), out)
    return out[:, 0] + photometry.flux * _enclosed(psf, radius), np.sqrt(out[:, 1])


def _enclosed(psf: LocalPsf, radius: float) -> F64:
    """Return the fraction of the PSF's light within `radius`, for each source."""
    half = psf.basis.shape[1] // 2
    offsets = np.arange(-half, half + 1)
    inside = np.clip(radius + 0.5 - np.hypot(offsets[:, None], offsets[None, :]), 0, 1)
    part = np.sum(psf.basis * inside, axis=(1, 2))
    return np.asarray((psf.terms @ part) / (psf.terms @ psf.basis.sum(axis=(1, 2))))
