"""Bright objects: regions of the sky where nothing measured is to be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.types import F64, BoolArray
from apstream.model.geometry import Box
from apstream.model.wcs import SkyWcs

__all__ = ["ANY_BAND", "NO_BRIGHT_OBJECTS", "BrightObjects", "SkyBox", "SkyDisc"]

#: Their band, where they are those of all bands.
ANY_BAND = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyDisc:
    """A disc on the sky: ICRS degrees, radius in arcsec."""

    ra: float
    dec: float
    radius_arcsec: float
    name: str = ""

    def __post_init__(self) -> None:
        _require(self, self.radius_arcsec)

    @property
    def reach_arcsec(self) -> float:
        """Radius of a circle around it."""
        return self.radius_arcsec

    def covers(self, east: F64, north: F64) -> BoolArray:
        """Tell which offsets from its centre, arcsec, lie in it."""
        return np.asarray(east**2 + north**2 <= self.radius_arcsec**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyBox:
    """A box on the sky: sides in arcsec, along east and north before it is turned by `angle` (east of north)."""

    ra: float
    dec: float
    width_arcsec: float
    height_arcsec: float
    angle: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        _require(self, self.width_arcsec, self.height_arcsec, abs(self.angle) + 1)

    @property
    def reach_arcsec(self) -> float:
        """Radius of a circle around it."""
        return float(np.hypot(self.width_arcsec, self.height_arcsec) / 2)

    def covers(self, east: F64, north: F64) -> BoolArray:
        """Tell which offsets from its centre, arcsec, lie in it."""
        c, s = np.cos(np.deg2rad(self.angle)), np.sin(np.deg2rad(self.angle))
        along, up = c * east - s * north, s * east + c * north
        return np.asarray((np.abs(along) <= self.width_arcsec / 2) & (np.abs(up) <= self.height_arcsec / 2))


@dataclass(frozen=True, slots=True)
class BrightObjects:
    """Regions of the sky around bright objects; they may overlap."""

    regions: tuple[SkyDisc | SkyBox, ...] = ()

    def mask(self, wcs: SkyWcs, box: Box) -> BoolArray:
        """Return an image of `box`, True on pixels whose centre lies in a region."""
        out = np.zeros(box.shape, bool)
        for region in self.regions:
            y, x = (float(v) for v in wcs.sky_to_pixel(region.ra, region.dec))
            if not np.isfinite([y, x]).all():
                continue
            reach = int(np.ceil(1.1 * region.reach_arcsec / wcs.pixel_scale_arcsec)) + 2
            part = Box(round(y) - reach, round(x) - reach, round(y) + reach + 1, round(x) + reach + 1).intersect(box)
            if not part.is_empty:
                out[part.slices(box)] |= region.covers(*_offsets(wcs, part, region.ra, region.dec))
        return out


NO_BRIGHT_OBJECTS = BrightObjects()


def _offsets(wcs: SkyWcs, box: Box, ra: float, dec: float) -> tuple[F64, F64]:
    """Return the offsets of pixel centres from a position, arcsec to east and north, on the tangent plane."""
    y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1].astype(float)
    a, d = (np.deg2rad(v).reshape(box.shape) for v in wcs.pixel_to_sky(y.ravel(), x.ravel()))
    a0, d0 = np.deg2rad(ra), np.deg2rad(dec)
    depth = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a - a0)
    with np.errstate(divide="ignore", invalid="ignore"):
        east = np.cos(d) * np.sin(a - a0) / depth
        north = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a - a0)) / depth
    far = ~(depth > 0)
    east[far] = north[far] = np.inf
    return 3600 * np.rad2deg(east), 3600 * np.rad2deg(north)


def _require(region: SkyDisc | SkyBox, *sizes: float) -> None:
    if not (np.isfinite([region.ra, region.dec]).all() and abs(region.dec) <= 90):
        raise ValueError(f"no position on the sky: {region.ra}, {region.dec}")
    if not all(np.isfinite(size) and size > 0 for size in sizes):
        raise ValueError(f"size of a region must be positive: {sizes}")
