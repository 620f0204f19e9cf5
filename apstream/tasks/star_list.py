"""The star list of an exposure: positions, fluxes, shapes and flags of all sources, and the aperture correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.moments import FWHM_PER_SIGMA
from apstream.arrays.polynomial import poly_terms
from apstream.arrays.sources import LocalPsf, Photometry, Shapes, aperture_sums, flags_near, psf_photometry
from apstream.arrays.stars import contamination
from apstream.arrays.stats import clip_mask
from apstream.arrays.types import F64, BoolArray, Records
from apstream.model.exposures import STAR_DTYPE
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf

__all__ = ["FLAGGED", "Marks", "list_stars"]

#: Planes that make a star `flagged`.
FLAGGED = int(MaskPlane.BAD | MaskPlane.CR | MaskPlane.EDGE | MaskPlane.NO_DATA)
_BLENDED = 0.1  # light of neighbours relative to the star's own


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """What the choice of stars found: stellar FWHM (of the matched Gaussian, pixels) and, per source, its roles."""

    fwhm: float
    on_locus: BoolArray
    shaped_psf: BoolArray


def list_stars(
    image: MaskedImage, shapes: Shapes, psf: Psf, *, marks: Marks, aperture_fwhm: float
) -> tuple[Records, float]:
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
    stars : ndarray, shape (n,)
        `STAR_DTYPE`, array pixels; NaN flux where the PSF could not be fitted.
    aperture_correction
        Aperture over PSF flux. `flux` itself is the PSF flux, on whose scale differences are measured too.
    """
    ty, tx = image.box.normalize(shapes.y, shapes.x)
    local = LocalPsf(psf.basis, np.ascontiguousarray(poly_terms(ty, tx, psf.degree).T))
    fits, residual = psf_photometry(image.image, image.variance, local, shapes, radius=max(1.2 * marks.fwhm, 2.5))
    ap_flux, ap_err = aperture_sums(residual, image.variance, fits, local, radius=aperture_fwhm * psf.fwhm())
    stars = _describe(image, shapes, fits, marks, scale=psf.fwhm() / marks.fwhm)
    stars["ap_flux"], stars["ap_flux_err"] = ap_flux, ap_err
    correction = _aperture_correction(fits, ap_flux, marks.shaped_psf & ~stars["flagged"])
    stars["flux"], stars["flux_err"] = fits.flux, fits.flux_err
    return stars, correction


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


def _aperture_correction(fits: Photometry, ap_flux: F64, used: BoolArray) -> float:
    """Return the median ratio of aperture to PSF flux of the brighter PSF stars, clipped; 1 without any."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (ap_flux / fits.flux)[used]
        snr = (fits.flux / fits.flux_err)[used]
    good = np.isfinite(ratio) & np.isfinite(snr)
    if not good.any():
        return 1.0
    good &= snr >= min(200.0, float(np.median(snr[good])))
    keep = clip_mask(ratio[good], floor=1e-3)
    return float(np.median(ratio[good][keep])) if keep.any() else 1.0
