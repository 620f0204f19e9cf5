"""Made-up visits of one sky with artifacts, and what a coadd of them is worth beside the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from apstream.arrays.types import F32, F64
from apstream.model.exposures import STAR_DTYPE, CalExp, ExposureInfo
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.fits import write_exposure
from apstream.simulate.raw import satellite_trail
from benchmarks.coadd_files import SCALE, grid_wcs

__all__ = ["BINS", "GAIN", "Field", "Quality", "make_field", "quality", "truth_of"]

SKY = 40.0
#: Electrons per unit of a pixel: the variance of a source is its light over this.
GAIN = 5.0
#: Signal-to-noise ratios between which fluxes are compared.
BINS = (100, 300, 1000, 3000, 1e9)


@dataclass(frozen=True)
class Field:
    """What was simulated: stars on the coadd's grid, PSFs, weights, and what artifacts, and trails alone, light up."""

    y: F64
    x: F64
    flux: F64
    fwhm: F64
    noise: F64
    artifacts: F32
    trails: F32
    seeds: F64


@dataclass(frozen=True)
class Quality:
    """Noise of PSF fluxes over the ideal weighted mean's, flux bias, and what is left of artifacts.

    Biases, in mmag with their errors, are those of the bins of `BINS`; pixels of trails and of all artifacts are in
    standard deviations of a pixel of the coadd, fluxes where asteroids were in those of a point source.
    """

    noise_ratio: float
    biases: list[tuple[float, float, int]]
    trails_sigma: float
    artifacts_sigma: float
    asteroid_sigma: float


