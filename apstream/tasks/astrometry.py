"""Astrometry: from stars and a catalogue to a WCS, however wrong the header's may be within limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.distortion import Distortion, fit_distortion
from apstream.arrays.match import StarMatch, mutual_nearest, refine
from apstream.arrays.patterns import PatternLimits, PatternMatch, align, confirm
from apstream.arrays.transform import PolyMap, from_affine
from apstream.arrays.types import F64, BoolArray, IntArray, Records
from apstream.errors import CalibrationFailed
from apstream.model.exposures import CharacterizedExposure
from apstream.model.geometry import Box
from apstream.model.refcat import RefCat
from apstream.model.wcs import SkyWcs, separation
from apstream.tasks.register import instrumental_magnitude
from apstream.tasks.wcsfit import wcs_from_sip

__all__ = [
    "Astrometry",
    "AstrometryConfig",
    "FirstGuess",
    "fit_astrometry",
    "match_catalogue",
    "stars_near",
    "with_first_guess",
]

#: Error of a centroid that no number of photons removes, pixels.
_FLOOR_PIXELS = 0.003
#: Of (y, x).
_MIRRORS = (np.diag([1.0, -1.0]), np.diag([-1.0, 1.0]))


class FirstGuess(BaseModel):
    """What stands for a header's WCS where there is none, about the pointing of the header."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixel_scale_arcsec: float | None = Field(None, gt=0, description="Pixel scale; none: the camera's.")
    rotation_deg: float = Field(0.0, description="Angle of the image, north up and east left at zero.")
    mirrored: bool = Field(False, description="Whether east is to the right.")


