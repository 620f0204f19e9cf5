"""Inputs of a coadd: exposures on its grid, opened part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from apstream.arrays.match import clip
from apstream.arrays.types import F32, F64, FloatArray, IntArray
from apstream.errors import NoGoodPixels
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf
from apstream.tasks.match_warp import MatchWarpConfig, kernel_half, match_warp, matching_terms
from apstream.tasks.psf_field import PsfInput
from apstream.tasks.warp import WarpConfig, warp

__all__ = [
    "WarpedInput",
    "clipped_mean",
    "empty_image",
    "matched_input",
    "mean_variance",
    "padded",
    "same_map",
    "warped_input",
]

#: Pixels of a source around those that a part maps to: the interpolation kernel, and bends of the map.
_SOURCE_MARGIN = 8
#: So far around the pixels of a warp what is missing is filled before it is convolved.
_RIM = 4
#: Pixels along a side that a mean variance is taken of.
_SAMPLE = 256


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
    scale
        What its pixels are multiplied by to come to the coadd's zero point; `weight` is that of scaled pixels.
    unit
        Of its pixels.
    """

    name: str
    open: Callable[[Box], MaskedImage]
    box: Box
    weight: float
    psf: PsfInput | None = None
    noise_share: float = 1.0
    scale: float = 1.0
    unit: str = "nJy"

    @classmethod
    def from_image(cls, name: str, image: MaskedImage, *, psf: Psf | None = None) -> WarpedInput:
        """Wrap an image that is already on the coadd's grid and in memory."""
        weight = 1 / mean_variance(image)
        own = None if psf is None else PsfInput(psf, same_map, image.box, weight)
        opened = partial(padded, image)
        return cls(name=name, open=opened, box=image.box, weight=weight, psf=own, unit=image.unit)

    def scaled_to(self, zero_point: float, own: float) -> WarpedInput:
        """Return the input on another photometric zero point, AB magnitudes of one unit; `own` is its own."""
        factor = float(10 ** (0.4 * (zero_point - own)))
        return replace(self, scale=self.scale * factor, weight=self.weight / factor**2)

    def fault(self, *, needs_psf: bool) -> str:
        """Say why the input cannot be used; empty if it can."""
        if not (np.isfinite(self.scale) and self.scale > 0):
            return "it has no photometric zero point"
        if not (np.isfinite(self.weight) and self.weight > 0):
            return f"its variance is broken: the weight is {self.weight:g}"
        if needs_psf and self.psf is None:
            return "it has no PSF, and the others have theirs"
        return ""


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
        if needed.is_empty:
            return empty_image(part)
        return warp(read(needed).cutout(needed), source.pixel_map, part, config)

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
        return padded(matched, part)

    return replace(
        direct,
        open=open_part,
        psf=PsfInput(Psf(target[None], direct.box), same_map, direct.box, direct.weight),
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
    return clipped_mean(image.variance)


def clipped_mean(variance: F32) -> float:
    """Return the clipped mean of a variance plane, free of stars; NoGoodPixels if there is none."""
    step = max(1, min(variance.shape) // _SAMPLE)
    values = variance[::step, ::step]
    good = np.isfinite(values) & (values > 0)
    if not good.any():
        raise NoGoodPixels("no pixel has a positive variance")
    kept = values[good]
    for _ in range(3):
        kept = kept[clip(kept, 3.0, floor=1e-6 * float(np.median(kept)))]
    return float(kept.mean(dtype=float))


def empty_image(box: Box) -> MaskedImage:
    """Return pixels that are not there: NaN with NO_DATA."""
    nothing = np.full(box.shape, np.nan, np.float32)
    return MaskedImage.make(nothing, np.full(box.shape, int(MaskPlane.NO_DATA), np.int32), nothing, "nJy", box)


def same_map(y: FloatArray, x: FloatArray) -> tuple[F64, F64]:
    """Map of an image that is on the coadd's grid already."""
    return np.asarray(y, float), np.asarray(x, float)


def padded(image: MaskedImage, box: Box) -> MaskedImage:
    """Return `box` of an image, NaN and NO_DATA beyond its border."""
    common = image.box.intersect(box)
    out = empty_image(box)
    planes_out: tuple[F32, IntArray, F32] = (out.image, out.mask, out.variance.copy())
    if not common.is_empty:
        for plane, source in zip(planes_out, (image.image, image.mask, image.variance), strict=True):
            plane[common.slices(box)] = source[common.slices(image.box)]
    return MaskedImage.make(*planes_out, image.unit, box)
