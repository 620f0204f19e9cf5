"""Coaddition: a weighted mean (or another statistic) of warped exposures, sub-region by sub-region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from apstream.arrays.artifacts import saturated_in_most
from apstream.arrays.found_mean import FoundMean, finish_mean
from apstream.arrays.running_mean import RunningSums, SumBits, add_image, usable, used_input
from apstream.arrays.types import F32, BoolArray
from apstream.errors import BadSettings, NoGoodPixels
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane, planes
from apstream.model.psf import Psf
from apstream.tasks.coadd_mask import coadd_mask, ends_of, mark_edges
from apstream.tasks.coadd_statistics import ClippedMean, Statistic, Values, WeightedMean, sigma_clip, value_of
from apstream.tasks.find_artifacts import ArtifactConfig, ArtifactSearch, find_artifacts, prepare_search
from apstream.tasks.psf_field import CoaddPsf, combined_psf
from apstream.tasks.warped_input import WarpedInput
from apstream.words import counted, listed

__all__ = ["AssembleCoaddConfig", "Coadd", "Skipped", "assemble_coadd", "usable_inputs"]

#: The PSF is called inexact within so many pixels of an input's end.
_ENDS = 3
#: Memory for one pixel of one input while all inputs of a sub-region are open: its planes and copies of them.
_BYTES_PER_PIXEL = 26
_SMALLEST_SIDE = 32
#: Sub-regions that need one input at a time are no larger than what a processor keeps at hand.
_STRIP_PIXELS = 1 << 21
#: Sub-regions as wide as the target are at least so many margins high.
_FLATTEST = 6


class AssembleCoaddConfig(BaseModel):
    """How warped exposures are combined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    statistic: Statistic = Field(WeightedMean(), description="How the values of a pixel become one.")
    artifacts: ArtifactConfig | None = Field(
        ArtifactConfig(), description="What is left out because other epochs do not show it; null leaves out nothing."
    )
    bad_planes: tuple[str, ...] = Field(
        ("NO_DATA", "BAD", "SAT", "CR", "EDGE", "STREAK"), description="Pixels in these planes are left out."
    )
    removed_planes: tuple[str, ...] = Field((), description="Planes that are forgotten before anything else.")
    saturated_fraction: float = Field(
        0.1, ge=0, lt=1, description="SAT is set where more than this fraction of the inputs is saturated."
    )
    subregion_pixels: int = Field(
        2048, ge=16, description="Side of the largest sub-regions, pixels; wider ones are as much less high."
    )
    memory_mb: int = Field(
        512, ge=1, description="Memory for the pixels of all inputs of a sub-region; many inputs make it smaller, MB."
    )
    psf_degree: int = Field(2, ge=0, le=4, description="Degree of the coadd PSF's variation.")

    @field_validator("bad_planes", "removed_planes")
    @classmethod
    def _known_planes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        planes(*names)
        return names

    @property
    def keeps_all(self) -> bool:
        """Whether all inputs of a sub-region must be in memory together."""
        return self.artifacts is not None or not isinstance(self.statistic, WeightedMean)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An input that is not in the coadd, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Coadd:
    """A coadd with what went into it.

    Parameters
    ----------
    image
        Value, variance and mask; NaN with NO_DATA where no input reaches.
    count : ndarray, shape (ny, nx), int16
        Inputs used at every pixel.
    input_map : ndarray, shape (ceil(n / 32), ny, nx), uint32
        Which: bit k % 32 of plane k // 32 belongs to input k.
    weight : ndarray, shape (ny, nx), float32
        Sum of the weights of the inputs used.
    inputs, weights, scales
        Names and weights of the inputs, in order, and what their pixels were multiplied by to come to one
        photometric zero point.
    psf
        PSF on the coadd's grid, a polynomial through that of the inputs; None if no input brought one.
    exact_psf
        The PSF at any position, exact where inputs end inside the box.
    skipped
        Inputs that could not be used, and why.
    noise_share
        Which share of the variance plane the scatter of single pixels is.
    """

    image: MaskedImage
    count: NDArray[np.int16]
    input_map: NDArray[np.uint32]
    weight: F32
    inputs: tuple[str, ...]
    weights: tuple[float, ...]
    scales: tuple[float, ...]
    psf: Psf | None
    exact_psf: CoaddPsf | None = None
    skipped: tuple[Skipped, ...] = ()
    noise_share: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Planes:
    """The planes of the result, filled part by part."""

    image: F32
    variance: F32
    mask: NDArray[np.int32]
    weight: F32
    count: NDArray[np.int16]
    input_map: NDArray[np.uint32]

    @classmethod
    def make(cls, n: int, shape: tuple[int, int]) -> _Planes:
        image, variance, weight = (np.zeros(shape, np.float32) for _ in range(3))
        input_map = np.zeros((max(1, -(-n // 32)), *shape), np.uint32)
        return cls(image, variance, np.zeros(shape, np.int32), weight, np.zeros(shape, np.int16), input_map)


def assemble_coadd(
    inputs: Sequence[WarpedInput],
    target: Box,
    config: AssembleCoaddConfig,
    *,
    extras: Mapping[str, Sequence[Any]] | None = None,
) -> Coadd:
    """Combine aligned inputs on `target`.

    What other epochs do not show (asteroids, satellites, cosmic rays) is left out; the cores of stars are
    not, although seeing differs. Where all inputs are masked but have values, the values are used and stay
    masked. Memory depends neither on the size of the coadd's box nor on the number of inputs, beyond the
    result itself; nor does the result depend on the sub-regions.

    Parameters
    ----------
    extras
        Further inputs of a statistic of one's own, by name: one value for each of `inputs`.

    Raises
    ------
    NoGoodPixels
        If no input has data on `target`.
    BadSettings
        If an extra has not one value for each input.
    """
    _check_extras(extras or {}, len(inputs))
    kept, skipped = usable_inputs(inputs, target)
    ordered = [inputs[k] for k in kept]
    chosen = {name: [values[k] for k in kept] for name, values in (extras or {}).items()}
    out = _Planes.make(len(ordered), target.shape)
    search = prepare_search(ordered, target, config.artifacts) if config.artifacts and ordered else None
    sums = RunningSums.zeros(max(len(ordered), 1), (0, 0))
    for box in _subregions(target, _sides(len(ordered), target, search, config)):
        sums = sums.cleared(box.shape)
        where = box.slices(target)
        mean = (_room(out.image[where]), _room(out.variance[where]), _room(out.weight[where]))
        _place(out, _assemble_part(ordered, (box, target), (sums, mean), search, (config, chosen)), where)
    mark_edges(out.mask, out.weight)
    if not out.count.any():
        raise NoGoodPixels(
            f"none of {counted(len(inputs), 'input')} has data on the coadd's box" + _listed(skipped),
            remedy="choose exposures that overlap the patch",
        )
    unit = ordered[0].unit
    return _with_inputs(
        MaskedImage.make(out.image, out.mask, out.variance, unit, target), out, ordered, skipped, config
    )


def usable_inputs(inputs: Sequence[WarpedInput], target: Box) -> tuple[list[int], list[Skipped]]:
    """Return the places of the inputs that can be used on `target`, and the others with their reasons.

    Inputs that do not reach `target` are in neither list.
    """
    kept, skipped = [], []
    with_psf = any(item.psf is not None for item in inputs)
    for k, item in enumerate(inputs):
        if item.box.intersect(target).is_empty:
            continue
        reason = item.fault(needs_psf=with_psf)
        if reason:
            skipped.append(Skipped(item.name, reason))
        else:
            kept.append(k)
    return kept, skipped


def _check_extras(extras: Mapping[str, Sequence[Any]], n: int) -> None:
    for name, values in extras.items():
        if len(values) != n:
            raise BadSettings(
                f"{name} has {counted(len(values), 'value')} for {counted(n, 'input')}",
                remedy="give one value for each input",
            )


def _listed(skipped: Sequence[Skipped]) -> str:
    shown = listed((f"{item.name} was skipped: {item.reason}" for item in skipped), between="; ")
    return shown and f"; {shown}"


def _with_inputs(
    image: MaskedImage, out: _Planes, inputs: Sequence[WarpedInput], skipped: list[Skipped], config: AssembleCoaddConfig
) -> Coadd:
    sources = [i.psf for i in inputs if i.psf is not None]
    weights = tuple(i.weight for i in inputs)
    used = np.bitwise_or.reduce(out.input_map.reshape(len(out.input_map), -1), axis=1)[:, None, None]
    unseen = [
        Skipped(item.name, "it has no good pixel here")
        for k, item in enumerate(inputs)
        if not used_input(used, k).any()
    ]
    return Coadd(
        image=image,
        count=out.count,
        input_map=out.input_map,
        weight=out.weight,
        inputs=tuple(i.name for i in inputs),
        weights=weights,
        scales=tuple(i.scale for i in inputs),
        psf=combined_psf(sources, image.box, degree=config.psf_degree) if sources else None,
        exact_psf=CoaddPsf.of(sources, image.box) if sources else None,
        skipped=(*skipped, *unseen),
        noise_share=float(np.average([i.noise_share for i in inputs], weights=weights)),
    )


def _sides(n: int, target: Box, search: ArtifactSearch | None, config: AssembleCoaddConfig) -> tuple[int, int]:
    """Return height and width of the sub-regions: all that is open of them fits into the memory allowed.

    They are as wide as the target if their margins do not become too large a part of them: files are read in the
    order of their rows.
    """
    room, margin = config.subregion_pixels**2, _margin(search)
    if config.keeps_all:
        room = int(config.memory_mb * 1e6 / (_BYTES_PER_PIXEL * max(n, 1)))
    else:
        room = min(room, _STRIP_PIXELS)
    width = target.shape[1]
    height = min(room // (width + 2 * margin) - 2 * margin, config.subregion_pixels**2 // width)
    if height >= max(_FLATTEST * margin, _SMALLEST_SIDE):
        return height - height % 2, width
    side = int(np.clip(np.sqrt(room) - 2 * margin, _SMALLEST_SIDE, config.subregion_pixels))
    return side - side % 2, side - side % 2


def _margin(search: ArtifactSearch | None) -> int:
    return max(_ENDS, search.margin if search else 0)


def _subregions(target: Box, sides: tuple[int, int]) -> Iterator[Box]:
    for y in range(target.y0, target.y1, sides[0]):
        for x in range(target.x0, target.x1, sides[1]):
            yield Box(y, x, min(y + sides[0], target.y1), min(x + sides[1], target.x1))


def _room(plane: Any) -> Any:
    # a part of a plane itself if its rows are whole: kernels are compiled for arrays without gaps alone
    return plane if plane.flags.c_contiguous else np.empty(plane.shape, plane.dtype)


def _place(out: _Planes, found: FoundMean, where: tuple[slice, slice]) -> None:
    mask = _room(out.mask[where])
    coadd_mask(found, mask)
    out.count[where] = found.count
    out.input_map[:, *where] = found.input_map
    pairs = ((out.image, found.image), (out.variance, found.variance), (out.weight, found.weight), (out.mask, mask))
    for plane, values in pairs:
        if not np.may_share_memory(plane, values):
            plane[where] = values


def _assemble_part(
    inputs: Sequence[WarpedInput],
    place: tuple[Box, Box],
    room: tuple[RunningSums, tuple[F32, F32, F32]],
    search: ArtifactSearch | None,
    how: tuple[AssembleCoaddConfig, Mapping[str, Sequence[Any]]],
) -> FoundMean:
    (box, target), (sums, mean), (config, extras) = place, room, how
    wide = box.grow(_margin(search)).intersect(target)
    here = [k for k, item in enumerate(inputs) if not item.box.intersect(wide).is_empty]
    bits = SumBits(
        no_data=int(MaskPlane.NO_DATA),
        bad=planes(*config.bad_planes),
        edge=int(MaskPlane.EDGE),
        saturated=int(MaskPlane.SAT),
    )
    inner = box.slices(wide)
    opened = (_opened(inputs[k], wide, config) for k in here)
    marks: Iterator[tuple[BoolArray | None, BoolArray | None]] = repeat((None, None))
    if config.keeps_all:
        parts = list(opened)
        good, clipped = _left_out(parts, [inputs[k] for k in here], (search, here), bits, config)
        opened, marks = (part for part in parts), zip(good, clipped, strict=True)
    for k, part, (known, out) in zip(here, opened, marks, strict=False):
        planes_here = (part.image[inner], part.variance[inner], part.mask[inner])
        left_out, ends = None if out is None else out[inner], ends_of(part, inner, _ENDS, known)
        add_image(sums, planes_here, inputs[k].weight, k, bits, clipped=left_out, ends=ends)
    found = finish_mean(sums, mean, saturated_fraction=config.saturated_fraction)
    if not here or isinstance(config.statistic, WeightedMean | ClippedMean):
        return found
    values = Values(
        np.stack([p.image[inner] for p in parts]),
        np.stack([p.variance[inner] for p in parts]),
        np.stack([used_input(found.input_map, k) for k in here]),
        np.array([inputs[k].weight for k in here]),
        {name: [values[k] for k in here] for name, values in extras.items()},
    )
    mean[0][:], mean[1][:] = value_of(values, config.statistic)
    return found


def _opened(item: WarpedInput, box: Box, config: AssembleCoaddConfig) -> MaskedImage:
    """Open a part of an input on the common flux scale, without the planes that are forgotten."""
    part = item.open(box)
    if item.scale != 1.0:
        part = part.scaled(item.scale, part.unit)
    forgotten = planes(*config.removed_planes)
    return part.with_mask(part.mask & ~forgotten) if forgotten else part


def _left_out(
    parts: Sequence[MaskedImage],
    inputs: Sequence[WarpedInput],
    searched: tuple[ArtifactSearch | None, Sequence[int]],
    bits: SumBits,
    config: AssembleCoaddConfig,
) -> tuple[BoolArray, BoolArray]:
    # which pixels count, and which of these are left out nevertheless
    if not parts:
        return np.zeros((0, 0, 0), bool), np.zeros((0, 0, 0), bool)
    images = [part.image for part in parts]
    variances = [_scatter(part, item) for part, item in zip(parts, inputs, strict=True)]
    good = np.empty((len(parts), *images[0].shape), bool)
    for part, own in zip(parts, good, strict=True):
        usable(part.image, part.variance, part.mask, bits.no_data | bits.bad, out=own)
    search, here = searched
    out = np.zeros(good.shape, bool)
    if search is not None:
        saturated = saturated_in_most([part.mask for part in parts], good, bits.saturated)
        out = find_artifacts(images, variances, good, search, here, saturated)
    if isinstance(config.statistic, ClippedMean):
        out |= sigma_clip(np.stack(images), np.stack(variances), good & ~out, config.statistic)
    return good, out


def _scatter(part: MaskedImage, item: WarpedInput) -> F32:
    """Return the variance that single pixels scatter with."""
    return part.variance if item.noise_share == 1 else part.variance * np.float32(item.noise_share)
