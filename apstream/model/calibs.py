"""Calibration products that ISR applies."""

from __future__ import annotations

from dataclasses import dataclass

from apstream.arrays.types import F32, F64, BoolArray
from apstream.errors import WrongSize
from apstream.model.crosstalk import Crosstalk
from apstream.model.defects import Defects
from apstream.model.linearity import Linearity
from apstream.model.transfer import PhotonTransfer

__all__ = ["KIND_CARD", "IsrCalibs", "defect_map"]

#: Card by which a file says which calibration it is.
KIND_CARD = "APSCALIB"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class IsrCalibs:
    """Masters on the assembled detector; None where a step has no calibration.

    Parameters
    ----------
    bias : ndarray, shape (ny, nx)
        ADU, overscan-subtracted.
    dark : ndarray, shape (ny, nx)
        ADU per second.
    flat : ndarray, shape (ny, nx)
        Relative response, mean one.
    defects : ndarray, shape (ny, nx), bool
        True means bad.
    crosstalk
        Between the amplifiers, by their names.
    linearity
        Of the amplifiers, by their names.
    fringe : ndarray, shape (ny, nx)
        Pattern of zero median in any unit; it is scaled to the sky of each image.
    brighter_fatter : ndarray, shape (n, n), float64
        Kernel of Coulton et al. 2018, n odd, centred, 1/electron.
    transfer
        Measured gains and read noises, which replace those of the camera.
    """

    bias: F32 | None = None
    dark: F32 | None = None
    flat: F32 | None = None
    defects: BoolArray | None = None
    crosstalk: Crosstalk | None = None
    linearity: Linearity | None = None
    fringe: F32 | None = None
    brighter_fatter: F64 | None = None
    transfer: PhotonTransfer | None = None


def defect_map(defects: Defects | BoolArray, shape: tuple[int, int]) -> BoolArray:
    """Return defects, given as boxes or as a map, as a map of `shape`; WrongSize if boxes reach beyond it."""
    if not isinstance(defects, Defects):
        return defects
    try:
        return defects.mask(shape)
    except ValueError as error:
        raise WrongSize(f"defects: {error}", remedy="check that defects and detector number belong together") from None
