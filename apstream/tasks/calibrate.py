"""Calibration: WCS and photometric zero point from a reference catalogue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.match import StarMatch, mutual_nearest, refine
from apstream.arrays.patterns import PatternLimits, align, confirm
from apstream.arrays.polynomial import n_terms
from apstream.arrays.sip import fit_sip
from apstream.arrays.transform import PolyMap
from apstream.arrays.types import F64, BoolArray, IntArray, Records
from apstream.arrays.zeropoint import ZeroPoint, fit_zero_point
from apstream.errors import CalibrationFailed, TooFewStars
from apstream.model.exposures import CalExp, CharacterizedExposure
from apstream.model.geometry import Box
from apstream.model.photocalib import PhotoCalib
from apstream.model.refcat import RefCat, References
from apstream.model.wcs import SkyWcs, separation
from apstream.tasks.find_sources import FindSourcesConfig, find_sources
from apstream.tasks.register import instrumental_magnitude, scaled_calexp, usable_stars
from apstream.tasks.wcsfit import wcs_from_sip

__all__ = ["CalibrateConfig", "calibrate"]

#: Error of a catalogue position and of the distortion model that no number of photons removes, pixels.
_FLOOR_PIXELS = 0.005
#: Magnitude error taken for catalogue stars that have none.
_DEFAULT_MAG_ERROR = 0.02


class CalibrateConfig(BaseModel):
    """How stars are matched to the catalogue, and WCS and zero point are fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_offset_arcsec: float = Field(60.0, gt=0, description="Largest error of the first-guess pointing, arcsec.")
    max_rotation_deg: float = Field(3.0, gt=0, le=180, description="Largest error of the first guess, degrees.")
    max_scale_error: float = Field(0.02, gt=0, lt=0.5, description="Largest relative error of its pixel scale.")
    pattern_tolerance_pixels: float = Field(
        2.0,
        gt=0,
        description="Scatter allowed while star patterns are compared, pixels (distortion included).",
    )
    match_radius_pixels: float = Field(6.0, gt=0, description="First radius of the star match, pixels.")
    max_degree: int = Field(3, ge=1, le=5, description="Highest degree of the TAN-SIP polynomial.")
    nsigma: float = Field(3.0, gt=1, description="Residuals beyond so many standard deviations are rejected.")
    min_matches: int = Field(6, ge=3, description="Fewest matched stars of an astrometric solution.")
    max_rms_arcsec: float = Field(0.5, gt=0, description="Largest scatter per axis of a good solution, arcsec.")
    min_photometric_stars: int = Field(3, ge=2, description="Fewest stars of a zero point.")
    min_photometric_snr: float = Field(10.0, gt=0, description="Fainter stars do not shape the zero point.")
    detection: FindSourcesConfig | None = Field(
        FindSourcesConfig(), description="Detection before calibration; null: the stars of characterization are used"
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """The catalogue stars near the image, brightest first, where the first guess puts them."""

    ra: F64
    dec: F64
    mag: F64
    mag_err: F64
    y: F64
    x: F64


def calibrate(char: CharacterizedExposure, reference: RefCat | References, config: CalibrateConfig) -> CalExp:
    """Fit WCS and zero point and return the exposure in nJy.

    The header's WCS may be off by `max_offset_arcsec`, `max_rotation_deg` and `max_scale_error`. Catalogue
    positions are moved to the epoch of the exposure. Star fluxes and pixels of the result are in nJy.

    Raises
    ------
    CalibrationFailed
        If there is no first-guess WCS, no catalogue star near the image, no common pattern, a bad fit,
        or no zero point; the message counts what there was.
    TooFewStars
        If the image has fewer stars than a solution needs.
    """
    char = find_sources(char, config.detection)
    stars = usable_stars(char.stars)
    if len(stars) < config.min_matches:
        raise TooFewStars(
            f"{len(stars)} usable stars; astrometry needs {config.min_matches}",
            remedy="lower the detection threshold or calibrate.min_matches",
        )
    refcat = References.of(reference).astrometry
    field = _nearby(char, refcat, config)
    match = _match(stars, field, config)
    wcs, first, second, rms = _fit_astrometry(stars, field, match, char.box, config)
    _require_astrometry(len(first), rms, len(stars), len(field.ra), config)
    first, second = _rematch(stars, field, wcs, 3 * rms / wcs.pixel_scale_arcsec)
    zero = _fit_photometry(stars[first], field.mag[second], field.mag_err[second], config)
    calib = PhotoCalib.from_zero_point(zero.value, error_mag=zero.error, n_stars=zero.count)
    metrics = {
        "calibrate.n_matched": float(len(match.first)),
        "calibrate.astrometry_rms_arcsec": rms,
        "calibrate.zero_point": zero.value,
        "calibrate.zero_point_scatter": zero.scatter,
        "calibrate.zero_point_n_stars": float(zero.count),
        "calibrate.pointing_offset_arcsec": _pointing_offset(char, wcs),
    }
    return scaled_calexp(char, wcs, calib, metrics)


def _nearby(char: CharacterizedExposure, refcat: RefCat, config: CalibrateConfig) -> _Field:
    if char.wcs is None:
        raise CalibrationFailed(
            "the image has no first-guess WCS",
            remedy="give the header a WCS, or register the image to a calibrated one",
        )
    rows = refcat.at(char.info.mid_mjd_tai).stars
    ra, dec, radius = char.wcs.circle(char.box)
    reach = radius + config.max_offset_arcsec / 3600
    rows = rows[separation(np.array(ra), np.array(dec), rows["ra"], rows["dec"]) <= reach]
    rows = rows[np.isfinite(rows["mag"])]
    rows = rows[np.argsort(rows["mag"], kind="stable")]
    y, x = char.wcs.sky_to_pixel(rows["ra"], rows["dec"])
    margin = round(config.max_offset_arcsec / char.wcs.pixel_scale_arcsec)
    inside = char.box.grow(margin).contains(y, x)
    rows, y, x = rows[inside], y[inside], x[inside]
    if len(rows) < config.min_matches:
        raise CalibrationFailed(
            f"{len(rows)} catalogue stars within {reach:.3f} deg of ({ra:.4f}, {dec:.4f}); "
            f"{len(refcat.stars)} in the whole catalogue",
            remedy="check the header's pointing and that the catalogue covers the field",
        )
    return _Field(
        ra=rows["ra"],
        dec=rows["dec"],
        mag=rows["mag"].astype(float),
        mag_err=rows["mag_err"].astype(float),
        y=y,
        x=x,
    )


def _match(stars: Records, field: _Field, config: CalibrateConfig) -> StarMatch:
    """Find the map from image pixels to where the first guess puts the catalogue stars."""
    scale_limits = PatternLimits(
        tolerance=config.pattern_tolerance_pixels,
        max_rotation=config.max_rotation_deg,
        max_scale=config.max_scale_error,
        counts=(60, 120, 240, 480),
    )
    lists = (stars["y"], stars["x"]), (field.y, field.x)
    pattern = align(*lists, scale_limits) or confirm(*lists, scale_limits)
    if pattern is None:
        raise CalibrationFailed(
            f"no common pattern of {len(stars)} image stars and {len(field.ra)} catalogue stars",
            remedy="check pointing, pixel scale and orientation of the header's WCS, or raise "
            "calibrate.max_offset_arcsec, calibrate.max_rotation_deg or calibrate.max_scale_error",
        )
    return _refine(stars, field, pattern.map, config)


def _refine(stars: Records, field: _Field, start: PolyMap, config: CalibrateConfig) -> StarMatch:
    return refine(
        (stars["y"], stars["x"]),
        (field.y, field.x),
        start,
        radius=config.match_radius_pixels,
        degree=min(config.max_degree, 3),
        magnitude=(instrumental_magnitude(stars), field.mag),
        nsigma=config.nsigma,
    )


def _fit_astrometry(
    stars: Records, field: _Field, match: StarMatch, box: Box, config: CalibrateConfig
) -> tuple[SkyWcs, IntArray, IntArray, float]:
    """Fit TAN-SIP to the matches with rejection; return also the pairs kept and the scatter (arcsec)."""
    first, second = match.first, match.second
    keep = _fair(stars[first])
    first, second = first[keep], second[keep]
    if len(first) < 3:
        _require_astrometry(len(first), np.inf, len(stars), len(field.ra), config)
    used = np.ones(len(first), bool)
    weights = 1 / np.hypot(_centroid_error(stars[first]), _FLOOR_PIXELS)
    for _ in range(10):
        i, j = first[used], second[used]
        degree = max((d for d in range(1, config.max_degree + 1) if len(i) >= 4 * n_terms(d)), default=1)
        fit = fit_sip(
            (stars["y"][i], stars["x"][i]),
            (field.ra[j], field.dec[j]),
            crpix=box.center,
            degree=degree,
            weights=weights[used],
        )
        wcs = wcs_from_sip(fit, box.center, box)
        residual = _residual_arcsec(wcs, stars[first], field, second) * weights
        limit = config.nsigma * np.median(residual[used]) / 1.1774 * np.sqrt(2)
        kept = residual <= max(limit, 1e-9)
        if np.array_equal(kept, used) or kept.sum() < max(3, config.min_matches):
            break
        used = kept
    i, j = first[used], second[used]
    rms = float(np.sqrt(np.mean(_residual_arcsec(wcs, stars[i], field, j) ** 2) / 2))
    return wcs, i, j, rms


def _fair(stars: Records) -> BoolArray:
    """Tell which stars may shape the solution: not saturated, not blended, as long as enough are left."""
    for flags in (("saturated", "blended"), ("saturated",)):
        good = ~np.logical_or.reduce([stars[name] for name in flags])
        if good.sum() >= max(10, len(stars) // 4):
            return np.asarray(good)
    return np.ones(len(stars), bool)


def _centroid_error(stars: Records) -> F64:
    error = np.hypot(stars["y_err"], stars["x_err"]).astype(float) / np.sqrt(2)
    known = np.isfinite(error) & (error > 0)
    return np.where(known, error, np.median(error[known]) if known.any() else 0.1)


def _residual_arcsec(wcs: SkyWcs, stars: Records, field: _Field, index: IntArray) -> F64:
    ra, dec = wcs.pixel_to_sky(stars["y"], stars["x"])
    return separation(ra, dec, field.ra[index], field.dec[index]) * 3600


def _rematch(stars: Records, field: _Field, wcs: SkyWcs, radius: float) -> tuple[IntArray, IntArray]:
    """Match all stars under the final WCS; the fainter ones serve the zero point."""
    y, x = wcs.sky_to_pixel(field.ra, field.dec)
    near = np.isfinite(y)
    i, j = mutual_nearest((stars["y"], stars["x"]), (y[near], x[near]), max(radius, 0.7))
    return i, np.flatnonzero(near)[j]


def _fit_photometry(stars: Records, mag: F64, mag_err: F64, config: CalibrateConfig) -> ZeroPoint:
    snr = stars["flux"] / np.maximum(stars["flux_err"], 1e-30)
    good = (snr >= config.min_photometric_snr) & ~stars["saturated"]
    for clean in (stars["is_star"] & ~stars["blended"], stars["is_star"], np.ones(len(stars), bool)):
        if (good & clean).sum() >= max(10, config.min_photometric_stars):
            good = good & clean
            break
    error = np.hypot(1.0857 / np.maximum(snr, 1e-3), np.where(mag_err > 0, mag_err, _DEFAULT_MAG_ERROR))
    zero = fit_zero_point(stars["flux"][good], mag[good], error[good], nsigma=config.nsigma)
    if zero is None or zero.count < config.min_photometric_stars:
        raise CalibrationFailed(
            f"no zero point: {len(stars)} matched stars, {int(good.sum())} of them unsaturated with "
            f"S/N above {config.min_photometric_snr:g}, {zero.count if zero else 0} agree",
            remedy="check that the catalogue has magnitudes in the image's band",
        )
    return zero


def _pointing_offset(char: CharacterizedExposure, wcs: SkyWcs) -> float:
    if char.wcs is None:
        return float("nan")
    before, after = (w.pixel_to_sky(*char.box.center) for w in (char.wcs, wcs))
    return float(separation(*before, *after)) * 3600


def _require_astrometry(matched: int, rms: float, n_stars: int, n_catalogue: int, config: CalibrateConfig) -> None:
    if matched < config.min_matches or not rms <= config.max_rms_arcsec:
        raise CalibrationFailed(
            f"astrometry ends with {matched} of {n_stars} stars matched to {n_catalogue} catalogue stars, "
            f"scatter {rms:.3f} arcsec",
            remedy=f"at least {config.min_matches} within {config.max_rms_arcsec} arcsec are asked for "
            "(calibrate.min_matches, calibrate.max_rms_arcsec)",
        )
