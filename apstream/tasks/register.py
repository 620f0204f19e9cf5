"""Registration: the map between two images from the patterns of their stars, without any sky coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.match import StarMatch, clip, refine
from apstream.arrays.patterns import PatternLimits, align
from apstream.arrays.transform import PolyMap
from apstream.arrays.types import F64, Records
from apstream.errors import TooFewStars
from apstream.model.exposures import CalExp, CharacterizedExposure, scaled_stars
from apstream.model.geometry import Box
from apstream.model.measurements import scaled_measured
from apstream.model.photocalib import PhotoCalib
from apstream.model.wcs import SkyWcs
from apstream.tasks.find_sources import FindSourcesConfig, find_sources
from apstream.tasks.wcsfit import compose_wcs

__all__ = [
    "RegisterConfig",
    "Registration",
    "calibrate_to_reference",
    "flux_ratio",
    "instrumental_magnitude",
    "nominal_calexp",
    "nominal_wcs",
    "register",
    "register_stars",
    "scaled_calexp",
    "usable_stars",
]


class RegisterConfig(BaseModel):
    """How two images are aligned by their stars."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_shift_pixels: float = Field(600.0, gt=0, description="Largest shift of the image centre, pixels.")
    max_rotation_deg: float = Field(180.0, gt=0, le=180, description="Largest rotation, degrees.")
    max_scale_change: float = Field(0.03, gt=0, lt=0.5, description="Largest relative change of pixel scale.")
    pattern_tolerance_pixels: float = Field(
        1.5, gt=0, description="Scatter that star positions may have while patterns are compared, pixels."
    )
    match_radius_pixels: float = Field(4.0, gt=0, description="First radius of the star match, pixels.")
    degree: int = Field(1, ge=1, le=3, description="Degree of the final polynomial map, if stars allow.")
    nsigma: float = Field(3.0, gt=1, description="Residuals beyond so many standard deviations are rejected.")
    min_matches: int = Field(6, ge=3, description="Fewest matched stars of a good registration.")
    max_rms_pixels: float = Field(0.8, gt=0, description="Largest scatter per axis of a good one, pixels.")
    detection: FindSourcesConfig | None = Field(
        FindSourcesConfig(),
        description="Detection on an image that is calibrated by registration; null: the stars of characterization",
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Registration:
    """How a science image lies on a reference image.

    Parameters
    ----------
    to_reference
        Map of science pixels (y, x) to reference pixels (y, x), absolute on both sides.
    flux_ratio, flux_ratio_error
        Flux on the reference for one unit of flux on the science image, and its standard error.
    n_matched
        Stars that fix the map.
    rms_pixels
        Scatter per axis in reference pixels.
    """

    to_reference: PolyMap
    flux_ratio: float
    flux_ratio_error: float
    n_matched: int
    rms_pixels: float


def register(
    science: CharacterizedExposure | CalExp, reference: CharacterizedExposure | CalExp, config: RegisterConfig
) -> Registration:
    """Align `science` with `reference` by the patterns of their stars.

    Works without coordinates, for shifts, any rotation, small changes of scale, partial overlap and
    different depth, seeing and saturation.

    Raises
    ------
    TooFewStars
        If there are too few stars, no common pattern, or a bad fit; the message counts them.
    """
    return register_stars(science.stars, reference.stars, config)


def register_stars(science: Records, reference: Records, config: RegisterConfig) -> Registration:
    """Do what `register` does, from the two star lists (`STAR_DTYPE`)."""
    first, second = usable_stars(science), usable_stars(reference)
    _require_stars(len(first), len(second), config)
    limits = PatternLimits(
        tolerance=config.pattern_tolerance_pixels,
        max_shift=config.max_shift_pixels,
        max_rotation=config.max_rotation_deg,
        max_scale=config.max_scale_change,
    )
    pattern = align((first["y"], first["x"]), (second["y"], second["x"]), limits)
    if pattern is None:
        raise TooFewStars(
            f"no common star pattern in the image ({len(first)} stars) and its reference ({len(second)})",
            remedy="check that both show the same field; raise register.max_shift_pixels or "
            "register.max_scale_change, or lower the detection threshold",
        )
    match = _refined(first, second, pattern.map, config)
    _require_fit(match, config)
    ratio, error = flux_ratio(first[match.first], second[match.second])
    return Registration(
        to_reference=match.map,
        flux_ratio=ratio,
        flux_ratio_error=error,
        n_matched=len(match.first),
        rms_pixels=match.rms,
    )


def usable_stars(stars: Records) -> Records:
    """Return the stars with a centre and a positive flux and no bad pixels, brightest first."""
    good = np.isfinite(stars["y"]) & np.isfinite(stars["x"]) & (stars["flux"] > 0) & ~stars["flagged"]
    stars = stars[good]
    return stars[np.argsort(-stars["flux"], kind="stable")]


def instrumental_magnitude(stars: Records) -> F64:
    """Return -2.5 log10(flux), NaN for saturated stars."""
    with np.errstate(invalid="ignore", divide="ignore"):
        magnitude = -2.5 * np.log10(stars["flux"])
    return np.where(stars["saturated"], np.nan, magnitude)


def _refined(first: Records, second: Records, start: PolyMap, config: RegisterConfig) -> StarMatch:
    clean_first, clean_second = first[~first["saturated"]], second[~second["saturated"]]
    if min(len(clean_first), len(clean_second)) < config.min_matches:
        clean_first, clean_second = first, second
    match = refine(
        (clean_first["y"], clean_first["x"]),
        (clean_second["y"], clean_second["x"]),
        start,
        radius=config.match_radius_pixels,
        degree=config.degree,
        magnitude=(instrumental_magnitude(clean_first), instrumental_magnitude(clean_second)),
        nsigma=config.nsigma,
    )
    here = np.flatnonzero(~first["saturated"]) if clean_first is not first else np.arange(len(first))
    there = np.flatnonzero(~second["saturated"]) if clean_second is not second else np.arange(len(second))
    return replace(match, first=here[match.first], second=there[match.second])


def flux_ratio(first: Records, second: Records) -> tuple[float, float]:
    """Return the clipped mean of second / first fluxes of matched stars, and its standard error."""
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(second["flux"] / first["flux"])
    fair = np.isfinite(logs) & ~first["saturated"] & ~second["saturated"]
    logs = logs[fair] if fair.sum() >= 3 else logs[np.isfinite(logs)]
    errors = np.hypot(first["flux_err"] / first["flux"], second["flux_err"] / second["flux"])
    errors = errors[fair] if fair.sum() >= 3 else np.full(len(logs), 0.01)
    for _ in range(5):
        kept = clip(logs, 3.0, floor=1e-4)
        if kept.all():
            break
        logs, errors = logs[kept], errors[kept]
    weights = 1 / (np.nan_to_num(errors, nan=0.1).astype(float) ** 2 + max(float(np.var(logs)), 1e-8))
    mean = float(np.average(logs, weights=weights))
    return float(np.exp(mean)), float(np.exp(mean) * np.std(logs) / np.sqrt(len(logs)))


def calibrate_to_reference(char: CharacterizedExposure, reference: CalExp, config: RegisterConfig) -> CalExp:
    """Calibrate an image by registration: WCS and flux scale are inherited from `reference`.

    The image and its stars' fluxes are multiplied by the flux ratio, so they share the reference's nJy scale.

    Raises
    ------
    TooFewStars
        If the registration fails.
    """
    char = find_sources(char, config.detection)
    found = register(char, reference, config)
    calib = PhotoCalib(
        njy_per_unit=found.flux_ratio, error=found.flux_ratio_error, n_stars=found.n_matched, relative=True
    )
    metrics = {
        "register.n_matched": float(found.n_matched),
        "register.rms_pixels": found.rms_pixels,
        "register.flux_ratio": found.flux_ratio,
    }
    wcs = compose_wcs(reference.wcs, found.to_reference, char.box)
    return scaled_calexp(char, wcs, calib, metrics)


def nominal_calexp(char: CharacterizedExposure, *, pixel_scale_arcsec: float = 1.0) -> CalExp:
    """Make a reference image of one that has neither catalogue nor, perhaps, WCS.

    Its WCS is the header's, else a nominal TAN at the pointing (0, 0 where that is unknown); one unit of the
    image is called one nJy.
    """
    calib = PhotoCalib(njy_per_unit=1.0, relative=True)
    wcs = char.wcs or nominal_wcs(char.info.ra, char.info.dec, char.box, pixel_scale_arcsec)
    return scaled_calexp(char, wcs, calib, {})


def nominal_wcs(ra: float, dec: float, box: Box, pixel_scale_arcsec: float) -> SkyWcs:
    """Return a TAN WCS, north up, with the pointing (or 0, 0) at the centre of `box`."""
    ra, dec = (0.0, 0.0) if not (np.isfinite(ra) and np.isfinite(dec)) else (ra, dec)
    y, x = box.center
    return SkyWcs.tan(ra, dec, pixel_scale_arcsec=pixel_scale_arcsec, y=y, x=x)


def scaled_calexp(char: CharacterizedExposure, wcs: SkyWcs, calib: PhotoCalib, metrics: dict[str, float]) -> CalExp:
    """Return the calibrated exposure: pixels, variance and star fluxes in nJy."""
    at_stars = calib.scale_at(char.stars["y"], char.stars["x"])
    return CalExp(
        image=char.image.scaled(calib.scale_over(char.box), "nJy"),
        info=char.info,
        psf=char.psf,
        wcs=wcs,
        photo_calib=calib,
        stars=scaled_stars(char.stars, at_stars),
        metrics={**char.metrics, **metrics},
        measured=scaled_measured(char.measured, at_stars),
    )


def _require_stars(n_first: int, n_second: int, config: RegisterConfig) -> None:
    if min(n_first, n_second) < config.min_matches:
        raise TooFewStars(
            f"{n_first} stars in the image and {n_second} in its reference; "
            f"registration needs {config.min_matches} in each",
            remedy="lower the detection threshold or give both images a WCS",
        )


def _require_fit(match: StarMatch, config: RegisterConfig) -> None:
    if len(match.first) < config.min_matches or not match.rms <= config.max_rms_pixels:
        raise TooFewStars(
            f"registration ends with {len(match.first)} stars and a scatter of {match.rms:.2f} px",
            remedy=f"at least {config.min_matches} stars within {config.max_rms_pixels} px are asked for "
            "(register.min_matches, register.max_rms_pixels)",
        )
