"""Where coadds lie: one tract (a TAN projection) cut into square patches that overlap by a border."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from apstream.model.geometry import Box
from apstream.model.products import SkyCircle
from apstream.model.wcs import SkyWcs, separation

__all__ = ["SkyMap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyMap:
    """A discrete sky map of one tract.

    Parameters
    ----------
    ra, dec
        Tangent point, ICRS degrees, at the centre of the tract.
    pixel_scale_arcsec
        Of the coadds.
    patch_size
        Side of a patch's inner box in pixels.
    border
        Pixels by which the outer box exceeds the inner one on every side, within the tract.
    rows, columns
        Number of patches.

    Raises
    ------
    ValueError
        If a size is not positive.
    """

    ra: float
    dec: float
    pixel_scale_arcsec: float
    patch_size: int
    border: int
    rows: int
    columns: int
    tract: int = 0

    def __post_init__(self) -> None:
        if min(self.patch_size, self.rows, self.columns) < 1 or self.pixel_scale_arcsec <= 0 or self.border < 0:
            raise ValueError(f"impossible sky map: {self}")

    @classmethod
    def around(
        cls, regions: Sequence[SkyCircle], *, pixel_scale_arcsec: float, patch_size: int = 4096, border: int = 128
    ) -> SkyMap:
        """Make the smallest sky map around circles on the sky that lie within a few degrees of each other."""
        ra, dec = _mean_direction(regions)
        frame = SkyWcs.tan(ra, dec, pixel_scale_arcsec=pixel_scale_arcsec, y=0.0, x=0.0)
        reach = 0.0
        for region in regions:
            y, x = frame.sky_to_pixel(region.ra, region.dec)
            reach = max(reach, max(abs(float(y)), abs(float(x))) + region.radius * 3600 / pixel_scale_arcsec)
        side = int(np.ceil(2 * reach)) + 8
        count = max(1, int(np.ceil(side / patch_size)))
        return cls(
            ra=ra,
            dec=dec,
            pixel_scale_arcsec=pixel_scale_arcsec,
            patch_size=int(np.ceil(side / count)),
            border=border,
            rows=count,
            columns=count,
        )

    @property
    def box(self) -> Box:
        """Box of the whole tract."""
        return Box(0, 0, self.rows * self.patch_size, self.columns * self.patch_size)

    @property
    def wcs(self) -> SkyWcs:
        """WCS of the tract; the patches' pixels are absolute in it."""
        y, x = self.box.center
        return SkyWcs.tan(self.ra, self.dec, pixel_scale_arcsec=self.pixel_scale_arcsec, y=y, x=x)

    @property
    def patches(self) -> range:
        """Numbers of all patches, row by row."""
        return range(self.rows * self.columns)

    def inner_box(self, patch: int) -> Box:
        """Return the box that belongs to a patch alone."""
        row, column = divmod(patch, self.columns)
        y, x = row * self.patch_size, column * self.patch_size
        return Box(y, x, y + self.patch_size, x + self.patch_size)

    def outer_box(self, patch: int) -> Box:
        """Return the box of a patch with its border, within the tract."""
        return self.inner_box(patch).grow(self.border).intersect(self.box)

    def overlapping(self, region: SkyCircle) -> list[int]:
        """Return the patches whose outer box may meet a circle on the sky."""
        found, wcs = [], self.wcs
        for patch in self.patches:
            ra, dec, radius = wcs.circle(self.outer_box(patch))
            if separation(ra, dec, region.ra, region.dec) <= radius + region.radius:  # type: ignore[arg-type]
                found.append(patch)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as they are stored."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SkyMap:
        """Make a sky map of what `to_dict` returned."""
        return cls(**values)


def _mean_direction(regions: Sequence[SkyCircle]) -> tuple[float, float]:
    ra, dec = np.deg2rad([r.ra for r in regions]), np.deg2rad([r.dec for r in regions])
    x, y, z = (np.cos(dec) * np.cos(ra)).mean(), (np.cos(dec) * np.sin(ra)).mean(), np.sin(dec).mean()
    return float(np.rad2deg(np.arctan2(y, x)) % 360), float(np.rad2deg(np.arctan2(z, np.hypot(x, y))))
