"""A discrete sky map: one tract, a TAN projection cut into patches, on which coadds are made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from apstream.model.geometry import Box
from apstream.model.wcs import SkyWcs

__all__ = ["SkyMap"]


@dataclass(frozen=True, eq=True, kw_only=True)
class SkyMap:
    """One tract of square patches around (ra, dec).

    Patches are numbered row by row from the lowest y and x; their inner boxes tile the tract, their outer
    boxes overlap their neighbours by twice `border`.

    Parameters
    ----------
    ra, dec
        Centre of the tract, ICRS degrees.
    pixel_scale_arcsec
        Arcsec per pixel.
    patches
        Patches along y and along x.
    patch_size, border
        Side of a patch's inner box, and how far its outer box reaches beyond, pixels.
    tract
        A number for data ids.

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
    tract: int = 0

    def __post_init__(self) -> None:
        if min(self.patches) < 1 or self.patch_size < 1 or self.border < 0 or not self.pixel_scale_arcsec > 0:
            raise ValueError(f"a sky map needs positive sizes: {self}")

    @classmethod
    def covering(
        cls,
        ra: float,
        dec: float,
        radius: float,
        *,
        pixel_scale_arcsec: float,
        patch_size: int = 4000,
        border: int = 100,
    ) -> SkyMap:
        """Make the smallest square sky map that covers a circle (degrees)."""
        side = 2 * np.rad2deg(np.tan(np.deg2rad(radius))) * 3600 / pixel_scale_arcsec
        count = max(1, int(np.ceil(side / patch_size)))
        if count == 1:
            patch_size = int(np.ceil(side))
        return cls(
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
            "ra": float(self.ra),
            "dec": float(self.dec),
            "pixel_scale_arcsec": float(self.pixel_scale_arcsec),
            "patches": list(self.patches),
            "patch_size": self.patch_size,
            "border": self.border,
            "tract": self.tract,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SkyMap:
        """Make a sky map from what `to_dict` gave; TypeError names unknown or missing keys."""
        return cls(**{**values, "patches": tuple(values["patches"])})

    @property
    def box(self) -> Box:
        """Inner box of the whole tract."""
        return Box(0, 0, self.patches[0] * self.patch_size, self.patches[1] * self.patch_size)

    @property
    def n_patches(self) -> int:
        """Number of patches."""
        return self.patches[0] * self.patches[1]

    @cached_property
    def wcs(self) -> SkyWcs:
        """The tract's WCS, which all patches share: their boxes are absolute."""
        y, x = self.box.center
        return SkyWcs.tan(self.ra, self.dec, pixel_scale_arcsec=self.pixel_scale_arcsec, y=y, x=x)

    def inner_box(self, patch: int) -> Box:
        """Return the pixels that belong to a patch alone."""
        row, column = self._place(patch)
        y0, x0 = row * self.patch_size, column * self.patch_size
        return Box(y0, x0, y0 + self.patch_size, x0 + self.patch_size)

    def patch_box(self, patch: int) -> Box:
        """Return the pixels of a patch, border included."""
        return self.inner_box(patch).grow(self.border)

    def patches_at(self, ra: float, dec: float, radius: float) -> list[int]:
        """Return the patches that a circle on the sky (degrees) touches."""
        y, x = (float(v) for v in self.wcs.sky_to_pixel(ra, dec))
        if not (np.isfinite(y) and np.isfinite(x)):
            return []
        # a degree is longer on the tangent plane than on the sky, by the square of this at most
        stretch = 1 / np.cos(np.arctan(np.hypot(*self.box.shape) * np.deg2rad(self.pixel_scale_arcsec / 3600)))
        reach = radius * 3600 / self.pixel_scale_arcsec * stretch**2 + 1
        return [p for p in range(self.n_patches) if _distance(self.patch_box(p), y, x) <= reach]

    def patches_under(self, wcs: SkyWcs, box: Box) -> list[int]:
        """Return the patches that an image touches; its outline is followed through the sky."""
        y0, x0, y1, x1 = box.y0 - 0.5, box.x0 - 0.5, box.y1 - 0.5, box.x1 - 0.5
        t = np.linspace(0, 1, 17)
        ys = np.concatenate([y0 + (y1 - y0) * t, np.full(17, y1), y1 - (y1 - y0) * t, np.full(17, y0)])
        xs = np.concatenate([np.full(17, x0), x0 + (x1 - x0) * t, np.full(17, x1), x1 - (x1 - x0) * t])
        y, x = self.wcs.sky_to_pixel(*wcs.pixel_to_sky(ys, xs))
        if not np.isfinite(y).all():
            return []
        low = (int(np.floor(y.min())), int(np.floor(x.min())))
        high = (int(np.ceil(y.max())) + 1, int(np.ceil(x.max())) + 1)
        outline = Box(*low, *high)
        return [p for p in range(self.n_patches) if not self.patch_box(p).intersect(outline).is_empty]

    def _place(self, patch: int) -> tuple[int, int]:
        if not 0 <= patch < self.n_patches:
            raise ValueError(f"patch {patch} is not in [0, {self.n_patches})")
        return divmod(patch, self.patches[1])


def _distance(box: Box, y: float, x: float) -> float:
    # from a position to the nearest pixel of the box
    dy = max(box.y0 - y, 0.0, y - (box.y1 - 1))
    dx = max(box.x0 - x, 0.0, x - (box.x1 - 1))
    return float(np.hypot(dy, dx))
