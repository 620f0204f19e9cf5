"""A small analytic star field for tests of single images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Field:
    image: np.ndarray
    variance: np.ndarray
    y: np.ndarray
    x: np.ndarray
    flux: np.ndarray
    fwhm: float
    sky: float


def moffat(yy, xx, fwhm, beta=3.5, e1=0.0, e2=0.0):
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    q = ((1 - e1) * xx**2 + (1 + e1) * yy**2 - 2 * e2 * xx * yy) / np.sqrt(1 - e1**2 - e2**2)
    return (beta - 1) / (np.pi * alpha2) * (1 + q / alpha2) ** -beta


def stamp(y, x, half, profile, sub=5):
    """Pixel-integrated stamp around the nearest pixel: (row0, col0, values)."""
    r, c = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    fine = (np.arange(sub * (2 * half + 1)) - (sub - 1) / 2) / sub - half
    values = profile(fine[:, None] + r - y, fine[None, :] + c - x)
    side = 2 * half + 1
    return r - half, c - half, values.reshape(side, sub, side, sub).mean(axis=(1, 3))


def add_stamp(image, y, x, half, profile, flux):
    r0, c0, values = stamp(y, x, half, profile)
    ny, nx = image.shape
    a, b = max(0, -r0), max(0, -c0)
    e, f = min(values.shape[0], ny - r0), min(values.shape[1], nx - c0)
    if e > a and f > b:
        image[r0 + a : r0 + e, c0 + b : c0 + f] += flux * values[a:e, b:f]


def shape_at(y, x, size, fwhm, vary):
    """(fwhm, e1, e2) at a place: `vary` scales a smooth change over the field."""
    ty, tx = 2 * y / size - 1, 2 * x / size - 1
    return fwhm * (1 + vary * (0.05 * tx + 0.03 * ty * ty)), vary * 0.05 * ty, vary * 0.04 * tx


def make_field(*, size=512, n_stars=250, fwhm=4.0, vary=1.0, sky=400.0, gradient=0.0, n_galaxies=0, read_noise=5.0,
               brightest=2e5, faintest=500.0, seed=1, slope=0.6):  # fmt: skip
    """Stars (power law in flux), galaxies as wide Gaussians, sky, Poisson and read noise; electrons."""
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(5, size - 5, (2, n_stars))
    u = rng.uniform(0, 1, n_stars)
    flux = (u * (brightest**-slope - faintest**-slope) + faintest**-slope) ** (-1 / slope)
    image = np.zeros((size, size))
    half = int(7 * fwhm)
    for yy, xx, f in zip(y, x, flux, strict=True):
        width, e1, e2 = shape_at(yy, xx, size, fwhm, vary)
        add_stamp(image, yy, xx, half, lambda a, b, w=width, p=e1, q=e2: moffat(a, b, w, e1=p, e2=q), f)
    for _ in range(n_galaxies):
        gy, gx = rng.uniform(5, size - 5, 2)
        width = fwhm * rng.uniform(1.3, 3) / 2.355
        f = faintest * 2 * rng.pareto(0.8) ** 1.0 + faintest * 2
        add_stamp(image, gy, gx, half,
                  lambda a, b, w=width: np.exp(-0.5 * (a**2 + b**2) / w**2) / (2 * np.pi * w**2),
                  min(f, brightest / 4))  # fmt: skip
    ramp = np.linspace(-0.5, 0.5, size)
    image += sky + gradient * sky * (ramp[:, None] + 0.5 * ramp[None, :] ** 2)
    variance = image + read_noise**2
    data = rng.poisson(image) + rng.normal(0, read_noise, image.shape)
    order = np.argsort(-flux)
    return Field(data.astype(np.float32), variance.astype(np.float32), y[order], x[order], flux[order], fwhm, sky)


def add_rays(image, *, n_rays=40, seed=7, low=150.0, high=1500.0):
    """Add tracks of `low` to `high` electrons per pixel of length; return what was added."""
    rng = np.random.default_rng(seed)
    rays = np.zeros(image.shape)
    size = image.shape[0]
    for _ in range(n_rays):
        y, x = rng.uniform(20, size - 20, 2)
        angle, length = rng.uniform(0, np.pi), 1 + rng.exponential(6)
        charge = np.exp(rng.uniform(np.log(low), np.log(high)))
        for step in np.arange(0, length, 0.05):  # a thin line, spread a little by diffusion
            py, px = y + step * np.sin(angle), x + step * np.cos(angle)
            for dy, dx in rng.normal(0, 0.25, (2, 2)):
                r, c = int(np.floor(py + dy + 0.5)), int(np.floor(px + dx + 0.5))
                if 0 <= r < size and 0 <= c < size:
                    rays[r, c] += charge * 0.05 / 2
    rays = rng.poisson(rays).astype(np.float32)
    image += rays
    return rays
