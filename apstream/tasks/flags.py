"""Pixel flags of detections, from the mask planes."""

from __future__ import annotations

import numpy as np

from apstream.arrays.flags import center_bits, footprint_bits
from apstream.arrays.types import BoolArray, IntArray, Records
from apstream.model.exposures import Template
from apstream.model.mask import MaskPlane
from apstream.tasks.detect import Detections

__all__ = ["fill_pixel_flags"]

#: Flag name by mask plane; a flag with a Center twin looks at the 3 x 3 pixels of the centroid too.
_IN_FOOTPRINT = {
    "bad": MaskPlane.BAD,
    "cr": MaskPlane.CR,
    "edge": MaskPlane.EDGE,
    "nodata": MaskPlane.NO_DATA,
    "interpolated": MaskPlane.INTRP,
    "saturated": MaskPlane.SAT,
    "suspect": MaskPlane.SUSPECT,
    "streak": MaskPlane.STREAK,
    "injected": MaskPlane.INJECTED,
    "saturated_template": MaskPlane.SAT_TEMPLATE,
    "highVariance": MaskPlane.HIGH_VARIANCE,
}
_AT_CENTER = (
    "cr", "nodata", "interpolated", "saturated", "suspect", "streak", "injected", "saturated_template",
)  # fmt: skip
_HARMLESS = MaskPlane.INJECTED


def fill_pixel_flags(rows: Records, detections: Detections, template: Template) -> None:
    """Set the columns pixelFlags* of measured rows; positions must be filled."""
    image = detections.difference.image
    y, x = _pixel(rows["y"], image.box.y0), _pixel(rows["x"], image.box.x0)
    center = center_bits(image.mask, y, x)
    within = footprint_bits(image.mask, detections.labels, detections.footprints) | center
    for name, plane in _IN_FOOTPRINT.items():
        rows[f"pixelFlags_{name}"] = _set(within, plane)
    for name in _AT_CENTER:
        rows[f"pixelFlags_{name}Center"] = _set(center, _IN_FOOTPRINT[name])
    own = template.image.mask
    rows["pixelFlags_injected_templateCenter"] = _set(center_bits(own, y, x), MaskPlane.INJECTED)
    in_template = footprint_bits(own, detections.labels, detections.footprints)
    rows["pixelFlags_injected_template"] = _set(in_template, MaskPlane.INJECTED)
    rows["pixelFlags_offimage"] = ~image.box.contains(rows["y"].astype(float), rows["x"].astype(float))
    problems = sum(plane for plane in _IN_FOOTPRINT.values() if plane != _HARMLESS)
    rows["pixelFlags"] = _set(within, problems) | rows["pixelFlags_offimage"]


def _pixel(position: IntArray, origin: int) -> IntArray:
    return np.floor(position.astype(float) + 0.5).astype(np.int64) - origin


def _set(bits: IntArray, plane: int) -> BoolArray:
    return np.asarray((bits & int(plane)) != 0)
