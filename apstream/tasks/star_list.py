"""The star list of an exposure: positions, fluxes, shapes and flags of all sources, and the aperture correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.aperture_correction import ApertureCorrection, aperture_correction
from apstream.arrays.moments import FWHM_PER_SIGMA
from apstream.arrays.polynomial import poly_terms
from apstream.arrays.sources import LocalPsf, Photometry, Shapes, aperture_sums, flags_near, psf_photometry
from apstream.arrays.stars import contamination
from apstream.arrays.types import F32, F64, BoolArray, IntArray, Records
from apstream.model.exposures import STAR_DTYPE
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf
from apstream.tasks.psf_quality import judge_psf

__all__ = ["FLAGGED", "Marks", "StarList", "list_stars"]

#: Planes that make a star `flagged`.
FLAGGED = int(MaskPlane.BAD | MaskPlane.CR | MaskPlane.EDGE | MaskPlane.NO_DATA | MaskPlane.STREAK)
_GROWTH_FWHM = (0.5, 1.0, 2.0, 4.0)
_BLENDED = 0.1  # light of neighbours relative to the star's own


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """What the choice of stars found: stellar FWHM (of the matched Gaussian, pixels) and, per source, its roles."""

    fwhm: float
    on_locus: BoolArray
    shaped_psf: BoolArray
    reserved: BoolArray

    @property
    def judges(self) -> BoolArray:
        """Who judges the PSF: the stars left out of it, all of its stars where none was."""
        return self.reserved if self.reserved.any() else self.shaped_psf


@dataclass(frozen=True, slots=True, eq=False)
class StarList:
    """`STAR_DTYPE` rows in array pixels, the aperture correction and its error, and what the stars say of the PSF."""

    stars: Records
    aperture_correction: float
    metrics: dict[str, float]


def list_stars(image: MaskedImage, shapes: Shapes, psf: Psf, *, marks: Marks, aperture_fwhm: float) -> StarList:
    """Measure all sources with the PSF.

    Parameters
    ----------
    image
        Background-subtracted, with an origin of (0, 0); variance NaN where a pixel must not be used.
    shapes
        The sources, array pixels.
    psf
        On the exposure's own box, of the same shape.
    aperture_fwhm
        Radius of the aperture that defines the zero point, FWHM.

    Returns
    -------
    StarList
        Rows for all sources, NaN flux where the PSF could not be fitted. The aperture correction is aperture over
        PSF flux; `flux` itself is the PSF flux, on whose scale differences are measured too.
    """
    ty, tx = image.box.normalize(shapes.y, shapes.x)
    local = LocalPsf(psf.basis, np.ascontiguousarray(poly_terms(ty, tx, psf.degree).T))
    fits, residual = psf_photometry(image.image, image.variance, local, shapes, radius=max(1.2 * marks.fwhm, 2.5))
    ap_flux, ap_err = aperture_sums(residual, image.variance, fits, local, radius=aperture_fwhm * psf.fwhm())
    stars = _describe(image, shapes, fits, marks, scale=psf.fwhm() / marks.fwhm)
    stars["ap_flux"], stars["ap_flux_err"] = ap_flux, ap_err
    stars["flux"], stars["flux_err"] = fits.flux, fits.flux_err
    good = ~(stars["flagged"] | stars["saturated"])
    bright = np.flatnonzero(good & (marks.shaped_psf | marks.reserved))
    correction = _correction(stars[bright], ty[bright], tx[bright])
    growth = {
        f"growth_{radius:g}_fwhm": _growth((residual, image.variance), fits, local, bright, radius * psf.fwhm())
        for radius in _GROWTH_FWHM
    }
    quality = judge_psf(residual, fits, local, marks.judges & good)
    metrics = {
        "aperture_correction_error": correction.error,
        "aperture_correction_trend": correction.trend_rms(),
        **{name: value / correction.value for name, value in growth.items()},
        **quality,
    }
    return StarList(stars, correction.value, metrics)


def _describe(image: MaskedImage, shapes: Shapes, fits: Photometry, marks: Marks, *, scale: float) -> Records:
    """Return a star list with everything but fluxes; `scale` turns Gaussian widths into FWHM of the PSF."""
    flags = flags_near(image.mask, y=fits.y, x=fits.x, radius=max(1.0, marks.fwhm / 2))
    light = contamination(fits.y, fits.x, np.nan_to_num(fits.flux), radius=5 * marks.fwhm, scale=marks.fwhm)
    stars = np.zeros(len(shapes), STAR_DTYPE)
    for name in ("y", "x", "y_err", "x_err"):
        stars[name] = getattr(fits, name)
    stars["fwhm"] = shapes.sigma * FWHM_PER_SIGMA * scale
    stars["ellipticity"], stars["peak"] = shapes.ellipticity, shapes.peak
    stars["is_star"], stars["psf_used"] = marks.on_locus, marks.shaped_psf
    stars["saturated"] = (flags & int(MaskPlane.SAT)) != 0
    stars["flagged"] = (flags & FLAGGED) != 0
    stars["blended"] = light > _BLENDED
    return stars


def _correction(stars: Records, ty: F64, tx: F64) -> ApertureCorrection:
    with np.errstate(divide="ignore", invalid="ignore"):
        return aperture_correction(stars["ap_flux"] / stars["flux"], stars["flux"] / stars["flux_err"], ty, tx)


def _growth(planes: tuple[F32, F32], fits: Photometry, psf: LocalPsf, index: IntArray, radius: float) -> float:
    """Return the median flux of stars within `radius` over their PSF flux; planes: residual and variance."""
    some = Photometry(*(getattr(fits, name)[index] for name in Photometry.__dataclass_fields__))
    inside, _ = aperture_sums(*planes, some, LocalPsf(psf.basis, psf.terms[index]), radius=radius)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = inside / some.flux
    return float(np.median(ratio[np.isfinite(ratio)])) if np.isfinite(ratio).any() else float("nan")
