"""A small private star field: two images of one sky with different PSFs, noise and background."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from apstream.model.exposures import STAR_DTYPE, Background, CharacterizedExposure, ExposureInfo, Template
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.psf import Psf

HALF = 14


@dataclass(frozen=True)
class Sky:
    y: np.ndarray
    x: np.ndarray
    flux: np.ndarray


def random_sky(seed: int, size: int, n: int, bright: float = 3e5, faint: float = 1.5e3) -> Sky:
    rng = np.random.default_rng(seed)
    flux = faint * (rng.random(n) + 1e-3) ** -1.2
    return Sky(rng.uniform(0, size, n), rng.uniform(0, size, n), np.minimum(flux, bright))


def moffat(dy, dx, fwhm, e1=0.0, e2=0.0, beta=3.5):
    a = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    r2 = (dx**2 * (1 - e1) + dy**2 * (1 + e1) - 2 * e2 * dx * dy) / a**2
    return (beta - 1) / (np.pi * a**2) * (1 + r2) ** -beta


@dataclass(frozen=True)
class Seeing:
    """A Moffat PSF whose width and shape vary linearly over the field."""

    fwhm: float
    vary: float = 0.05
    e: float = 0.03

    def stamp(self, y, x, size, dy, dx):
        u, v = 2 * y / size - 1, 2 * x / size - 1
        return moffat(dy, dx, self.fwhm * (1 + self.vary * v), self.e * u, self.e * v * u)


def render(sky: Sky, seeing: Seeing, size: int, half: int = 24) -> np.ndarray:
    out = np.zeros((size, size))
    for y, x, f in zip(sky.y, sky.x, sky.flux, strict=True):
        iy, ix = round(y), round(x)
        y0, y1, x0, x1 = (
            max(iy - half, 0),
            min(iy + half + 1, size),
            max(ix - half, 0),
            min(ix + half + 1, size),
        )
        if y1 <= y0 or x1 <= x0:
            continue
        gy, gx = np.mgrid[y0:y1, x0:x1]
        out[y0:y1, x0:x1] += f * seeing.stamp(y, x, size, gy - y, gx - x)
    return out


def psf_model(seeing: Seeing, size: int) -> Psf:
    from apstream.arrays.whiten import fit_kernel_terms, grid_positions

    y, x = grid_positions((size, size), 5)
    gy, gx = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
    k = np.stack([seeing.stamp(a, b, size, gy, gx) for a, b in zip(y, x, strict=True)])
    k /= k.sum(axis=(1, 2), keepdims=True)
    return Psf(fit_kernel_terms(k, y, x, (size, size), 2), Box.from_shape((size, size)))


def noisy(
    model: np.ndarray, sky_level: float, seed: int, depth: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    variance = (sky_level + np.maximum(model, 0)) / depth
    rng = np.random.default_rng(seed)
    return model + rng.normal(size=model.shape) * np.sqrt(variance), variance


def star_table(sky: Sky, seeing: Seeing, sky_level: float, size: int) -> np.ndarray:
    stars = np.zeros(len(sky.y), STAR_DTYPE)
    stars["y"], stars["x"], stars["flux"], stars["ap_flux"] = sky.y, sky.x, sky.flux, sky.flux
    area = 4 * np.pi * (seeing.fwhm / 2.35) ** 2
    stars["flux_err"] = stars["ap_flux_err"] = np.sqrt(sky_level * area + sky.flux)
    stars["fwhm"], stars["is_star"] = seeing.fwhm, True
    d = np.hypot(sky.y[:, None] - sky.y, sky.x[:, None] - sky.x)
    np.fill_diagonal(d, np.inf)
    near = (d < 12) & (sky.flux[None, :] > 0.05 * sky.flux[:, None])
    stars["blended"] = near.any(axis=1)
    return stars


def info() -> ExposureInfo:
    return ExposureInfo(
        id=VisitDetector("test", 1, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0
    )


def science_of(image, variance, seeing, sky, sky_level) -> CharacterizedExposure:
    size = image.shape[0]
    box = Box.from_shape(image.shape)
    return CharacterizedExposure(
        image=MaskedImage.make(image, np.zeros(image.shape, np.int32), variance, "electron"),
        info=info(),
        wcs=None,
        psf=psf_model(seeing, size),
        background=Background(np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32), box, 128),
        stars=star_table(sky, seeing, sky_level, size),
        aperture_correction=1.0,
    )


def template_of(image, variance, seeing) -> Template:
    return Template(
        image=MaskedImage.make(image, np.zeros(image.shape, np.int32), variance, "electron"),
        psf=psf_model(seeing, image.shape[0]),
        inputs=("a",),
        coverage=1.0,
    )


@dataclass(frozen=True)
class Field:
    science: CharacterizedExposure
    template: Template
    sky: Sky
    transients: Sky


def field(
    size=512,
    n=400,
    *,
    science=Seeing(4.2),
    template=Seeing(3.4, -0.03, -0.02),
    sky_level=1500.0,
    depth=5.0,
    ratio=1.0,
    gradient=30.0,
    transients: Sky | None = None,
    seed=1,
    bright=3e5,
) -> Field:
    sky = random_sky(seed, size, n, bright)
    extra = transients or Sky(*(np.zeros(0),) * 3)
    both = Sky(*(np.concatenate([getattr(sky, k), getattr(extra, k)]) for k in ("y", "x", "flux")))
    a, va = noisy(render(both, science, size), sky_level, seed + 1)
    b, vb = noisy(render(sky, template, size), sky_level, seed + 2, depth)
    u = np.linspace(-1, 1, size)
    a = a + gradient * (u[:, None] + 0.5 * u[None, :] ** 2)
    s = science_of(a, va, science, sky, sky_level)
    return Field(s, template_of(b / ratio, vb / ratio**2, template), sky, extra)


def with_mask(image: MaskedImage, box, bits: int) -> MaskedImage:
    mask = image.mask.copy()
    mask[box] |= bits
    return replace(image, mask=mask)