def moffat(fwhm: float, dy: float = 0.0, dx: float = 0.0, half: int = 24) -> F64:
    """Return a Moffat profile (beta 3) on pixels, centred at (dy, dx), summing to one over the plane."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / 3.0) - 1)
    return np.asarray(2.0 / (np.pi * alpha**2) * (1 + ((y - dy) ** 2 + (x - dx) ** 2) / alpha**2) ** -3.0)


def visit_wcs(size: int, visit: int) -> SkyWcs:
    """Return the WCS of a visit: shifted by some pixels and turned by up to half a degree."""
    rng = np.random.default_rng(1000 + visit)
    angle, step = np.deg2rad(rng.uniform(-0.5, 0.5)), SCALE / 3600
    dy, dx = rng.uniform(-12, 12, 2)
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"], header["CRPIX2"] = (size + 1) / 2 + dx, (size + 1) / 2 + dy
    header["CD1_1"], header["CD1_2"] = -step * np.cos(angle), step * np.sin(angle)
    header["CD2_1"], header["CD2_2"] = step * np.sin(angle), step * np.cos(angle)
    found = SkyWcs.from_header(header)
    assert found is not None
    return found


def make_field(work: Path, size: int, visits: int, seed: int = 5) -> Field:
    """Write the visits under `work` and return the truth."""
    rng = np.random.default_rng(seed)
    target, n = grid_wcs(size), int(18000 * (size / 4096) ** 2)
    y, x = rng.uniform(60, size - 60, (2, n))
    flux = 10 ** (0.4 * (25.0 - (14.5 + 10 * rng.power(3.0, n)))) * 60
    fwhm = np.linspace(0.7, 1.3, visits)[rng.permutation(visits)] / SCALE
    noise = np.sqrt(SKY) * rng.uniform(0.8, 1.3, visits)
    artifacts, trails = np.zeros((2, size, size), np.float32)
    seeds = rng.uniform(100, size - 100, (visits, 6, 2))
    ra, dec = target.pixel_to_sky(y, x)
    for k in range(visits):
        wcs = visit_wcs(size, k)
        image = np.zeros((size, size), np.float32)
        vy, vx = wcs.sky_to_pixel(ra, dec)
        paint(image, vy, vx, flux, fwhm[k])
        extra = _spots(image.shape, wcs, target, seeds[k], fwhm[k], noise[k])
        if k < 2:
            trail = faint_satellite(size, noise[k]) if k == 0 else bright_satellite(size, fwhm[k], seed)
            artifacts_on_grid(trails, trail, wcs, target)
            extra += trail
        artifacts_on_grid(artifacts, extra, wcs, target)
        variance = np.maximum(image + extra, 0) / GAIN + noise[k] ** 2
        image += extra + rng.normal(size=image.shape).astype(np.float32) * np.sqrt(variance)
        made = MaskedImage.make(image, np.zeros(image.shape, np.int32), variance, "nJy")
        _write(work, k, made, wcs, fwhm[k], noise[k])
    return Field(y, x, flux, fwhm, noise, artifacts, trails, seeds)


def paint(image: F32, y: F64, x: F64, flux: F64, fwhm: float) -> None:
    """Add stars, in place."""
    for a, b, f in zip(y, x, flux, strict=True):
        i, j = round(a), round(b)
        if 24 <= i < image.shape[0] - 24 and 24 <= j < image.shape[1] - 24:
            image[i - 24 : i + 25, j - 24 : j + 25] += f * moffat(fwhm, a - i, b - j)


def _spots(shape: tuple[int, int], wcs: SkyWcs, target: SkyWcs, seeds: F64, fwhm: float, noise: float) -> F32:
    """Return asteroids, still and trailed, and hits of cosmic rays, of one visit."""
    out = np.zeros(shape, np.float32)
    vy, vx = wcs.sky_to_pixel(*target.pixel_to_sky(seeds[:, 0], seeds[:, 1]))
    area = np.sqrt(4 * np.pi) * fwhm / 2.355 * noise
    for n in range(4):
        steps = np.arange(8.0) * (n % 2)
        paint(out, vy[n] + 0.5 * steps, vx[n] + steps, np.full(8, (12.0, 20.0, 100.0, 60.0)[n] * area / 8), fwhm)
    for a, b in zip(vy[4:], vx[4:], strict=True):
        out[int(a) % shape[0], int(b) % (shape[1] - 20) : int(b) % (shape[1] - 20) + 9] += 40 * noise
    return out


def bright_satellite(size: int, fwhm: float, seed: int) -> F32:
    """Return a trail as the simulator draws them."""
    out = np.zeros((size, size), np.float32)
    satellite_trail(np.random.default_rng(seed), out, fwhm)
    return out / np.float32(GAIN)


def faint_satellite(size: int, noise: float) -> F32:
    """Return a trail of 1.5 sigma per pixel with wings."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    distance = (0.37 * x - y + 0.3 * size) / np.hypot(0.37, 1)
    profile = 1.5 * np.exp(-0.5 * (distance / 2.2) ** 2) + 0.06 / (1 + (distance / 8) ** 2)
    return np.asarray(noise * profile, np.float32)


def artifacts_on_grid(total: F32, extra: F32, wcs: SkyWcs, target: SkyWcs) -> None:
    """Add what artifacts light up, moved to the coadd's grid by nearest pixels, in place."""
    y, x = np.nonzero(np.abs(extra) > 0.02 * np.sqrt(SKY))
    ty, tx = target.sky_to_pixel(*wcs.pixel_to_sky(y.astype(float), x.astype(float)))
    i, j = np.rint(ty).astype(int), np.rint(tx).astype(int)
    inside = (i >= 0) & (j >= 0) & (i < total.shape[0]) & (j < total.shape[1])
    np.add.at(total, (i[inside], j[inside]), extra[y, x][inside])


