"""Reference catalogues: positions, magnitudes, proper motions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.types import Records

__all__ = ["REFCAT_DTYPE", "RefCat"]

#: ra, dec in ICRS degrees at `epoch` (Julian year); AB magnitude;
#: proper motions in mas/yr (pm_ra includes cos dec).
REFCAT_DTYPE = np.dtype(
    [
        ("ra", "f8"),
        ("dec", "f8"),
        ("mag", "f4"),
        ("mag_err", "f4"),
        ("pm_ra", "f4"),
        ("pm_dec", "f4"),
        ("epoch", "f8"),
    ]
)

_MJD_J2000, _YEAR = 51544.5, 365.25


@dataclass(frozen=True, slots=True, eq=False)
class RefCat:
    """A reference catalogue in one band; rows of `REFCAT_DTYPE`."""

    stars: Records
    origin: str = ""

    def __post_init__(self) -> None:
        if self.stars.dtype != REFCAT_DTYPE:
            raise ValueError(f"reference stars must have REFCAT_DTYPE, not {self.stars.dtype}")

    def at(self, mjd: float) -> RefCat:
        """Return the catalogue with positions moved to `mjd`; rows without proper motion or epoch stay."""
        stars = self.stars.copy()
        years = 2000 + (mjd - _MJD_J2000) / _YEAR - stars["epoch"]
        years = np.where(np.isfinite(years), years, 0.0)
        pm_ra, pm_dec = (np.where(np.isfinite(stars[c]), stars[c], 0.0) for c in ("pm_ra", "pm_dec"))
        stars["dec"] += pm_dec * years / 3.6e6
        stars["ra"] = (stars["ra"] + pm_ra * years / 3.6e6 / np.cos(np.deg2rad(stars["dec"]))) % 360
        return RefCat(stars, self.origin)
