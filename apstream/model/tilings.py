"""How tracts cover the sky: given ones, rings of constant declination, or the pixels of HEALPix."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any

import hpgeom
import numpy as np

from apstream.arrays.types import F64, IntArray
from apstream.model.tract import Tract
from apstream.model.wcs import SkyWcs, separation

__all__ = ["Discrete", "Grid", "Healpix", "Rings", "Tiling"]

#: Positions along each side of a cell by which its extent is found; odd, so that the middle is among them.
_STEPS = 17


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Pixels and patches that all tracts of a tiling have.

    Parameters
    ----------
    pixel_scale_arcsec
        Arcsec per pixel.
    patch_size, border
        Side of a patch's inner box, and how far its outer box reaches beyond, pixels.
    overlap
        How far a tract reaches beyond its own part of the sky at least, degrees.
    """

    pixel_scale_arcsec: float = 0.2
    patch_size: int = 4000
    border: int = 100
    overlap: float = 1 / 60

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.border < 0 or not self.pixel_scale_arcsec > 0 or not 0 <= self.overlap < 10:
            raise ValueError(f"a sky map needs positive sizes, and an overlap below 10 degrees: {self}")

    def patches_for(self, ra: float, dec: float, outline: tuple[F64, F64]) -> tuple[int, int]:
        """Return how many patches along y and x cover an outline (ra, dec) around a centre, and the overlap."""
        plane = SkyWcs.tan(ra, dec, pixel_scale_arcsec=self.pixel_scale_arcsec, y=0.0, x=0.0)
        y, x = plane.sky_to_pixel(*outline)
        margin = self.overlap * 3600 / self.pixel_scale_arcsec + 2
        sides = (2 * (float(np.abs(v).max()) * (1 + 1e-4) + margin) for v in (y, x))
        along_y, along_x = (max(1, int(np.ceil(side / self.patch_size))) for side in sides)
        return along_y, along_x

    def tract(self, id: int, ra: float, dec: float, patches: tuple[int, int]) -> Tract:
        """Make a tract of this grid."""
        return Tract(
            id=id,
            ra=ra,
            dec=dec,
            pixel_scale_arcsec=self.pixel_scale_arcsec,
            patches=patches,
            patch_size=self.patch_size,
            border=self.border,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, all keywords of the class."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Discrete:
    """Tracts that are given; a position belongs to the nearest centre among the tracts that contain it.

    Raises
    ------
    ValueError
        If there is no tract, or two have one number.
    """

    tracts: tuple[Tract, ...]

    def __post_init__(self) -> None:
        numbers = [tract.id for tract in self.tracts]
        if not numbers or len(set(numbers)) < len(numbers):
            raise ValueError(f"a sky map needs tracts with different numbers, not {numbers}")

    @property
    def ids(self) -> range | tuple[int, ...]:
        """Numbers of all tracts."""
        return tuple(tract.id for tract in self.tracts)

    def tract(self, id: int) -> Tract:
        """Return a tract by its number."""
        return next(tract for tract in self.tracts if tract.id == id)

    def owner(self, ra: F64, dec: F64) -> IntArray:
        """Return the tract that each position (degrees, shape (n,)) belongs to, -1 where there is none."""
        best, found = np.full(ra.shape, np.inf), np.full(ra.shape, -1, np.int64)
        for tract in self.tracts:
            distance = separation(tract.ra, tract.dec, ra, dec)
            closer = tract.contains(ra, dec) & (distance < best)
            best[closer], found[closer] = distance[closer], tract.id
        return found

    def near(self, ra: float, dec: float, radius: float) -> list[int]:
        """Return the tracts whose box a circle (degrees) may meet, in order of their numbers."""
        return sorted(t.id for t in self.tracts if float(separation(t.ra, t.dec, ra, dec)) <= radius + t.radius)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"kind": "discrete", "tracts": [tract.to_dict() for tract in self.tracts]}