def _write(work: Path, visit: int, image: MaskedImage, wcs: SkyWcs, fwhm: float, noise: float) -> None:
    kernel = moffat(fwhm, half=22)
    info = ExposureInfo(
        id=VisitDetector("sim", visit, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0 + visit, exposure_s=30.0
    )
    write_exposure(
        work / f"calexp{visit}.fits",
        CalExp(
            image=image,
            info=info,
            psf=Psf((kernel / kernel.sum())[None], image.box),
            wcs=wcs,
            photo_calib=PhotoCalib(njy_per_unit=1.0),
            stars=np.zeros(0, STAR_DTYPE),
        ),
    )
    header = wcs.to_header()
    fits.PrimaryHDU(image.image, header).writeto(work / f"visit{visit}.fits", overwrite=True)
    weight = np.full(image.shape, 1 / noise**2, np.float32)
    fits.PrimaryHDU(weight, header).writeto(work / f"visit{visit}.weight.fits", overwrite=True)


def truth_of(field: Field, size: int) -> F32:
    """Return the noiseless ideal coadd: the weighted mean of the visits' stars."""
    out = np.zeros((size, size), np.float32)
    weights = field.noise**-2.0 / (field.noise**-2.0).sum()
    for weight, fwhm in zip(weights, field.fwhm, strict=True):
        paint(out, field.y, field.x, weight * field.flux, fwhm)
    return out


def quality(image: F32, field: Field, truth: F32) -> Quality:
    """Measure a coadd by PSF fluxes with the PSF of the ideal weighted mean, beside the noiseless truth."""
    weights, half = field.noise**-2.0, 12
    size, noise = image.shape[0], 1 / np.sqrt(weights.sum())
    left = (image - truth) / noise
    kernel = sum(w * moffat(s, half=half) for w, s in zip(weights, field.fwhm, strict=True)) / weights.sum()
    kernel /= np.sqrt((kernel**2).sum())
    star = truth > 3 * noise
    found: dict[bool, list[float]] = {False: [], True: []}
    for i in range(80, size - 80, 27):
        for j in range(80, size - 80, 27):
            spot = np.s_[i - half : i + half + 1, j - half : j + half + 1]
            lit = bool(field.artifacts[spot].any())
            if not star[spot].any() and np.isfinite(left[spot]).all():
                found[lit].append(float((left[spot] * kernel).sum()))
    away = ~star & (np.abs(field.artifacts) > 0.5 * np.sqrt(SKY)) & np.isfinite(image)
    asteroid = []
    for y, x in field.seeds[:, :4].reshape(-1, 2):
        spot = np.s_[round(y) - half : round(y) + half + 1, round(x) - half : round(x) + half + 1]
        if not star[spot].any():
            asteroid.append(float((left[spot] * kernel).sum()))
    trail = ~star & (np.abs(field.trails) > 0.5 * np.sqrt(SKY)) & np.isfinite(image)
    none = float("nan")
    return Quality(
        float(np.std(found[False])), _biases(image, field, truth),
        float(left[trail].mean()) if trail.any() else none, float(left[away].mean()) if away.any() else none,
        float(np.mean(asteroid)) if asteroid else none,
    )  # fmt: skip


def _biases(image: F32, field: Field, truth: F32) -> list[tuple[float, float, int]]:
    """Return the median flux error of stars in mmag, its error, and how many there are, for the bins of `BINS`."""
    noise, half = 1 / np.sqrt((field.noise**-2.0).sum()), 9
    found: list[list[float]] = [[] for _ in BINS[1:]]
    for y, x, flux in zip(field.y, field.x, field.flux, strict=True):
        i, j, ratio = round(y), round(x), flux / (15 * noise)
        spot = np.s_[i - half : i + half + 1, j - half : j + half + 1]
        if ratio < BINS[0] or field.artifacts[spot].any() or min(i, j) < 90 or max(i, j) > len(image) - 90:
            continue
        if truth[spot].sum() < 1.05 * flux:
            error = -2.5e3 * np.log10(image[spot].sum() / truth[spot].sum())
            found[int(np.searchsorted(BINS, ratio)) - 1].append(error)
    return [
        (float(np.median(f)), float(1.25 * np.std(f) / np.sqrt(len(f))), len(f)) if f else (float("nan"),) * 2 + (0,)
        for f in found
    ]
