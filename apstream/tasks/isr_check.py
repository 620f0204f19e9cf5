"""Whether a raw frame, its camera's geometry and its calibrations belong together."""

from __future__ import annotations

import numpy as np

from apstream.arrays.types import F32
from apstream.errors import BadFile, WrongSize
from apstream.model.calibs import IsrCalibs
from apstream.model.exposures import RawExposure
from apstream.model.geometry import Box

__all__ = ["require_fit", "require_flat"]

#: Of a flat every so many rows and columns are looked at.
_STRIDE = 8
_MAX_EMPTY, _FLAT_MEDIANS = 0.2, (0.2, 5.0)
_REMEDY = "check that file, detector number and camera description belong together"


def require_fit(raw: RawExposure, calibs: IsrCalibs) -> None:
    """Raise WrongSize if the raw array, a master or what is known of amplifiers does not fit the detector."""
    _require_amplifiers_inside(raw)
    for name in ("variance", "mask"):
        beside = getattr(raw, name)
        if beside is not None and beside.shape != raw.pixels.shape:
            raise WrongSize(f"the frame is {raw.pixels.shape}, its {name} {beside.shape}", remedy=_REMEDY)
    detector = raw.detector
    for name in ("bias", "dark", "flat", "defects", "fringe"):
        master = getattr(calibs, name)
        if master is not None and master.shape != detector.shape:
            raise WrongSize(
                f"master {name} is {master.shape}, detector {detector.name} is {detector.shape}", remedy=_REMEDY
            )
    _require_kernel(calibs)
    _require_names(raw, calibs)


def require_flat(flat: F32 | None) -> None:
    """Refuse what cannot be a relative response: one of which much is not positive, or whose median is far from one.

    Raises
    ------
    BadFile
        Naming no file: the caller knows it.
    """
    if flat is None or not flat.size:
        return
    seen = flat[::_STRIDE, ::_STRIDE]
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


def _require_kernel(calibs: IsrCalibs) -> None:
    kernel = calibs.brighter_fatter
    if kernel is not None and (kernel.ndim != 2 or any(side % 2 == 0 for side in kernel.shape)):
        raise WrongSize(
            f"the brighter-fatter kernel is {kernel.shape}", remedy="give one of odd height and width, centred"
        )


def _require_names(raw: RawExposure, calibs: IsrCalibs) -> None:
    names = {amplifier.name for amplifier in raw.detector.amplifiers}
    for what in ("crosstalk", "linearity", "transfer"):
        known = getattr(calibs, what)
        if known is not None and set(known.names) != names:
            raise WrongSize(
                f"{what} is of amplifiers {', '.join(known.names)}, detector {raw.detector.name} has "
                f"{', '.join(amplifier.name for amplifier in raw.detector.amplifiers)}",
                remedy=f"check that {what}, detector number and camera description belong together",
            )
