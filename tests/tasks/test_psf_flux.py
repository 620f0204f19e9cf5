"""PSF fluxes are as true at the edges of an image as in its middle, though the PSF is wider there."""

from __future__ import annotations

import numpy as np
import pytest
from starfield import add_stamp, make_field, moffat, shape_at, stamp

from apstream.arrays.polynomial import poly_terms
from apstream.arrays.psf import kernel_at
from apstream.model.exposures import Exposure, ExposureInfo
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.tasks.characterize import CharacterizeConfig, characterize

SIZE, FWHM, VARY = 512, 4.0, 2.0
INFO = ExposureInfo(id=VisitDetector("test", 1, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0)


def psf_of(image, variance, **psf):
    pixels = MaskedImage.make(image, np.zeros(image.shape, np.int32), variance, "electron")
    config = CharacterizeConfig.model_validate({"cosmic_rays": None, "psf": psf})
    return characterize(Exposure(image=pixels, info=INFO, wcs=None), config).psf


def flux_of_one(psf, y: float, x: float) -> float:
    """The flux that a fit of the model gives a true star of one electron."""
    half = psf.basis.shape[1] // 2
    offsets = np.arange(-half, half + 1)
    near = np.hypot(offsets[:, None], offsets[None, :]) <= 1.2 * FWHM
    width, e1, e2 = shape_at(y, x, SIZE, FWHM, VARY)
    true = stamp(y, x, half, lambda a, b: moffat(a, b, width, e1=e1, e2=e2))[2]
    terms = poly_terms(*psf.box.normalize(np.array([y]), np.array([x])), psf.degree)[:, 0]
    model = kernel_at(psf.basis, terms)
    return float(np.sum(model * true * near) / np.sum(model * model * near))


@pytest.mark.parametrize("seed", [31, 32])
def test_fluxes_do_not_depend_on_where_a_star_lies(seed: int):
    field = make_field(size=SIZE, fwhm=FWHM, n_stars=300, vary=VARY, faintest=8000, brightest=2e5, seed=seed)
    psf = psf_of(field.image, field.variance)
    places = np.arange(56.0, SIZE, 100.0)
    fluxes = np.array([[flux_of_one(psf, y, x) for x in places] for y in places])
    assert abs(fluxes[:, -1].mean() - fluxes[:, 0].mean()) < 0.015  # the FWHM differs by a fifth
    assert fluxes.std() < 0.008


def test_a_neighbour_that_nobody_knows_of_is_not_printed_into_the_psf():
    field = make_field(size=320, fwhm=FWHM, n_stars=40, vary=0.0, faintest=2e4, brightest=2e5, seed=33)
    y, x, flux = field.y[0], field.x[0], field.flux[0]
    image = field.image.copy()
    blurred = 1.5 * FWHM
    add_stamp(image, y + 6.0, x - 5.0, 20, lambda a, b: moffat(a, b, blurred), 0.04 * flux)
    alone, beside = (psf_of(light, field.variance, deblend=False).central() for light in (field.image, image))
    half = alone.shape[0] // 2
    around = slice(half + 3, half + 10), slice(half - 8, half - 1)
    assert abs((beside - alone)[around].sum()) < 0.001
