"""A science image, a template and their difference with known truth, without running any subtraction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from apstream.arrays.photometry import render_psf, spline_psfs
from apstream.model.exposures import (
    STAR_DTYPE,
    CalExp,
    DifferenceImage,
    ExposureInfo,
    MatchingKernel,
    Template,
)
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs

NOISE = 10.0


def moffat(fwhm: float, half: int = 15, beta: float = 3.5) -> np.ndarray:
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    kernel = (1 + (y**2 + x**2 + 0.15 * x * y) / alpha**2) ** -beta
    return kernel / kernel.sum()


def varying_psf(box: Box) -> Psf:
    """A PSF whose width varies by 10 % over the box."""
    slope = (moffat(4.2) - moffat(3.8)) / 2
    return Psf(np.stack([moffat(4.0), slope, 0.5 * slope]), box)


def add_points(image: np.ndarray, box: Box, psf: Psf, y, x, flux) -> None:
    """Add point sources at absolute positions."""
    splines = spline_psfs(psf.basis, *psf.box.normalize(np.asarray(y), np.asarray(x)))
    side = psf.shape[0]
    stamp = np.empty((3, side, side))
    for k in range(len(y)):
        cy, cx = int(np.floor(y[k] + 0.5)), int(np.floor(x[k] + 0.5))
        render_psf(splines[k], y[k] - cy, x[k] - cx, stamp, False)
        whole = Box.from_shape((side, side), cy - side // 2, cx - side // 2)
        part = whole.intersect(box)
        if not part.is_empty:
            image[part.slices(box)] += flux[k] * stamp[0][part.slices(whole)]


@dataclass
class Scene:
    """Images with noise NOISE per pixel in the difference; add sources, then `products()`."""

    box: Box
    psf: Psf
    science: np.ndarray
    template: np.ndarray
    difference: np.ndarray
    mask: np.ndarray
    stars: np.ndarray
    wcs: SkyWcs | None = None

    @classmethod
    def empty(cls, side: int = 256, seed: int = 1, wcs: bool = True) -> Scene:
        box = Box(50, 80, 50 + side, 80 + side)
        rng = np.random.default_rng(seed)
        science = rng.normal(scale=0.8 * NOISE, size=box.shape)
        template = rng.normal(scale=0.6 * NOISE, size=box.shape)
        sky = SkyWcs.tan(150.0, 2.0, pixel_scale_arcsec=0.26, y=178, x=200, rotation=25) if wcs else None
        return cls(
            box, varying_psf(box), science, template, science - template,
            np.zeros(box.shape, np.int32), np.zeros(0, STAR_DTYPE), sky,
        )  # fmt: skip

    def error_of(self, y: float, x: float) -> float:
        """Standard error of an optimal PSF flux on the difference."""
        return NOISE * np.sqrt(self.psf.effective_area(y, x))

    def transients(self, y, x, flux) -> None:
        add_points(self.science, self.box, self.psf, y, x, flux)
        add_points(self.difference, self.box, self.psf, y, x, flux)

    def shifted_stars(self, y, x, flux, dy: float, dx: float) -> None:
        """Stars that stand at (y, x) in the science image and elsewhere by -(dy, dx) in the template."""
        y, x, flux = np.asarray(y, float), np.asarray(x, float), np.asarray(flux, float)
        add_points(self.science, self.box, self.psf, y, x, flux)
        add_points(self.template, self.box, self.psf, y - dy, x - dx, flux)
        add_points(self.difference, self.box, self.psf, y, x, flux)
        add_points(self.difference, self.box, self.psf, y - dy, x - dx, -flux)
        self._catalogue(y, x, flux)

    def _catalogue(self, y, x, flux) -> None:
        stars = np.zeros(len(y), STAR_DTYPE)
        stars["y"], stars["x"], stars["flux"], stars["is_star"] = y, x, flux, True
        self.stars = np.concatenate([self.stars, stars])

    def _image(self, pixels: np.ndarray, sigma: float, mask: np.ndarray) -> MaskedImage:
        return MaskedImage.make(pixels, mask, np.full(self.box.shape, sigma**2), "nJy", self.box)

    def products(self) -> tuple[DifferenceImage, CalExp, Template]:
        wcs = self.wcs or SkyWcs.tan(1.0, 1.0, pixel_scale_arcsec=0.26, y=0, x=0)
        info = ExposureInfo(
            id=VisitDetector("sim", 7, 3), band="r", physical_filter="r", mid_mjd_tai=60000.5, exposure_s=30.0
        )
        science = CalExp(
            image=self._image(self.science, 0.8 * NOISE, self.mask), info=info, psf=self.psf, wcs=wcs,
            photo_calib=PhotoCalib(njy_per_unit=1.0), stars=self.stars,
        )  # fmt: skip
        template = Template(
            image=self._image(self.template, 0.6 * NOISE, np.zeros_like(self.mask)),
            psf=self.psf, inputs=("t",), coverage=1.0,
        )  # fmt: skip
        difference = DifferenceImage(
            image=self._image(self.difference, NOISE, self.mask), info=info, psf=self.psf, wcs=self.wcs,
            kernel=MatchingKernel(np.ones((1, 1, 1)), np.ones((1, 1)), np.zeros(1), self.box),
            matched_template=self.template.astype(np.float32), convolved="template",
        )  # fmt: skip
        return difference, science, template


@pytest.fixture
def scene() -> type[Scene]:
    """The scene class: `scene.empty(...)` makes one."""
    return Scene
