"""What is known of a coadd before its pixels: bright objects, spans of a visit that are set or excluded, holes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from apstream.arrays.convolve import fill_masked
from apstream.arrays.masks import dilate
from apstream.arrays.polygon import shrunk_polygon
from apstream.arrays.types import F64, BoolArray
from apstream.errors import BadSettings
from apstream.model.bright_objects import BrightObjects
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane, planes
from apstream.model.wcs import SkyWcs
from apstream.tasks.warped_input import WarpedInput
from apstream.words import listed

__all__ = ["MaskSpan", "fill_holes", "mask_bright_objects", "mask_spans", "spans_of", "valid_polygon"]


@dataclass(frozen=True, slots=True)
class MaskSpan:
    """A plane of one input in a box of the coadd's grid: set where `value` is True, cleared where False."""

    name: str
    plane: str
    box: Box
    value: bool = True

    def __post_init__(self) -> None:
        planes(self.plane)


def spans_of(rows: Iterable[Mapping[str, Any]]) -> list[MaskSpan]:
    """Make spans of rows with the columns ``name``, ``plane``, ``y0``, ``x0``, ``y1``, ``x1`` and perhaps ``value``.

    Raises
    ------
    BadSettings
        If a column is missing or there is no such plane; the message names the row.
    """
    found = []
    for number, row in enumerate(rows, start=1):
        try:
            box = Box(*(int(row[key]) for key in ("y0", "x0", "y1", "x1")))
            found.append(MaskSpan(str(row["name"]), str(row["plane"]), box, bool(row.get("value", True))))
        except (KeyError, ValueError, TypeError) as error:
            raise BadSettings(
                f"mask spans, row {number}: {error}", remedy="give name, plane, y0, x0, y1, x1 of every span"
            ) from error
    return found


def mask_spans(inputs: Sequence[WarpedInput], spans: Sequence[MaskSpan]) -> list[WarpedInput]:
    """Return the inputs with the spans of their names in their masks; pixels are otherwise as they were.

    Raises
    ------
    BadSettings
        If a span names no input.
    """
    names = {item.name for item in inputs}
    strange = sorted({span.name for span in spans} - names)
    if strange:
        raise BadSettings(f"mask spans of {listed(strange)}, which are not among the inputs")
    return [_with_spans(item, [span for span in spans if span.name == item.name]) for item in inputs]


def _with_spans(item: WarpedInput, spans: Sequence[MaskSpan]) -> WarpedInput:
    if not spans:
        return item

    def open_part(box: Box) -> MaskedImage:
        part = item.open(box)
        mask = part.mask.copy()
        for span in spans:
            common = span.box.intersect(box)
            if not common.is_empty:
                where, bits = common.slices(box), np.int32(planes(span.plane))
                mask[where] = mask[where] | bits if span.value else mask[where] & ~bits
        return part.with_mask(mask)

    return replace(item, open=open_part)


def mask_bright_objects(image: MaskedImage, wcs: SkyWcs, objects: BrightObjects) -> MaskedImage:
    """Return the image with BRIGHT_OBJECT on the regions of `objects`."""
    found = objects.mask(wcs, image.box)
    return image.with_mask(image.mask | found * np.int32(MaskPlane.BRIGHT_OBJECT))


def fill_holes(image: MaskedImage, *, radius: int = 4) -> MaskedImage:
    """Interpolate NaN pixels between good ones, at most `radius` from them, with INTRP beside NO_DATA.

    Others stay as they are: wide holes, and what lies beyond the exposures' outline. A gap that the border of the
    image cuts goes on beyond it. The variance stays NaN: the new values say nothing new.
    """
    holes = ~np.isfinite(image.image)
    if not holes.any():
        return image
    holes &= _closed(~holes, radius)
    filled = fill_masked(image.image, holes, radius=radius, default=float("nan"))
    marked = image.with_mask(image.mask | holes * np.int32(MaskPlane.INTRP))
    return marked.with_image(np.where(holes, filled, image.image))


def _closed(good: BoolArray, radius: int) -> BoolArray:
    """Return the good pixels and the gaps between them into which no square of side 2 `radius` + 1 fits."""
    around = dilate(np.pad(good, 2 * radius, mode="edge"), radius)
    closed: BoolArray = ~dilate(~around, radius)
    return closed[2 * radius : -2 * radius, 2 * radius : -2 * radius]


def valid_polygon(box: Box, polygon: F64 | None = None, *, shrink: float = 0.0) -> F64:
    """Return the valid area of an exposure, (y, x) of corners: what is given, or its box, made smaller by `shrink`."""
    if polygon is None:
        y0, x0, y1, x1 = box.y0 - 0.5, box.x0 - 0.5, box.y1 - 0.5, box.x1 - 0.5
        polygon = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])
    return shrunk_polygon(polygon, shrink) if shrink else polygon
