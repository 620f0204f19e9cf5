"""Star fields whose PSF is known: profiles, anisotropy and variation that share nothing with the package.

The profile is Kolmogorov turbulence (the Hankel transform of exp(-(k / k0)^(5/3))) or a Moffat function, sheared,
with coma, integrated over pixels; size and shape vary over the field as a cubic polynomial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from scipy.special import j0

__all__ = ["FieldConfig", "Rays", "StarField", "add_tracks", "make_star_field"]

_REACH, _STEPS = 14.0, 4000  # the profile's table, FWHM


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """What a field looks like; sizes in pixels, light in electrons."""

    size: int = 2048
    fwhm: float = 4.0
    density: float = 300.0  # stars per 10^6 pixels
    galaxies: float = 100.0
    profile: str = "kolmogorov"  # or "moffat"
    variation: float = 0.04
    ellipticity: float = 0.04
    coma: float = 0.02
    sky: float = 500.0
    read_noise: float = 5.0
    flux_limits: tuple[float, float] = (300.0, 4e5)
    slope: float = 0.6  # d log N / d log flux
    seed: int = 1


@dataclass(frozen=True, eq=False)
class StarField:
    """An image, its variance, the stars in it (brightest first), and its PSF at any place."""

    image: Any
    variance: Any
    clean: Any  # without noise
    y: Any
    x: Any
    flux: Any
    config: FieldConfig
    terms: Any
    table: Any

    def shape_at(self, y: float, x: float) -> tuple[float, float, float]:
        """Return FWHM, e1 and e2 of the profile."""
        return _shape(self.config, self.terms, y, x)

    def psf(self, y: float, x: float, half: int) -> Any:
        """Return a star of light one at a place, on the pixels up to `half` from the one that it falls on."""
        out = np.zeros((2 * half + 1, 2 * half + 1))
        dy, dx = (place - np.floor(place + 0.5) for place in (y, x))
        _paint(out, half + dy, half + dx, 1.0, (*self.shape_at(y, x), self.config.coma), self.table, (half, 7))
        return out

    def round_psf(self, half: int, e1: float) -> Any:
        """Return a PSF of the mean width with ellipticity `e1` and no coma."""
        out = np.zeros((2 * half + 1, 2 * half + 1))
        _paint(out, float(half), float(half), 1.0, (self.config.fwhm, e1, 0.0, 0.0), self.table, (half, 7))
        return out


def _profile(kind: str) -> Any:
    """Return the radial profile, FWHM and total light one, at _STEPS places out to _REACH."""
    r = np.linspace(0, _REACH, _STEPS)
    if kind == "moffat":
        alpha2 = 0.25 / (2 ** (1 / 3.0) - 1)
        return (3.0 - 1) / (np.pi * alpha2) * (1 + r**2 / alpha2) ** -3.0
    k = np.linspace(0, 25, 6000)
    transfer = np.exp(-((k / 2.92) ** (5 / 3)))
    shape = np.array([np.trapezoid(transfer * j0(k * radius) * k, k) for radius in r])
    half = np.interp(0.5, (shape / shape[0])[:1500][::-1], r[:1500][::-1])
    scaled = np.interp(r, r / (2 * half), shape, right=0)
    scaled[r > _REACH / (2 * half)] = 0
    return np.maximum(scaled, 0) / np.trapezoid(2 * np.pi * r * scaled, r)


def _shape(config: FieldConfig, terms: Any, y: Any, x: Any) -> tuple[Any, Any, Any]:
    ty, tx = 2 * y / config.size - 1, 2 * x / config.size - 1
    basis = (1.0, tx, ty, tx * tx, tx * ty, ty * ty, tx**3, tx * ty * ty)
    a, b, c = (sum(t * v for t, v in zip(row, basis, strict=True)) for row in terms)
    return config.fwhm * (1 + config.variation * a), config.ellipticity * b, config.ellipticity * c


@njit(cache=True, nogil=True)
def _paint(image, y, x, flux, shape, table, size):  # type: ignore[no-untyped-def]
    fwhm, e1, e2, coma = shape
    half, sub = size
    norm = (1 - e1 * e1 - e2 * e2) ** -0.25
    axx, axy, ayy = norm * (1 - e1 / 2), -norm * e2 / 2, norm * (1 + e1 / 2)
    per = (len(table) - 1) / 14.0
    r0, c0 = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    for r in range(max(0, r0 - half), min(image.shape[0], r0 + half + 1)):
        for c in range(max(0, c0 - half), min(image.shape[1], c0 + half + 1)):
            total = 0.0
            n = sub if abs(r - r0) < 2 * fwhm and abs(c - c0) < 2 * fwhm else 3
            for i in range(n):
                for j in range(n):
                    dy = (r + (i + 0.5) / n - 0.5 - y) / fwhm
                    dx = (c + (j + 0.5) / n - 0.5 - x) / fwhm
                    bend = coma * np.exp(-(dy * dy + dx * dx))
                    u = axx * dx + axy * dy + bend * (3 * dx * dx + dy * dy)
                    v = axy * dx + ayy * dy + bend * 2 * dx * dy
                    q = np.sqrt(u * u + v * v) * per
                    k = int(q)
                    if k < len(table) - 1:
                        total += table[k] + (q - k) * (table[k + 1] - table[k])
            image[r, c] += flux * total / (n * n) / (fwhm * fwhm)


def make_star_field(config: FieldConfig) -> StarField:
    """Draw a field."""
    rng = np.random.default_rng(config.seed)
    n_stars = int(config.density * config.size**2 / 1e6)
    y, x = rng.uniform(0, config.size - 1, (2, n_stars))
    low, high = (limit**-config.slope for limit in config.flux_limits)
    flux = np.sort((rng.uniform(0, 1, n_stars) * (high - low) + low) ** (-1 / config.slope))[::-1]
    terms = rng.normal(0, 1, (3, 8)) * np.array([0, 0.6, 0.6, 0.5, 0.4, 0.5, 0.15, 0.15])
    terms[1:, 0] = rng.normal(0, 0.7, 2)
    table = _profile(config.profile)
    image = np.zeros((config.size, config.size))
    peak = 0.6 / config.fwhm**2
    for a, b, f in zip(y, x, flux, strict=True):
        reach = 2.5 + min(10.0, (f * peak / (0.02 * np.sqrt(config.sky))) ** (1 / 3.5))
        shape = (*_shape(config, terms, a, b), config.coma)
        _paint(image, a, b, f, shape, table, (int(reach * config.fwhm), 7))
    _add_galaxies(rng, image, config)
    image += config.sky * (1 + 0.03 * np.linspace(-1, 1, config.size)[:, None])
    variance = (image + config.read_noise**2).astype(np.float32)
    data = (rng.poisson(image) + rng.normal(0, config.read_noise, image.shape)).astype(np.float32)
    return StarField(data, variance, image, y, x, flux, config, terms, table)


def _add_galaxies(rng: np.random.Generator, image: Any, config: FieldConfig) -> None:
    """Add exponential discs, already blurred, of many sizes and axis ratios."""
    for _ in range(int(config.galaxies * config.size**2 / 1e6)):
        gy, gx = rng.uniform(0, config.size - 1, 2)
        major = config.fwhm * rng.uniform(0.5, 2.0)
        ratio, angle = np.hypot(rng.uniform(0.3, 1), 0.3), rng.uniform(0, np.pi)
        core, scale = 0.5 * config.fwhm, 0.6 * major
        width = 2 * np.sqrt((core + np.log(2) * scale) ** 2 - core**2)
        ratio = max(ratio, min(1.0, 1.05 * config.fwhm / width))  # nothing is narrower than a star
        flux = min(600 * (1 + rng.pareto(0.8)), config.flux_limits[1] / 3)
        half = int(6 * major)
        r, c = int(gy), int(gx)
        rows = np.arange(max(0, r - half), min(config.size, r + half + 1))
        cols = np.arange(max(0, c - half), min(config.size, c + half + 1))
        dy, dx = rows[:, None] - gy, cols[None, :] - gx
        u, v = np.cos(angle) * dx + np.sin(angle) * dy, -np.sin(angle) * dx + np.cos(angle) * dy
        radius = np.sqrt(u**2 + (v / ratio) ** 2 + core**2)
        image[np.ix_(rows, cols)] += flux * np.exp(-radius / scale) / (2 * np.pi * 0.5 * major**2 * ratio)


@dataclass(frozen=True, eq=False)
class Rays:
    """Cosmic rays added to an image: electrons per pixel, and the number of the ray there, from one; zero is none."""

    charge: Any
    label: Any
    count: int


def add_tracks(rng: np.random.Generator, image: Any, count: int) -> Rays:
    """Add `count` cosmic-ray tracks to `image` in place.

    Straight lines through silicon: a length drawn from an isotropic flux, a charge per pixel from a Landau-like
    law, diffusion of 0.2 to 0.4 pixels; a tenth are worms, electrons of low energy that are scattered on their way.
    """
    charge, label = np.zeros(image.shape), np.zeros(image.shape, np.int32)
    for number in range(1, count + 1):
        rows, cols, electrons = _track(rng, image.shape)
        inside = (rows >= 0) & (rows < image.shape[0]) & (cols >= 0) & (cols < image.shape[1])
        np.add.at(charge, (rows[inside], cols[inside]), electrons)
        label[rows[inside], cols[inside]] = number
    charge = rng.poisson(charge)
    image += charge.astype(image.dtype)
    return Rays(charge, np.where(charge > 0, label, 0), count)


def _track(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Any, Any, float]:
    """Return the pixels of many small equal charges along one track, and that charge."""
    worm = rng.random() < 0.1
    length = min(1.5 * np.tan(np.arccos(rng.uniform(0.03, 1) ** 0.5)) + 0.5, 120.0) * (3 if worm else 1)
    steps = max(4, int(length * 8))
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.25 if worm else 0.0, steps))
    y, x = rng.uniform(0, np.array(shape) - 1.0)
    places = np.array([y + np.cumsum(np.sin(angle)) / 8, x + np.cumsum(np.cos(angle)) / 8])
    spread = places[:, :, None] + rng.normal(0, rng.uniform(0.2, 0.4), (2, steps, 8))
    rows, cols = np.floor(spread + 0.5).astype(int).reshape(2, -1)
    return rows, cols, 500 * float(np.exp(rng.gumbel(0, 0.45))) / 64
