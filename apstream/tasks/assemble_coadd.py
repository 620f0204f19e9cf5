"""Coaddition: a clipped weighted mean of warped exposures, sub-region by sub-region."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import maximum_filter

from apstream.arrays.coadd import ClipLimits, clip_outliers, weighted_mean
from apstream.arrays.match import clip
from apstream.arrays.types import F32, F64, BoolArray, FloatArray, IntArray
from apstream.errors import NoGoodPixels
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane, planes
from apstream.model.psf import Psf
from apstream.tasks.match_warp import MatchWarpConfig, kernel_half, match_warp, matching_terms
from apstream.tasks.psf_field import PsfInput, combined_psf
from apstream.tasks.warp import WarpConfig, warp

__all__ = [
    "AssembleCoaddConfig",
    "Coadd",
    "WarpedInput",
    "assemble_coadd",
    "matched_input",
    "mean_variance",
    "warped_input",
]


#: Pixels of a source around those that a part maps to: the interpolation kernel, and bends of the map.
_SOURCE_MARGIN = 8
#: So far around the pixels of a warp what is missing is filled before it is convolved.
_RIM = 4
#: The PSF is called inexact within so many pixels of an input's end.
_ENDS = 3


class AssembleCoaddConfig(BaseModel):
    """How warped exposures are combined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip_nsigma: float | None = Field(
        5.0, gt=0, description="Deviations beyond so many standard deviations are clipped; null clips nothing."
    )
    clip_fraction: float = Field(
        0.8, ge=0, description="Fraction of the local brightness that inputs may differ by, for their seeing."
    )
    clip_reach_pixels: int = Field(4, ge=0, le=50, description="About the FWHM of a star, pixels.")
    clip_grow_pixels: int = Field(3, ge=0, le=50, description="How far a clipped spot takes its rim along, pixels.")
    bad_planes: tuple[str, ...] = Field(
        ("NO_DATA", "BAD", "SAT", "CR", "EDGE", "STREAK"), description="Pixels in these planes are left out."
    )
    removed_planes: tuple[str, ...] = Field((), description="Planes that are forgotten before anything else.")
    subregion_pixels: int = Field(512, ge=16, description="Side of the sub-regions that bound the memory, pixels.")
    psf_degree: int = Field(2, ge=0, le=4, description="Degree of the coadd PSF's variation.")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class WarpedInput:
    """An exposure on the coadd's grid, opened part by part.

    Parameters
    ----------
    open
        Returns the pixels of a box, NaN with NO_DATA where there are none; all inputs in one unit.
    box
        Where it may have data.
    weight
        One number for the whole input: 1 / mean variance, free of the sources' noise.
    psf
        For the PSF of the coadd; None leaves the input out of it.
    noise_share
        Which share of the variance plane the scatter of single pixels is; below one where noise is correlated.
    """

    name: str
    open: Callable[[Box], MaskedImage]
    box: Box
    weight: float
    psf: PsfInput | None = None
    noise_share: float = 1.0

    @classmethod
    def from_image(cls, name: str, image: MaskedImage, *, psf: Psf | None = None) -> WarpedInput:
        """Wrap an image that is already on the coadd's grid and in memory."""
        weight = 1 / mean_variance(image)
        own = None if psf is None else PsfInput(psf, _same, image.box, weight)
        return cls(name=name, open=lambda box: _padded(image, box), box=image.box, weight=weight, psf=own)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Coadd:
    """A coadd with what went into it.

    Parameters
    ----------
    image
        Mean, variance and mask; NaN with NO_DATA where no input reaches.
    count : ndarray, shape (ny, nx), int16
        Inputs used at every pixel.
    inputs, weights
        Names and weights of the inputs, in order.
    psf
        PSF on the coadd's grid; None if no input brought one.
    noise_share
        Which share of the variance plane the scatter of single pixels is.
    """

    image: MaskedImage
    count: NDArray[np.int16]
    inputs: tuple[str, ...]
    weights: tuple[float, ...]
    psf: Psf | None
    noise_share: float = 1.0


