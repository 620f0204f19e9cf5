"""A tract: one tangent plane of the sky, cut into patches, on which coadds are made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from apstream.arrays.polygon import clip_polygon, polygon_area
from apstream.arrays.types import F64, BoolArray, FloatArray, IntArray
from apstream.model.geometry import Box
from apstream.model.wcs import SkyWcs, separation

__all__ = ["SkyInfo", "Tract"]

#: Degrees from a tract's centre beyond which its plane is not used.
_HORIZON = 80.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SkyInfo:
    """Where a patch is.

    Parameters
    ----------
    wcs
        The tract's, which all its patches share.
    inner, outer
        The pixels that belong to the patch alone, and all that it has.
    vertices : ndarray, shape (4, 2)
        (ra, dec) of the outer corners in degrees, from the lowest y and x along x first.
    """

    tract: int
    patch: int
    wcs: SkyWcs
    inner: Box
    outer: Box
    vertices: F64


@dataclass(frozen=True, eq=True, kw_only=True)
class Tract:
    """A TAN projection with (ra, dec) in its middle, cut into square patches.

    Patches are numbered row by row from the lowest y and x; their inner boxes tile the tract, their outer
    boxes overlap their neighbours by twice `border`.

    Parameters
    ----------
    id
        Its number in data ids.
    ra, dec
        Centre of the tract, ICRS degrees.
    pixel_scale_arcsec
        Arcsec per pixel.
    patches
        Patches along y and along x.
    patch_size, border
        Side of a patch's inner box, and how far its outer box reaches beyond, pixels.

    Raises
    ------
    ValueError
        If a size is not positive.
    """

    ra: float
    dec: float
    pixel_scale_arcsec: float
    patches: tuple[int, int]
    patch_size: int = 4000
    border: int = 100
    id: int = 0

    def __post_init__(self) -> None:
        if min(self.patches) < 1 or self.patch_size < 1 or self.border < 0 or not self.pixel_scale_arcsec > 0:
            raise ValueError(f"a tract needs positive sizes: {self}")

    @classmethod
    def around(
        cls,
        ra: float,
        dec: float,
        radius: float,
        *,
        pixel_scale_arcsec: float,
        patch_size: int = 4000,
        border: int = 100,
        id: int = 0,
    ) -> Tract:
        """Make the smallest square tract that covers a circle (degrees); a single patch is no larger than that."""
        side = 2 * np.rad2deg(np.tan(np.deg2rad(radius))) * 3600 / pixel_scale_arcsec
        count = max(1, int(np.ceil(side / patch_size)))
        if count == 1:
            patch_size = int(np.ceil(side))
        return cls(
            id=id,
            ra=ra,
            dec=dec,
            pixel_scale_arcsec=pixel_scale_arcsec,
            patches=(count, count),
            patch_size=patch_size,
            border=border,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads."""
        return {
            "id": self.id,
            "ra": float(self.ra),
            "dec": float(self.dec),
            "pixel_scale_arcsec": float(self.pixel_scale_arcsec),
            "patches": list(self.patches),
            "patch_size": self.patch_size,
            "border": self.border,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Tract:
        """Make a tract from what `to_dict` gave; TypeError names unknown or missing keys."""
        return cls(**{**values, "patches": tuple(values["patches"])})

    @property
    def box(self) -> Box:
        """The pixels of the whole tract."""
        return Box(0, 0, self.patches[0] * self.patch_size, self.patches[1] * self.patch_size)

    @property
    def n_patches(self) -> int:
        """Number of patches."""
        return self.patches[0] * self.patches[1]

    @property
    def radius(self) -> float:
        """Degrees from the centre to the corners of the box."""
        return float(np.rad2deg(np.arctan(np.hypot(*self.box.shape) / 2 * np.deg2rad(self.pixel_scale_arcsec / 3600))))

    @cached_property
    def wcs(self) -> SkyWcs:
        """The WCS, which all patches share: their boxes are absolute."""
        y, x = self.box.center
        return SkyWcs.tan(self.ra, self.dec, pixel_scale_arcsec=self.pixel_scale_arcsec, y=y, x=x)

    def inner_box(self, patch: int) -> Box:
        """Return the pixels that belong to a patch alone."""
        row, column = self._place(patch)
        y0, x0 = row * self.patch_size, column * self.patch_size
        return Box(y0, x0, y0 + self.patch_size, x0 + self.patch_size)

    def patch_box(self, patch: int) -> Box:
        """Return the pixels of a patch with its border on all sides, beyond the tract's end too."""
        return self.inner_box(patch).grow(self.border)

    def outer_box(self, patch: int) -> Box:
        """Return the pixels that a patch has: with its border, but within the tract."""
        return self.patch_box(patch).intersect(self.box)

    def sky_info(self, patch: int) -> SkyInfo:
        """Return where a patch is."""
        outer = self.outer_box(patch)
        y, x = outer.outline(1)
        vertices = np.stack(self.wcs.pixel_to_sky(y, x), axis=1)
        return SkyInfo(
            tract=self.id, patch=patch, wcs=self.wcs, inner=self.inner_box(patch), outer=outer, vertices=vertices
        )

    def pixels_of(self, ra: FloatArray, dec: FloatArray) -> tuple[F64, F64]:
        """Return (y, x) of sky positions; NaN for what is too far away to lie on the plane."""
        ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
        near = separation(self.ra, self.dec, ra, dec) < _HORIZON
        y, x = np.full(ra.shape, np.nan), np.full(ra.shape, np.nan)
        if near.any():
            y[near], x[near] = self.wcs.sky_to_pixel(ra[near], dec[near])
        return y, x

    def contains(self, ra: FloatArray, dec: FloatArray) -> BoolArray:
        """Tell which sky positions lie on pixels of the tract."""
        return self.box.contains(*self.pixels_of(ra, dec))

    def patch_of(self, ra: FloatArray, dec: FloatArray) -> IntArray:
        """Return the patch whose inner box holds each sky position, -1 where the tract has none."""
        y, x = self.pixels_of(ra, dec)
        inside = self.box.contains(y, x)
        row, column = (np.floor((np.where(inside, v, 0.0) + 0.5) / self.patch_size).astype(int) for v in (y, x))
        return np.asarray(np.where(inside, row * self.patches[1] + column, -1), np.int64)

    def patches_at(self, ra: float, dec: float, radius: float) -> list[int]:
        """Return the patches that a circle on the sky (degrees) touches."""
        y, x = (float(v[0]) for v in self.pixels_of(np.array([ra]), np.array([dec])))
        if not (np.isfinite(y) and np.isfinite(x)):
            return []
        # a degree is longer on the tangent plane than on the sky, by the square of this at most
        stretch = 1 / np.cos(np.arctan(np.hypot(*self.box.shape) * np.deg2rad(self.pixel_scale_arcsec / 3600)))
        reach = radius * 3600 / self.pixel_scale_arcsec * stretch**2 + 1
        ys, xs = np.array([y - reach, y + reach]), np.array([x - reach, x + reach])
        return [p for p in self._around(ys, xs) if _distance(self.patch_box(p), y, x) <= reach]

    def patches_under(self, ra: F64, dec: F64) -> list[int]:
        """Return the patches that have a part of a region, given by its outline on the sky (degrees)."""
        y, x = self.pixels_of(ra, dec)
        if not (np.isfinite(y).all() and np.isfinite(x).all()):
            return []
        return [patch for patch in self._around(y, x) if self._overlap(patch, y, x) > 0]

    def _overlap(self, patch: int, y: F64, x: F64) -> float:
        box = self.outer_box(patch)
        return polygon_area(*clip_polygon(y, x, (box.y0 - 0.5, box.x0 - 0.5), (box.y1 - 0.5, box.x1 - 0.5)))

    def _around(self, y: F64, x: F64) -> list[int]:
        """Return the patches whose boxes may meet the rectangle around positions."""
        spans = []
        for values, count in ((y, self.patches[0]), (x, self.patches[1])):
            first = int(np.floor((values.min() - self.border - 1) / self.patch_size))
            last = int(np.floor((values.max() + self.border + 1) / self.patch_size))
            spans.append(range(max(first, 0), min(last, count - 1) + 1))
        return [row * self.patches[1] + column for row in spans[0] for column in spans[1]]

    def _place(self, patch: int) -> tuple[int, int]:
        if not 0 <= patch < self.n_patches:
            raise ValueError(f"patch {patch} is not in [0, {self.n_patches})")
        return divmod(patch, self.patches[1])


def _distance(box: Box, y: float, x: float) -> float:
    # from a position to the nearest pixel of the box
    dy = max(box.y0 - y, 0.0, y - (box.y1 - 1))
    dx = max(box.x0 - x, 0.0, x - (box.x1 - 1))
    return float(np.hypot(dy, dx))