@dataclass(frozen=True)
class Rings:
    """Rings of constant declination, and a cap at each pole.

    A ring is as high as its tracts are wide where it is widest; tract 0 is the southern cap, then follow the rings
    from the south, each from right ascension 0 eastward, the northern cap is the last. A position belongs to
    the ring by its declination and to the tract by its right ascension.

    Parameters
    ----------
    num_rings
        Rings without the caps, at least 3; the height of one is 180 / (num_rings + 1) degrees.

    Raises
    ------
    ValueError
        If there are less than three.
    """

    num_rings: int
    grid: Grid = Grid()

    def __post_init__(self) -> None:
        if self.num_rings < 3:
            raise ValueError(f"rings need to be 3 or more, not {self.num_rings}")

    @property
    def height(self) -> float:
        """Height of a ring, degrees; a cap has half of it."""
        return 180.0 / (self.num_rings + 1)

    @cached_property
    def counts(self) -> IntArray:
        """Tracts of each ring, shape (num_rings,)."""
        low = self.height * (np.arange(self.num_rings) + 0.5) - 90
        widest = np.where(low * (low + self.height) < 0, 0.0, np.minimum(np.abs(low), np.abs(low + self.height)))
        return np.asarray(np.ceil(360 * np.cos(np.deg2rad(widest)) / self.height - 1e-9), np.int64)

    @property
    def ids(self) -> range | tuple[int, ...]:
        """Numbers of all tracts."""
        return range(int(self._starts[-1]) + 1)

    def tract(self, id: int) -> Tract:
        """Return a tract by its number."""
        ra, dec = (float(v[id]) for v in self._centres)
        return self.grid.tract(id, ra, dec, _ring_patches(self, self._ring(id)))

    def cell(self, id: int) -> tuple[float, float, float, float]:
        """Return lowest and highest ra and dec of what belongs to a tract; ra is negative where it begins before 0."""
        ring, (ra, dec) = self._ring(id), (float(v[id]) for v in self._centres)
        if not 0 <= ring < self.num_rings:
            edge = 90 - self.height / 2
            return (0.0, 360.0, edge, 90.0) if dec > 0 else (0.0, 360.0, -90.0, -edge)
        half = 180.0 / int(self.counts[ring])
        return ra - half, ra + half, dec - self.height / 2, dec + self.height / 2

    def owner(self, ra: F64, dec: F64) -> IntArray:
        """Return the tract that each position (degrees, shape (n,)) belongs to."""
        ring = np.floor((dec + 90) / self.height - 0.5).astype(int)
        inside = np.clip(ring, 0, self.num_rings - 1)
        count = self.counts[inside]
        column = np.floor(ra % 360 * count / 360 + 0.5).astype(int) % count
        found = np.where(ring < 0, 0, self._starts[inside] + column)
        return np.asarray(np.where(ring >= self.num_rings, self._starts[-1], found), np.int64)

    def near(self, ra: float, dec: float, radius: float) -> list[int]:
        """Return the tracts whose box a circle (degrees) may meet, in order of their numbers."""
        reach = radius + self._reach
        (level,) = np.nonzero(np.abs(self._centres[1] - dec) <= reach)
        away = separation(ra, dec, self._centres[0][level], self._centres[1][level])
        return [int(id) for id in level[away <= reach]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"kind": "rings", "num_rings": self.num_rings, **self.grid.to_dict()}

    @cached_property
    def _starts(self) -> IntArray:
        # first tract of each ring, and the northern cap
        return np.concatenate([[1], 1 + np.cumsum(self.counts)])

    @cached_property
    def _centres(self) -> tuple[F64, F64]:
        levels = self.height * (np.arange(self.num_rings) + 1) - 90
        ra = [np.arange(count) * 360 / count for count in self.counts]
        return np.concatenate([[0.0], *ra, [0.0]]), np.concatenate([[-90.0], np.repeat(levels, self.counts), [90.0]])

    @cached_property
    def _reach(self) -> float:
        return max(self.tract(int(id)).radius for id in [0, *self._starts])

    def _ring(self, id: int) -> int:
        return int(np.searchsorted(self._starts, id, side="right")) - 1


@dataclass(frozen=True)
class Healpix:
    """One tract around each pixel of HEALPix (nested order); a position belongs to the tract of its pixel.

    Raises
    ------
    ValueError
        If `nside` is no power of two.
    """

    nside: int
    grid: Grid = Grid()

    def __post_init__(self) -> None:
        if self.nside < 1 or self.nside & (self.nside - 1):
            raise ValueError(f"nside is a power of two, not {self.nside}")

    @property
    def ids(self) -> range | tuple[int, ...]:
        """Numbers of all tracts."""
        return range(12 * self.nside**2)

    def tract(self, id: int) -> Tract:
        """Return a tract by its number."""
        ra, dec = (float(v) for v in hpgeom.pixel_to_angle(self.nside, id))
        return self.grid.tract(id, ra, dec, _pixel_patches(self, id))

    def outline(self, id: int) -> tuple[F64, F64]:
        """Return (ra, dec) in degrees around the pixel of a tract."""
        ra, dec = hpgeom.boundaries(self.nside, id, step=_STEPS - 1)
        return np.ravel(ra), np.ravel(dec)

    def owner(self, ra: F64, dec: F64) -> IntArray:
        """Return the tract that each position (degrees, shape (n,)) belongs to."""
        return np.asarray(hpgeom.angle_to_pixel(self.nside, ra % 360, dec), np.int64)

    def near(self, ra: float, dec: float, radius: float) -> list[int]:
        """Return the tracts whose box a circle (degrees) may meet, in order of their numbers."""
        reach = radius + self._reach
        if reach >= 179:
            return list(self.ids)
        return sorted(int(id) for id in hpgeom.query_circle(self.nside, ra, dec, reach, inclusive=True))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"kind": "healpix", "nside": self.nside, **self.grid.to_dict()}

    @cached_property
    def _reach(self) -> float:
        # half a diagonal of the largest box that a pixel can need, rounded up to whole patches
        grid, pixel = self.grid, np.deg2rad(self.grid.pixel_scale_arcsec / 3600)
        half = np.tan(np.deg2rad(hpgeom.max_pixel_radius(self.nside))) * (1 + 1e-4) + np.deg2rad(grid.overlap)
        return float(np.rad2deg(np.arctan(np.sqrt(2) * (half + (grid.patch_size + 2) * pixel))))


Tiling = Discrete | Rings | Healpix


@cache
def _ring_patches(rings: Rings, ring: int) -> tuple[int, int]:
    # the tracts of a ring are all alike; the caps count as rings before the first and after the last
    polar = not 0 <= ring < rings.num_rings
    dec = 90.0 if polar else rings.height * (ring + 1) - 90
    if polar:
        ra = np.linspace(0, 360, 4 * _STEPS, endpoint=False)
        return rings.grid.patches_for(0.0, dec, (ra, np.full(ra.shape, 90 - rings.height / 2)))
    half = 180.0 / int(rings.counts[ring])
    ra = np.tile(np.linspace(-half, half, _STEPS), 2)
    edges = np.repeat([dec - rings.height / 2, dec + rings.height / 2], _STEPS)
    return rings.grid.patches_for(0.0, dec, (ra, edges))


@cache
def _pixel_patches(tiling: Healpix, id: int) -> tuple[int, int]:
    ra, dec = (float(v) for v in hpgeom.pixel_to_angle(tiling.nside, id))
    return tiling.grid.patches_for(ra, dec, tiling.outline(id))