def assemble_coadd(inputs: Sequence[WarpedInput], target: Box, config: AssembleCoaddConfig) -> Coadd:
    """Combine aligned inputs on `target` into a clipped weighted mean.

    Outliers of three or more inputs (cosmic rays, asteroids, satellites) are dropped; the cores of stars are
    not, although seeing differs. Where all inputs are masked but have values, the values are used and stay
    masked. Memory grows with the sub-region and the number of inputs there; the result does not depend on it.

    Raises
    ------
    NoGoodPixels
        If no input has data on `target`.
    """
    ordered = [i for i in inputs if not i.box.intersect(target).is_empty]
    image = np.empty(target.shape, np.float32)
    variance = np.empty(target.shape, np.float32)
    mask, count = np.empty(target.shape, np.int32), np.empty(target.shape, np.int16)
    unit = "nJy"
    for box in _subregions(target, config.subregion_pixels):
        part, number = _assemble_part(ordered, box, target, config)
        where = box.slices(target)
        image[where], variance[where], mask[where] = part.image, part.variance, part.mask
        count[where], unit = number, part.unit
    if not count.any():
        raise NoGoodPixels(
            f"none of {len(inputs)} inputs has data on the coadd's box",
            remedy="choose exposures that overlap the patch",
        )
    with_psf = [i.psf for i in ordered if i.psf is not None]
    return Coadd(
        image=MaskedImage.make(image, mask, variance, unit, target),
        count=count,
        inputs=tuple(i.name for i in ordered),
        weights=tuple(i.weight for i in ordered),
        psf=combined_psf(with_psf, target, degree=config.psf_degree) if with_psf else None,
        noise_share=float(np.average([i.noise_share for i in ordered], weights=[i.weight for i in ordered])),
    )


def warped_input(
    name: str, read: Callable[[Box], MaskedImage], source: PsfInput, *, box: Box, config: WarpConfig
) -> WarpedInput:
    """Make an input that is read and warped when a part is asked for.

    Parameters
    ----------
    read
        Returns at least the pixels of a box of the exposure.
    source
        PSF, box and weight of the exposure, and the map of coadd pixels to its own.
    box
        Where on the coadd the exposure has data; the coadd's box will do.
    """

    def open_part(part: Box) -> MaskedImage:
        needed = _source_box(source, part)
        return _empty(part) if needed.is_empty else warp(read(needed), source.pixel_map, part, config)

    return WarpedInput(name=name, open=open_part, box=box, weight=source.weight, psf=source)


def _source_box(source: PsfInput, part: Box) -> Box:
    """Return the pixels of the exposure that a part of the coadd is interpolated from."""
    ys, xs = (np.linspace(a - 0.5, b - 0.5, 9) for a, b in ((part.y0, part.y1), (part.x0, part.x1)))
    y, x = source.pixel_map(*(v.ravel() for v in np.meshgrid(ys, xs, indexing="ij")))
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        return source.box
    low, high = (int(np.floor(y.min())), int(np.floor(x.min()))), (int(np.ceil(y.max())), int(np.ceil(x.max())))
    return Box(*low, *high).grow(_SOURCE_MARGIN).intersect(source.box)


def matched_input(direct: WarpedInput, target: F64, config: MatchWarpConfig) -> WarpedInput:
    """Make of an input with a PSF one whose PSF is `target`, shape (h, w), everywhere; see `match_warp`."""
    own = direct.psf
    if own is None:
        raise ValueError(f"{direct.name} has no PSF to match")
    reach = kernel_half(own, target, direct.box, config)
    middle = matching_terms(own, target, direct.box, reach, config)[0]

    def open_part(part: Box) -> MaskedImage:
        warped = direct.open(part.grow(reach))
        here = _data_box(warped)
        if here.is_empty:
            return warped.cutout(part)
        matched = match_warp(warped.cutout(here), matching_terms(own, target, here, reach, config))
        return _padded(matched, part)

    return replace(
        direct,
        open=open_part,
        psf=PsfInput(Psf(target[None], direct.box), _same, direct.box, direct.weight),
        noise_share=float(np.square(middle).sum()),
    )


def _data_box(image: MaskedImage) -> Box:
    """Return the smallest box around the pixels that have data, and a rim that may be filled."""
    there = np.isfinite(image.image)
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    y, x = image.box.y0, image.box.x0
    if not rows.size:
        return Box(y, x, y, x)
    return Box(y + rows[0], x + columns[0], y + rows[-1] + 1, x + columns[-1] + 1).grow(_RIM).intersect(image.box)


def mean_variance(image: MaskedImage) -> float:
    """Return the clipped mean of the variance plane, free of stars; NoGoodPixels if there is none."""
    values = image.variance[::4, ::4] if min(image.shape) > 64 else image.variance
    good = np.isfinite(values) & (values > 0)
    if not good.any():
        raise NoGoodPixels("no pixel has a positive variance")
    kept = values[good].astype(float)
    for _ in range(3):
        kept = kept[clip(kept, 3.0, floor=1e-6 * float(np.median(kept)))]
    return float(kept.mean())


