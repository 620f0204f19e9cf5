"""The template: coadd patches or calibrated exposures on the pixel grid of a science image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.coadd import add_part, finish_sum
from apstream.arrays.match import refine
from apstream.arrays.moments import adaptive_moments
from apstream.arrays.polynomial import n_terms
from apstream.arrays.transform import PolyMap, from_affine
from apstream.arrays.types import F64, FloatArray, Records
from apstream.errors import NoTemplateOverlap, TooFewStars
from apstream.model.exposures import STAR_DTYPE, CalExp, CharacterizedExposure, Template
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf, PsfPart
from apstream.model.wcs import SkyWcs
from apstream.tasks.psf_field import PsfInput, combined_psf
from apstream.tasks.register import RegisterConfig, register_stars, usable_stars
from apstream.tasks.warp import PixelMap, WarpConfig, warp, wcs_map
from apstream.tasks.warped_input import mean_variance
from apstream.words import counted

__all__ = ["TemplateConfig", "TemplateInput", "make_template"]

#: Stars that check the alignment.
_MAX_STARS = 600
_MIN_SNR = 20.0
#: Below so many the correction is linear.
_STARS_FOR_CURVES = 100
_CHECK_CELL = 64


class TemplateConfig(BaseModel):
    """How templates are brought onto the science image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_coverage: float = Field(0.1, ge=0, le=1, description="Smallest fraction of the image to be covered.")
    warp: WarpConfig = Field(WarpConfig(), description="Resampling")
    registration: RegisterConfig = Field(
        RegisterConfig(), description="Alignment by star patterns where a WCS is missing or wrong"
    )
    check_radius_pixels: float | None = Field(
        3.0,
        gt=0,
        description="Stars of both images are compared within this radius to correct what the WCSs leave, "
        "pixels; null trusts the WCSs.",
    )
    check_degree: int = Field(2, ge=1, le=3, description="Degree of that correction, if stars allow.")
    check_min_stars: int = Field(12, ge=3, description="Fewest stars for a correction.")
    check_max_rms_pixels: float = Field(0.5, gt=0, description="Scatter above which no correction is made, pixels.")
    psf_degree: int = Field(2, ge=0, le=4, description="Degree of the template PSF's variation.")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TemplateInput:
    """One image a template is made from.

    Parameters
    ----------
    wcs
        None if it has none; then `stars` align it, or `pixel_map` says where it lies.
    stars
        Rows of `STAR_DTYPE`, possibly none; they check and correct the alignment.
    pixel_map
        Science pixels (y, x) to pixels of `image`; given, it is used as it is.
    shares_noise
        Whether where it overlaps another input both hold the same exposures, as patches of a coadd do.
    psf_parts
        What every exposure in it gives to its PSF, where `psf` cannot follow its steps.
    """

    image: MaskedImage
    psf: Psf
    name: str
    wcs: SkyWcs | None = None
    stars: Records | None = None
    pixel_map: PixelMap | None = None
    shares_noise: bool = False
    psf_parts: tuple[PsfPart, ...] = ()

    @classmethod
    def from_image(cls, exposure: CalExp | CharacterizedExposure, name: str) -> TemplateInput:
        """Take an exposure or a coadd patch with its PSF, WCS and stars."""
        shares = exposure.info.observation_type == "coadd"
        return cls(
            image=exposure.image,
            psf=exposure.psf,
            name=name,
            wcs=exposure.wcs,
            stars=exposure.stars,
            shares_noise=shares,
            psf_parts=exposure.psf_parts if isinstance(exposure, CalExp) else (),
        )


