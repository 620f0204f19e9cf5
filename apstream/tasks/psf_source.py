"""Where the PSF comes from: measured, supplied with the image, or a Gaussian that the user asks for."""

from __future__ import annotations

from typing import Literal

import numpy as np

from apstream.errors import BadSettings, MissingPsf
from apstream.model.exposures import Exposure
from apstream.model.psf import Psf

__all__ = ["GAUSSIAN_HALF_FWHM", "PsfSource", "check_gaussian", "given_psf"]

PsfSource = Literal["measured", "supplied", "gaussian"]
GAUSSIAN_HALF_FWHM = 2.5


def check_gaussian(source: PsfSource, arcsec: float | None, pixel: float | None) -> None:
    """Refuse widths of a Gaussian that are missing, given twice, or given where none is used; ValueError."""
    given = sum(width is not None for width in (arcsec, pixel))
    if source == "gaussian" and given != 1:
        raise ValueError("psf_source=gaussian needs one of gaussian_fwhm_arcsec and gaussian_fwhm_pixel")
    if source != "gaussian" and given:
        raise ValueError(f"the width of a Gaussian is not used with psf_source={source}")


def given_psf(exposure: Exposure, source: PsfSource, *, arcsec: float | None, pixel: float | None) -> Psf | None:
    """Return the PSF on the exposure's own box, None where it is to be measured.

    Raises
    ------
    MissingPsf
        If a supplied PSF is wanted and none came with the exposure.
    BadSettings
        If a width in arcsec meets an image without WCS.
    """
    if source == "measured":
        return None
    if source == "gaussian":
        fwhm = pixel if pixel is not None else _pixels(exposure, arcsec)
        return Psf.gaussian(fwhm, exposure.box, half=max(5, int(np.ceil(GAUSSIAN_HALF_FWHM * fwhm))))
    if exposure.psf is None:
        raise MissingPsf(
            "psf_source=supplied, but no PSF came with the image",
            remedy="supply one (--psf, Exposure.psf), or let it be measured with psf_source=measured",
        )
    return exposure.psf.on(exposure.box)


def _pixels(exposure: Exposure, arcsec: float | None) -> float:
    if exposure.wcs is None or arcsec is None:
        raise BadSettings(
            "gaussian_fwhm_arcsec needs the pixel scale, and the image has no WCS",
            remedy="give gaussian_fwhm_pixel instead",
        )
    return arcsec / exposure.wcs.pixel_scale_arcsec