def _subregions(target: Box, side: int) -> Iterator[Box]:
    for y in range(target.y0, target.y1, side):
        for x in range(target.x0, target.x1, side):
            yield Box(y, x, min(y + side, target.y1), min(x + side, target.x1))


def _assemble_part(
    inputs: Sequence[WarpedInput], box: Box, target: Box, config: AssembleCoaddConfig
) -> tuple[MaskedImage, NDArray[np.int16]]:
    limits = _limits(config)
    wide = box.grow(max(_ENDS, limits.margin if limits else 0)).intersect(target)
    here = [i for i in inputs if not i.box.intersect(wide).is_empty]
    if not here:
        return _empty(box), np.zeros(box.shape, np.int16)
    parts = [i.open(wide) for i in here]
    stack, variance = (np.stack([getattr(p, name) for p in parts]) for name in ("image", "variance"))
    mask = np.stack([p.mask for p in parts]) & ~planes(*config.removed_planes)
    valid = np.isfinite(stack) & np.isfinite(variance) & ((mask & MaskPlane.NO_DATA) == 0)
    good = valid & ((mask & planes(*config.bad_planes)) == 0)
    clipped = np.zeros(stack.shape, bool)
    if limits is not None:
        share = np.array([i.noise_share for i in here], np.float32)[:, None, None]
        clipped = clip_outliers(stack, variance * share, good, limits)
    mask[~valid] |= int(MaskPlane.NO_DATA)
    ends = ~valid & maximum_filter(valid, (1, 2 * _ENDS + 1, 2 * _ENDS + 1))
    inner = (slice(None), *box.slices(wide))
    stack, variance, mask, valid, good, clipped, ends = (
        np.ascontiguousarray(a[inner]) for a in (stack, variance, mask, valid, good, clipped, ends)
    )
    use = good & ~clipped
    use |= valid & ~use.any(axis=0)  # where nothing is clean, what there is; its mask stays
    mean, noise, count = weighted_mean(stack, variance, use, np.array([i.weight for i in here]))
    bits = _coadd_mask(mask, use, clipped, ends)
    return MaskedImage.make(mean, bits, noise, parts[0].unit, box), count


def _limits(config: AssembleCoaddConfig) -> ClipLimits | None:
    if config.clip_nsigma is None:
        return None
    return ClipLimits(
        nsigma=config.clip_nsigma,
        fraction=config.clip_fraction,
        reach=config.clip_reach_pixels,
        grow=config.clip_grow_pixels,
    )


def _coadd_mask(mask: IntArray, use: BoolArray, clipped: BoolArray, ends: BoolArray) -> IntArray:
    """Return the union of the used pixels' planes, and what happened to the others."""
    out = np.bitwise_or.reduce(np.where(use, mask, 0), axis=0) & ~int(MaskPlane.EDGE)
    edge = ((mask & MaskPlane.EDGE) != 0) & ~clipped
    present = (mask & MaskPlane.NO_DATA) == 0
    for where, bits in (
        (clipped, MaskPlane.CLIPPED | MaskPlane.INEXACT_PSF),
        (present & ~use & ~clipped & ~edge, MaskPlane.REJECTED | MaskPlane.INEXACT_PSF),
        (edge, MaskPlane.SENSOR_EDGE | MaskPlane.INEXACT_PSF),
        (ends, MaskPlane.INEXACT_PSF),
        (present & ((mask & MaskPlane.SAT) != 0), MaskPlane.SAT),  # some input lost the star's core here
    ):
        out |= np.where(where.any(axis=0), np.int32(bits), 0)
    return np.asarray(np.where(use.any(axis=0), out, int(MaskPlane.NO_DATA)), np.int32)


def _empty(box: Box) -> MaskedImage:
    nothing = np.full(box.shape, np.nan, np.float32)
    return MaskedImage.make(nothing, np.full(box.shape, int(MaskPlane.NO_DATA), np.int32), nothing, "nJy", box)


def _same(y: FloatArray, x: FloatArray) -> tuple[F64, F64]:
    return np.asarray(y, float), np.asarray(x, float)


def _padded(image: MaskedImage, box: Box) -> MaskedImage:
    """Return `box` of an image, NaN and NO_DATA beyond its border."""
    common = image.box.intersect(box)
    out = _empty(box)
    planes_out: tuple[F32, IntArray, F32] = (out.image, out.mask, out.variance.copy())
    if not common.is_empty:
        for plane, source in zip(planes_out, (image.image, image.mask, image.variance), strict=True):
            plane[common.slices(box)] = source[common.slices(image.box)]
    return MaskedImage.make(*planes_out, image.unit, box)
