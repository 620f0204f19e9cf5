"""A sky map: the tracts and patches that coadds are made on, and which of them lie where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from apstream.arrays.types import F64, FloatArray, IntArray
from apstream.model.geometry import Box
from apstream.model.tilings import Discrete, Grid, Healpix, Rings, Tiling
from apstream.model.tract import SkyInfo, Tract
from apstream.model.wcs import SkyWcs, separation

__all__ = ["SkyMap"]

#: Steps along each side of an image by which its outline is followed through the sky.
_STEPS = 16


@dataclass(frozen=True)
class SkyMap:
    """Tracts, each with its patches; a patch is named by the numbers of both.

    Tracts overlap, and so do patches. What belongs to whom is settled: every position within a sky map
    belongs to one tract (`owner`) and one patch of it (`place`).

    Parameters
    ----------
    tiling
        Given tracts, rings, or HEALPix.
    """

    tiling: Tiling

    @classmethod
    def discrete(cls, tracts: Sequence[Tract]) -> SkyMap:
        """Make a sky map of given tracts."""
        return cls(Discrete(tuple(tracts)))

    @classmethod
    def rings(cls, num_rings: int, grid: Grid) -> SkyMap:
        """Make a sky map of rings of constant declination, the whole sky; 120 rings give tracts of 1.5 degrees."""
        return cls(Rings(num_rings, grid))

    @classmethod
    def healpix(cls, nside: int, grid: Grid) -> SkyMap:
        """Make a sky map with a tract for each pixel of HEALPix, the whole sky; nside 32 gives 1.8 degrees."""
        return cls(Healpix(nside, grid))

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
        """Make the sky map of one tract, as small as can be, that covers a circle (degrees)."""
        tract = Tract.around(
            ra, dec, radius, pixel_scale_arcsec=pixel_scale_arcsec, patch_size=patch_size, border=border
        )
        return cls.discrete([tract])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads."""
        return self.tiling.to_dict()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SkyMap:
        """Make a sky map from what `to_dict` gave, or from the single tract that sky maps used to be.

        Raises
        ------
        TypeError, ValueError, KeyError
            If keys are unknown or missing, or values impossible.
        """
        rest = {key: value for key, value in values.items() if key != "kind"}
        match values.get("kind"):
            case None:
                return cls.discrete([Tract.from_dict({("id" if k == "tract" else k): v for k, v in rest.items()})])
            case "discrete":
                return cls(Discrete(tuple(Tract.from_dict(one) for one in rest["tracts"])))
            case "rings":
                return cls.rings(rest.pop("num_rings"), Grid(**rest))
            case "healpix":
                return cls.healpix(rest.pop("nside"), Grid(**rest))
            case other:
                raise ValueError(f"a sky map is discrete, rings or healpix, not {other!r}")

    @property
    def kind(self) -> str:
        """discrete, rings or healpix."""
        return type(self.tiling).__name__.lower()

    @property
    def tracts(self) -> Sequence[int]:
        """Numbers of all tracts."""
        return self.tiling.ids

    def tract(self, id: int) -> Tract:
        """Return a tract by its number; ValueError if there is none."""
        if id not in self.tracts:
            raise ValueError(f"no tract {id}: the sky map has {len(self.tracts)}, up to {self.tracts[-1]}")
        return _tract(self, id)

    def sky_info(self, tract: int, patch: int) -> SkyInfo:
        """Return where a patch is; ValueError if there is none."""
        return self.tract(tract).sky_info(patch)

    def owner(self, ra: FloatArray | float, dec: FloatArray | float) -> IntArray:
        """Return the tract that each position (degrees) belongs to, -1 outside the sky map; shape (n,)."""
        return self.tiling.owner(*_flat(ra, dec))

    def place(self, ra: FloatArray | float, dec: FloatArray | float) -> tuple[IntArray, IntArray]:
        """Return the tract and the patch that each position (degrees) belongs to, -1 outside; shape (n,)."""
        flat_ra, flat_dec = _flat(ra, dec)
        tracts = self.tiling.owner(flat_ra, flat_dec)
        patches = np.full(tracts.shape, -1, np.int64)
        for id in np.unique(tracts[tracts >= 0]):
            here = tracts == id
            patches[here] = self.tract(int(id)).patch_of(flat_ra[here], flat_dec[here])
        return tracts, patches

    def tracts_at(self, ra: float, dec: float, radius: float = 0.0) -> list[int]:
        """Return the tracts that have a pixel at a position, or within `radius` degrees of it."""
        return sorted({tract for tract, _ in self.patches_at(ra, dec, radius)})

    def patches_at(self, ra: float, dec: float, radius: float = 0.0) -> list[tuple[int, int]]:
        """Return (tract, patch) of the patches that a circle on the sky (degrees) touches, borders included."""
        near = (self.tract(id) for id in self.tiling.near(ra, dec, radius))
        return [(tract.id, patch) for tract in near for patch in tract.patches_at(ra, dec, radius)]

    def patches_under(self, wcs: SkyWcs, box: Box) -> list[tuple[int, int]]:
        """Return (tract, patch) of the patches that have a part of an image; its outline is followed on the sky."""
        ra, dec = wcs.pixel_to_sky(*box.outline(_STEPS))
        if not (np.isfinite(ra).all() and np.isfinite(dec).all()):
            return []
        return self.patches_within(ra, dec)

    def patches_within(self, ra: F64, dec: F64) -> list[tuple[int, int]]:
        """Return (tract, patch) of the patches that have a part of a region, given by its outline (degrees)."""
        centre = _middle(ra, dec)
        radius = float(separation(*centre, ra, dec).max())
        near = (self.tract(id) for id in self.tiling.near(*centre, radius))
        return [(tract.id, patch) for tract in near for patch in tract.patches_under(ra, dec)]


@lru_cache(maxsize=4096)
def _tract(skymap: SkyMap, id: int) -> Tract:
    # kept, for making a WCS takes longer than asking it
    return skymap.tiling.tract(id)


def _flat(ra: FloatArray | float, dec: FloatArray | float) -> tuple[F64, F64]:
    return np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))


def _middle(ra: F64, dec: F64) -> tuple[float, float]:
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    x, y, z = (np.cos(d) * np.cos(a)).mean(), (np.cos(d) * np.sin(a)).mean(), np.sin(d).mean()
    return float(np.rad2deg(np.arctan2(y, x)) % 360), float(np.rad2deg(np.arctan2(z, np.hypot(x, y))))