class AstrometryConfig(BaseModel):
    """How stars are matched to the catalogue and the WCS is fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_offset_arcsec: float = Field(60.0, gt=0, description="Largest error of the first-guess pointing, arcsec.")
    max_rotation_deg: float = Field(3.0, gt=0, le=180, description="Largest error of the first guess, degrees.")
    max_scale_error: float = Field(0.02, gt=0, lt=0.5, description="Largest relative error of its pixel scale.")
    first_guess: FirstGuess = Field(FirstGuess(), description="Scale and orientation where the header has no WCS")
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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Astrometry:
    """A WCS and how well it is known.

    Parameters
    ----------
    wcs
        TAN or TAN-SIP.
    n_matched, n_used
        Pairs found, and those that shaped the solution.
    rms_arcsec
        Scatter per axis of those.
    excess_arcsec
        The part of it that the known errors do not explain.
    error_arcsec
        Standard error per axis of the WCS itself, mean over the stars that made it.
    degree
        Of the distortion; three for a radial cubic term alone.
    mirrored
        Whether the first guess had the wrong parity.
    """

    wcs: SkyWcs
    n_matched: int
    n_used: int
    rms_arcsec: float
    excess_arcsec: float
    error_arcsec: float
    degree: int
    mirrored: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """The catalogue stars near the image, brightest first, where the first guess puts them."""

    stars: Records
    y: F64
    x: F64


def with_first_guess(
    char: CharacterizedExposure, config: AstrometryConfig, pixel_scale_arcsec: float | None = None
) -> CharacterizedExposure:
    """Return the exposure with a WCS: its own, or one about the pointing of its header.

    Raises
    ------
    CalibrationFailed
        If there is neither a WCS nor a pointing and a pixel scale.
    """
    if char.wcs is not None:
        return char
    guess, info = config.first_guess, char.info
    scale = guess.pixel_scale_arcsec or pixel_scale_arcsec
    if scale is None or not (np.isfinite(info.ra) and np.isfinite(info.dec)):
        lacks = "pixel scale" if scale is None else "pointing"
        raise CalibrationFailed(
            f"the image has no first-guess WCS and no {lacks}",
            remedy="give the header a WCS, or RA and DEC and calibrate.astrometry.first_guess.pixel_scale_arcsec; "
            "or register the image to a calibrated one",
        )
    y, x = char.box.center
    wcs = SkyWcs.tan(info.ra, info.dec, pixel_scale_arcsec=scale, y=y, x=x, rotation=guess.rotation_deg)
    return replace(char, wcs=wcs.mirrored() if guess.mirrored else wcs)


def fit_astrometry(char: CharacterizedExposure, stars: Records, refcat: RefCat, config: AstrometryConfig) -> Astrometry:
    """Match stars to the catalogue by their patterns and fit a TAN-SIP WCS.

    Parameters
    ----------
    char
        With a first-guess WCS, wrong by no more than the limits of `config`; wrong parity is found out.
    stars
        Usable rows of its stars, brightest first.
    refcat
        Positions at the epoch of the exposure.

    Raises
    ------
    CalibrationFailed
        If no catalogue star is near, there is no common pattern, or the fit is bad.
    """
    field = _nearby(char, refcat, config)
    match, mirrored = _match(stars, field, char.box, config)
    if len(match.first) < 3:
        _require(len(match.first), np.inf, len(stars), len(field.stars), config)
    first, second = match.first, match.second
    keep = _fair(stars[first])
    found = _fit(stars[first[keep]], field.stars[second[keep]], char, config)
    rms = float(np.sqrt(np.mean(found.residual[found.used] ** 2)))
    _require(int(found.used.sum()), rms, len(stars), len(field.stars), config)
    return Astrometry(
        wcs=wcs_from_sip(found.fit, char.box.center, char.box),
        n_matched=len(first),
        n_used=int(found.used.sum()),
        rms_arcsec=rms,
        excess_arcsec=found.excess,
        error_arcsec=found.error,
        degree=found.fit.degree,
        mirrored=mirrored,
    )


def stars_near(char: CharacterizedExposure, refcat: RefCat, wcs: SkyWcs, margin_arcsec: float) -> _Field:
    """Return the catalogue stars that `wcs` puts on the image or within a margin of it, brightest first."""
    ra, dec, radius = wcs.circle(char.box)
    rows = refcat.stars
    reach = radius + margin_arcsec / 3600
    rows = rows[np.abs(rows["dec"] - dec) <= reach]
    rows = rows[separation(np.array(ra), np.array(dec), rows["ra"], rows["dec"]) <= reach]
    rows = rows[np.isfinite(rows["mag"])]
    rows = rows[np.argsort(rows["mag"], kind="stable")]
    y, x = wcs.sky_to_pixel(rows["ra"], rows["dec"])
    inside = char.box.grow(round(margin_arcsec / wcs.pixel_scale_arcsec)).contains(y, x)
    return _Field(rows[inside], y[inside], x[inside])


def match_catalogue(
    char: CharacterizedExposure, stars: Records, refcat: RefCat, wcs: SkyWcs, radius_pixels: float
) -> tuple[IntArray, Records]:
    """Return indices of stars, and the catalogue stars nearest to them under the final WCS."""
    field = stars_near(char, refcat, wcs, 3 * radius_pixels * wcs.pixel_scale_arcsec)
    i, j = mutual_nearest((stars["y"], stars["x"]), (field.y, field.x), radius_pixels)
    return i, field.stars[j]


def _nearby(char: CharacterizedExposure, refcat: RefCat, config: AstrometryConfig) -> _Field:
    assert char.wcs is not None  # `with_first_guess` came before
    field = stars_near(char, refcat, char.wcs, config.max_offset_arcsec)
    if len(field.stars) < config.min_matches:
        ra, dec, radius = char.wcs.circle(char.box)
        raise CalibrationFailed(
            f"{len(field.stars)} catalogue stars within {radius + config.max_offset_arcsec / 3600:.3f} deg of "
            f"({ra:.4f}, {dec:.4f}), {config.min_matches} are needed; {len(refcat.stars)} in the whole catalogue"
            f"{_whereabouts(refcat)}",
            remedy=f"check the header's pointing and that the catalogue covers the field{_other_units(refcat)}",
        )
    return field


def _whereabouts(refcat: RefCat) -> str:
    """Tell where a catalogue lies: the median of unit vectors, as right ascension wraps."""
    if len(refcat.stars) == 0:
        return ""
    ra, dec = np.deg2rad(refcat.stars["ra"]), np.deg2rad(refcat.stars["dec"])
    middle = np.rad2deg(np.arctan2(np.median(np.sin(ra)), np.median(np.cos(ra)))) % 360
    return f", about ({middle:.4f}, {np.rad2deg(np.median(dec)):.4f})"


def _other_units(refcat: RefCat) -> str:
    """Ask for the units of a catalogue whose positions may be radians, or right ascensions hours."""
    ra, dec = refcat.stars["ra"], np.abs(refcat.stars["dec"])
    if len(ra) == 0 or not np.max(ra) <= 24:
        return ""
    radians = np.max(ra) <= 2 * np.pi and np.max(dec) <= np.pi / 2
    return "; its positions must be in degrees: " + ("are these radians?" if radians else "are these hours?")


def _match(stars: Records, field: _Field, box: Box, config: AstrometryConfig) -> tuple[StarMatch, bool]:
    """Find the map from image pixels to where the first guess puts the catalogue stars, and whether it mirrors."""
    limits = PatternLimits(
        tolerance=config.pattern_tolerance_pixels,
        max_rotation=config.max_rotation_deg,
        max_scale=config.max_scale_error,
        counts=(60, 120, 240, 480),
    )
    here, there = (stars["y"], stars["x"]), (field.y, field.x)
    pattern = align(here, there, limits) or confirm(here, there, limits)
    mirrored = pattern is None
    start = _through_mirrors(here, there, box, limits) if pattern is None else pattern.map
    if start is None:
        raise CalibrationFailed(
            f"no common pattern of {len(stars)} image stars and {len(field.stars)} catalogue stars",
            remedy="check pointing, pixel scale and orientation of the header's WCS, or raise "
            "max_offset_arcsec, max_rotation_deg or max_scale_error of calibrate.astrometry",
        )
    return _refine(stars, field, start, config), mirrored


def _through_mirrors(here: tuple[F64, F64], there: tuple[F64, F64], box: Box, limits: PatternLimits) -> PolyMap | None:
    """Find the map with the image mirrored in x or in y: a header whose parity is wrong."""
    center, quick = np.array(box.center), replace(limits, counts=limits.counts[:2])
    for flip in _MIRRORS:
        mirror = from_affine(flip, center - flip @ center)
        found: PatternMatch | None = align(mirror(*here), there, quick)
        if found is not None:
            matrix, offset = found.map.affine_at(*box.center)
            return from_affine(matrix @ flip, matrix @ (center - flip @ center) + offset)
    return None


def _refine(stars: Records, field: _Field, start: PolyMap, config: AstrometryConfig) -> StarMatch:
    return refine(
        (stars["y"], stars["x"]),
        (field.y, field.x),
        start,
        radius=config.match_radius_pixels,
        degree=min(config.max_degree, 3),
        magnitude=(instrumental_magnitude(stars), field.stars["mag"].astype(float)),
        nsigma=config.nsigma,
    )


def _fit(stars: Records, catalogue: Records, char: CharacterizedExposure, config: AstrometryConfig) -> Distortion:
    assert char.wcs is not None
    scale = char.wcs.pixel_scale_arcsec
    known = np.where(np.isfinite(catalogue["pos_err"]), catalogue["pos_err"], 0.0) / 1e3
    return fit_distortion(
        (stars["y"], stars["x"]),
        (catalogue["ra"], catalogue["dec"]),
        np.hypot(np.hypot(_centroid_error(stars), _FLOOR_PIXELS) * scale, known),
        crpix=char.box.center,
        max_degree=config.max_degree,
        nsigma=config.nsigma,
    )


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


def _require(matched: int, rms: float, n_stars: int, n_catalogue: int, config: AstrometryConfig) -> None:
    if matched < config.min_matches or not rms <= config.max_rms_arcsec:
        raise CalibrationFailed(
            f"astrometry ends with {matched} of {n_stars} stars matched to {n_catalogue} catalogue stars, "
            f"scatter {rms:.3f} arcsec",
            remedy=f"at least {config.min_matches} within {config.max_rms_arcsec} arcsec are asked for "
            "(calibrate.astrometry.min_matches, calibrate.astrometry.max_rms_arcsec)",
        )
