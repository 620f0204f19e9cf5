"""Whether a raw frame, its camera's geometry and its calibrations belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from apstream.arrays.types import F32, F64
from apstream.errors import BadFile, WrongSize
from apstream.model.calibs import IsrCalibs
from apstream.model.detector import Detector
from apstream.model.exposures import RawExposure
from apstream.model.geometry import Box

__all__ = ["require_calib", "require_fit", "require_flat"]

#: Of a flat about so many rows and columns are looked at.
_SAMPLES = 256
_MAX_EMPTY, _FLAT_MEDIANS = 0.2, (0.2, 5.0)
_REMEDY = "check that file, detector number and camera description belong together"


def require_fit(raw: RawExposure, calibs: IsrCalibs) -> None:
    """Raise WrongSize if the raw array, a master or what is known of amplifiers does not fit the detector."""
    _require_amplifiers_inside(raw)
    for name in ("variance", "mask"):
        beside = getattr(raw, name)
        if beside is not None and beside.shape != raw.pixels.shape:
            raise WrongSize(f"the frame is {raw.pixels.shape}, its {name} {beside.shape}", remedy=_REMEDY)
    for one in fields(calibs):
        require_calib(calibs, one.name, raw.detector)


def require_calib(calibs: IsrCalibs, name: str, detector: Detector) -> None:
    """Raise WrongSize if the calibration of this name, where there is one, does not fit the detector."""
    value = getattr(calibs, name)
    match name:
        case _ if value is None:
            return
        case "brighter_fatter":
            _require_kernel(value)
        case "crosstalk" | "linearity" | "transfer":
            _require_names(name, value.names, detector)
        case _ if value.shape != detector.shape:
            message = f"master {name} is {value.shape}, detector {detector.name} is {detector.shape}"
            raise WrongSize(message, remedy=_REMEDY)


def require_flat(flat: F32 | None) -> None:
    """Refuse what cannot be a relative response: one of which much is not positive, or whose median is far from one.

    Raises
    ------
    BadFile
        Naming no file: the caller knows it.
    """
    if flat is None or not flat.size:
        return
    step = max(1, max(flat.shape) // _SAMPLES)
    seen = flat[::step, ::step]
    light = seen[seen > 0]
    empty = 1 - light.size / seen.size
    if empty > _MAX_EMPTY:
        fault = f"{100 * empty:.0f} % of this flat is not positive"
    elif not _FLAT_MEDIANS[0] <= (median := float(np.median(light))) <= _FLAT_MEDIANS[1]:
        fault = f"the median of this flat is {median:.4g}, that of a relative response is about one"
    else:
        return
    raise BadFile(fault, remedy="give a master flat divided by its median, as apstream calib flat makes it")


def _require_amplifiers_inside(raw: RawExposure) -> None:
    detector = raw.detector
    boxes = [b for a in detector.amplifiers for b in (a.data, a.overscan, a.parallel_overscan) if b is not None]
    whole = Box.from_shape(raw.pixels.shape) if raw.pixels.ndim == 2 else Box(0, 0, 0, 0)
    if any(box.intersect(whole) != box for box in boxes):
        need = Box.bounding(boxes)
        raise WrongSize(
            f"raw array {raw.pixels.shape} does not hold the amplifiers of detector {detector.name}, "
            f"which reach to ({need.y1}, {need.x1})",
            remedy=_REMEDY,
        )


def _require_kernel(kernel: F64) -> None:
    if kernel.ndim != 2 or any(side % 2 == 0 for side in kernel.shape):
        raise WrongSize(
            f"the brighter-fatter kernel is {kernel.shape}", remedy="give one of odd height and width, centred"
        )


def _require_names(what: str, known: Sequence[str], detector: Detector) -> None:
    names = [amplifier.name for amplifier in detector.amplifiers]
    if set(known) != set(names):
        raise WrongSize(
            f"{what} is of amplifiers {', '.join(known)}, detector {detector.name} has {', '.join(names)}",
            remedy=f"check that {what}, detector number and camera description belong together",
        )