def make_template(
    inputs: Sequence[TemplateInput], science: CalExp | CharacterizedExposure, config: TemplateConfig
) -> Template:
    """Warp the inputs to the science grid and merge them.

    Where both sides have a WCS it aligns them, and stars correct what is left; else star patterns do.
    Where inputs overlap they are averaged with one weight per input.

    Returns
    -------
    Template
        Finite everywhere: zero with the median variance where the mask has NO_DATA.

    Raises
    ------
    NoTemplateOverlap
        If less than `min_coverage` of the image is covered.
    TooFewStars
        If there is no WCS and the star patterns do not match.
    """
    maps = [_pixel_map(item, science, config) for item in inputs]
    parts: list[tuple[Box, MaskedImage, float]] = []
    used: list[TemplateInput] = []
    psfs: list[PsfInput] = []
    for item, pixel_map in zip(inputs, maps, strict=True):
        where = _reach(pixel_map, item.image.box, science.box)
        if where.is_empty:
            continue
        weight = 1 / mean_variance(item.image)
        parts.append((where, warp(item.image, pixel_map, where, config.warp), weight))
        used.append(item)
        psfs += _psf_inputs(item, pixel_map, weight)
    shared = all(item.shares_noise for item in inputs)
    merged, coverage = _merge(parts, science.box, shared=shared)
    if not used or coverage < config.min_coverage:
        raise NoTemplateOverlap(
            f"{coverage:.1%} of the image is covered by {counted(len(inputs), 'template')}; "
            f"{config.min_coverage:.0%} is asked for",
            remedy="build a template for this part of the sky, or lower template.min_coverage",
        )
    return Template(
        image=merged,
        psf=combined_psf(psfs, science.box, degree=config.psf_degree),
        inputs=tuple(item.name for item in used),
        coverage=coverage,
    )


def _psf_inputs(item: TemplateInput, pixel_map: PixelMap, weight: float) -> list[PsfInput]:
    """Return the PSF of an input, or those of the exposures in it, whose weights add up to about its own."""
    box, parts = item.image.box, item.psf_parts
    if not parts:
        return [PsfInput(item.psf, pixel_map, box, weight)]
    return [PsfInput(part.psf, pixel_map, box, part.weight, part.outline) for part in parts]


def _pixel_map(item: TemplateInput, science: CalExp | CharacterizedExposure, config: TemplateConfig) -> PixelMap:
    """Return the map of science pixels to pixels of the input."""
    if item.pixel_map is not None:
        return item.pixel_map
    stars = np.zeros(0, STAR_DTYPE) if item.stars is None else item.stars
    if science.wcs is None or item.wcs is None:
        return register_stars(science.stars, stars, config.registration).to_reference
    by_sky = wcs_map(science.wcs, item.wcs)
    if config.check_radius_pixels is None:
        return by_sky
    correction = _correction(by_sky, item, science, config)
    if correction is not None:
        return lambda y, x: correction(*by_sky(y, x))
    return _fallback(by_sky, item, science, config)


def _fallback(
    by_sky: PixelMap, item: TemplateInput, science: CalExp | CharacterizedExposure, config: TemplateConfig
) -> PixelMap:
    """Align by patterns where stars are plentiful on both sides and the WCSs yet do not bring them together."""
    stars = usable_stars(science.stars)
    y, x = by_sky(stars["y"], stars["x"])
    expected = int(np.count_nonzero(item.image.box.contains(y, x)))
    if item.stars is None or min(expected, len(item.stars)) < 2 * config.check_min_stars:
        return by_sky
    try:
        return register_stars(science.stars, item.stars, config.registration).to_reference
    except TooFewStars:
        return by_sky


