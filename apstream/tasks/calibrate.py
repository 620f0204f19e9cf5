"""Calibration: WCS and photometric scale from reference catalogues."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.types import F64
from apstream.errors import TooFewStars
from apstream.model.exposures import CalExp, CharacterizedExposure
from apstream.model.mask import MaskPlane
from apstream.model.photocalib import PhotoCalib
from apstream.model.refcat import RefCat, References
from apstream.model.wcs import SkyWcs, separation
from apstream.tasks.astrometry import (
    Astrometry,
    AstrometryConfig,
    fit_astrometry,
    match_catalogue,
    with_first_guess,
)
from apstream.tasks.find_sources import FindSourcesConfig, find_sources
from apstream.tasks.photometry import Photometry, PhotometryConfig, fit_photometry
from apstream.tasks.register import scaled_calexp, usable_stars

__all__ = ["CalibrateConfig", "calibrate"]

#: Pixels in which the noise of the sky is not to be seen.
_NOT_SKY = int(MaskPlane.BAD | MaskPlane.SAT | MaskPlane.NO_DATA | MaskPlane.EDGE | MaskPlane.DETECTED)


class CalibrateConfig(BaseModel):
    """How WCS and zero point are fitted, and on which catalogues."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detection: FindSourcesConfig | None = Field(
        FindSourcesConfig(), description="Detection before calibration; null: the stars of characterization are used"
    )
    astrometry_refcat: str = Field("main", min_length=1, description="Catalogue of positions, by name.")
    photometry_refcat: str | None = Field(None, description="Catalogue of magnitudes; none: that of positions.")
    astrometry: AstrometryConfig = Field(AstrometryConfig(), description="The WCS")
    photometry: PhotometryConfig = Field(PhotometryConfig(), description="The zero point")
    wcs_form: Literal["sip", "tpv"] = Field("sip", description="How a distortion is written: TAN-SIP or TPV.")


def calibrate(char: CharacterizedExposure, reference: RefCat | References, config: CalibrateConfig) -> CalExp:
    """Fit WCS and zero point and return the exposure in nJy.

    The header's WCS may be off by `max_offset_arcsec`, `max_rotation_deg` and `max_scale_error`; where there is none,
    `first_guess` stands for it (`config.astrometry`). Catalogue positions are moved to the epoch of the exposure. Star
    fluxes and pixels of the result are in nJy, by the map of the zero point where there is one.

    Raises
    ------
    CalibrationFailed
        If there is no first-guess WCS, no catalogue star near the image, no common pattern, a bad fit,
        or no zero point; the message counts what there was.
    TooFewStars
        If the image has fewer stars than a solution needs.
    """
    char = with_first_guess(find_sources(char, config.detection), config.astrometry)
    stars = usable_stars(char.stars)
    if len(stars) < config.astrometry.min_matches:
        raise TooFewStars(
            f"{len(stars)} usable stars; astrometry needs {config.astrometry.min_matches}",
            remedy="lower the detection threshold or calibrate.astrometry.min_matches",
        )
    catalogues = References.of(reference)
    positions = catalogues.astrometry.at(char.info.mid_mjd_tai)
    same = catalogues.photometry is catalogues.astrometry
    magnitudes = positions if same else catalogues.photometry.at(char.info.mid_mjd_tai)
    astrometry = fit_astrometry(char, stars, positions, config.astrometry)
    radius = max(3 * astrometry.rms_arcsec / astrometry.wcs.pixel_scale_arcsec, 0.7)
    if not same:  # positions of the other catalogue may be worse
        radius = max(radius, config.astrometry.match_radius_pixels / 2)
    mine, theirs = match_catalogue(char, stars, magnitudes, astrometry.wcs, radius)
    photometry = fit_photometry(stars[mine], theirs, char.info, char.box, config.photometry)
    metrics = {**_position_metrics(char, astrometry), **_flux_metrics(char, astrometry.wcs, photometry)}
    wcs = astrometry.wcs.to_tpv() if config.wcs_form == "tpv" else astrometry.wcs
    return scaled_calexp(char, wcs, photometry.calib, metrics)


def _position_metrics(char: CharacterizedExposure, found: Astrometry) -> dict[str, float]:
    offset, rotation, scale = _correction(char, found.wcs)
    return {
        "calibrate.n_matched": float(found.n_matched),
        "calibrate.n_astrometry": float(found.n_used),
        "calibrate.astrometry_rms_arcsec": found.rms_arcsec,
        "calibrate.astrometry_excess_arcsec": found.excess_arcsec,
        "calibrate.wcs_error_arcsec": found.error_arcsec,
        "calibrate.wcs_degree": float(found.degree),
        "calibrate.pixel_scale_arcsec": found.wcs.pixel_scale_arcsec,
        "calibrate.pointing_offset_arcsec": offset,
        "calibrate.pointing_rotation_deg": rotation,
        "calibrate.pointing_scale": scale,
        "calibrate.parity_wrong": float(found.mirrored),
    }


def _flux_metrics(char: CharacterizedExposure, wcs: SkyWcs, found: Photometry) -> dict[str, float]:
    zero = found.zero
    metrics = {
        "calibrate.zero_point": found.calib.zero_point,
        "calibrate.zero_point_error": zero.error,
        "calibrate.zero_point_scatter": zero.scatter,
        "calibrate.zero_point_n_stars": float(zero.count),
        "calibrate.zero_point_map_rms": 0.0 if found.map is None else found.map.rms,
        "calibrate.depth_mag": _depth(char, found.calib),
    }
    sky = float(np.median(char.background.mesh)) / wcs.pixel_scale_arcsec**2
    if np.isfinite(sky) and sky > 0:
        metrics["calibrate.sky_mag_arcsec2"] = found.calib.zero_point - 2.5 * float(np.log10(sky))
    return metrics


def _depth(char: CharacterizedExposure, calib: PhotoCalib) -> float:
    """Return the AB magnitude of a point source of five sigma at the centre, in the typical noise of the sky."""
    step = 4 if min(char.box.shape) > 1000 else 1  # a million pixels tell the median
    mask, variance = char.image.mask[::step, ::step], char.image.variance[::step, ::step]
    sky = variance[((mask & _NOT_SKY) == 0) & (variance > 0)]
    if sky.size == 0:
        return float("nan")
    noise = float(np.sqrt(np.median(sky) * char.psf.effective_area()))
    return calib.zero_point - 2.5 * float(np.log10(5 * noise))


def _correction(char: CharacterizedExposure, wcs: SkyWcs) -> tuple[float, float, float]:
    """Return how far the first guess was off: arcsec, degrees (north to east), and the ratio of the scales."""
    assert char.wcs is not None  # `with_first_guess` came before
    y, x = char.box.center
    places = [w.pixel_to_sky(np.array([y, y + 10.0, y - 10.0]), np.full(3, x)) for w in (char.wcs, wcs)]
    (ra0, dec0), (ra1, dec1) = places
    offset = float(separation(ra0[0], dec0[0], ra1[0], dec1[0])) * 3600
    lengths, angles = zip(*(_bearing(ra, dec) for ra, dec in places), strict=True)
    turn = (angles[1] - angles[0] + 180) % 360 - 180
    return offset, float(turn), lengths[1] / lengths[0]


def _bearing(ra: F64, dec: F64) -> tuple[float, float]:
    """Return length (degrees) and angle (north to east) of the way from the third position to the second."""
    east = ((ra[1] - ra[2] + 180) % 360 - 180) * np.cos(np.deg2rad(dec[0]))
    north = dec[1] - dec[2]
    return float(np.hypot(east, north)), float(np.rad2deg(np.arctan2(east, north)))