def _correction(
    by_sky: PixelMap, item: TemplateInput, science: CalExp | CharacterizedExposure, config: TemplateConfig
) -> PolyMap | None:
    """Fit what moves the stars' positions by WCS to where they are on the input; None if there is no good fit.

    A correction within its own error is left out: the WCSs, fitted to many more stars, are better.
    """
    stars = _sharp_stars(science.stars)
    y, x = by_sky(stars["y"], stars["x"])
    margin = -min(8, min(item.image.shape) // 4)
    inside = item.image.box.grow(margin).contains(y, x)
    y, x = y[inside][:_MAX_STARS], x[inside][:_MAX_STARS]
    if len(y) < config.check_min_stars:
        return None
    if item.stars is not None and len(item.stars):
        there = usable_stars(item.stars)
        second = (there["y"], there["x"])
    else:
        second = _centroids(item, y, x)
    same = from_affine(np.eye(2), np.zeros(2))
    degree = config.check_degree if len(y) >= _STARS_FOR_CURVES else 1
    match = refine((y, x), second, same, radius=config.check_radius_pixels or 3.0, degree=degree)
    enough = len(match.first) >= max(config.check_min_stars, len(y) // 4)
    if not enough or match.rms > config.check_max_rms_pixels:
        return None
    moved_y, moved_x = match.map(y, x)
    moved = float(np.sqrt(np.mean(np.r_[moved_y - y, moved_x - x] ** 2)))
    noise = match.rms * np.sqrt(n_terms(match.map.degree) / len(match.first))
    return match.map if moved > 2 * noise else same


def _sharp_stars(stars: Records) -> Records:
    """Return the stars whose centres are well known, brightest first."""
    stars = usable_stars(stars)
    clear = ~stars["saturated"] & ~stars["blended"]
    clear &= stars["flux"] > _MIN_SNR * stars["flux_err"]
    return np.asarray(stars[clear])


def _centroids(item: TemplateInput, y: F64, x: F64) -> tuple[FloatArray, FloatArray]:
    """Return the measured positions of stars near (y, x) on the input; those that fail are dropped."""
    image, box = item.image, item.image.box
    bad = image.flagged(int(MaskPlane.NO_DATA | MaskPlane.SAT | MaskPlane.BAD)) | ~np.isfinite(image.image)
    pixels = np.where(bad, np.float32(0), image.image)
    found = adaptive_moments(pixels, bad, y=y - box.y0, x=x - box.x0, sigma=item.psf.fwhm() / 2.3548)
    good = np.isfinite(found["yy"])
    return found["y"][good] + box.y0, found["x"][good] + box.x0


def _reach(pixel_map: PixelMap, source: Box, target: Box) -> Box:
    """Return the part of `target` that `pixel_map` may take into `source`, on the cells of a coarse grid."""
    ys, xs = (np.append(np.arange(a, b, _CHECK_CELL), b) for a, b in ((target.y0, target.y1), (target.x0, target.x1)))
    y, x = np.meshgrid(ys.astype(float), xs.astype(float), indexing="ij")
    sy, sx = (a.reshape(y.shape) for a in pixel_map(y.ravel(), x.ravel()))
    step = np.nanmax(np.abs([*np.diff(sy, axis=0).ravel(), *np.diff(sx, axis=1).ravel(), 1.0]))
    near = source.grow(int(np.ceil(step)) + 8).contains(sy, sx)
    if not near.any():
        return Box(target.y0, target.x0, target.y0, target.x0)
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    y0, y1 = ys[max(rows[0] - 1, 0)], ys[min(rows[-1] + 1, len(ys) - 1)]
    x0, x1 = xs[max(columns[0] - 1, 0)], xs[min(columns[-1] + 1, len(xs) - 1)]
    return Box(int(y0), int(x0), int(y1), int(x1))


def _merge(parts: Sequence[tuple[Box, MaskedImage, float]], target: Box, *, shared: bool) -> tuple[MaskedImage, float]:
    """Average the parts, each with one weight; return also which fraction of `target` has data.

    Parts that share their noise have no less of it where they overlap.
    """
    image, variance, weight = (np.zeros(target.shape, np.float32) for _ in range(3))
    mask, rim = (np.zeros(target.shape, np.int32) for _ in range(2))
    total = (image, variance, weight, mask, rim)
    bits = (int(MaskPlane.NO_DATA), int(MaskPlane.EDGE))
    for box, part, own in parts:
        place = (box.y0 - target.y0, box.x0 - target.x0)
        add_part(total, (part.image, part.variance, part.mask), place, own / parts[0][2], bits, shared)
    count = finish_sum(total, bits[0], shared)
    if count:
        gone = weight == 0
        variance[gone] = np.median(variance[::4, ::4][~gone[::4, ::4]]) if (~gone[::4, ::4]).any() else 1.0
    unit = parts[0][1].unit if parts else "nJy"
    return MaskedImage.make(image, mask, variance, unit, target), count / image.size
