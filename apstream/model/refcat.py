"""Reference catalogues: positions, magnitudes, colours, proper motions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.types import F64, Records

__all__ = ["REFCAT_DTYPE", "RefCat", "References"]

#: ra, dec in ICRS degrees at `epoch` (Julian year); magnitude, and a colour of the same catalogue in mag;
#: proper motions in mas/yr (pm_ra includes cos dec), parallaxes and errors per axis in mas.
#: NaN is "not known" everywhere, and so is zero for errors.
REFCAT_DTYPE = np.dtype(
    [
        ("ra", "f8"),
        ("dec", "f8"),
        ("mag", "f4"),
        ("mag_err", "f4"),
        ("pm_ra", "f4"),
        ("pm_dec", "f4"),
        ("epoch", "f8"),
        ("color", "f4"),
        ("parallax", "f4"),
        ("pos_err", "f4"),
        ("pm_err", "f4"),
    ]
)

_MJD_J2000, _YEAR = 51544.5, 365.25
_MAS = 3.6e6


@dataclass(frozen=True, slots=True, eq=False)
class RefCat:
    """A reference catalogue in one band.

    Parameters
    ----------
    stars
        Rows of `REFCAT_DTYPE`.
    origin
        Where it was read from.
    substitute
        The column of magnitudes that was taken because there is none of the band; empty if there is.
    """

    stars: Records
    origin: str = ""
    substitute: str = ""

    def __post_init__(self) -> None:
        if self.stars.dtype != REFCAT_DTYPE:
            raise ValueError(f"reference stars must have REFCAT_DTYPE, not {self.stars.dtype}")

    def at(self, mjd: float) -> RefCat:
        """Return the catalogue with positions moved to `mjd` (TAI) and seen from the Earth.

        Rows without a proper motion or an epoch stay, and so do those without a parallax. `pos_err` grows by
        `pm_err` times the years.
        """
        stars = self.stars.copy()
        years = 2000 + (mjd - _MJD_J2000) / _YEAR - stars["epoch"]
        years = np.where(np.isfinite(years), years, 0.0)
        pm_ra, pm_dec, pm_err = (_known(stars[c]) for c in ("pm_ra", "pm_dec", "pm_err"))
        east, north = pm_ra * years, pm_dec * years
        parallax = _known(stars["parallax"])
        if parallax.any():
            toward_east, toward_north = _parallax_factors(stars["ra"], stars["dec"], mjd)
            east, north = east + parallax * toward_east, north + parallax * toward_north
        stars["dec"] += north / _MAS
        stars["ra"] = (stars["ra"] + east / _MAS / np.cos(np.deg2rad(stars["dec"]))) % 360
        stars["pos_err"] = np.hypot(stars["pos_err"], pm_err * years)
        return RefCat(stars, self.origin, self.substitute)


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """The catalogue that fixes positions and the one that fixes fluxes; often the same."""

    astrometry: RefCat
    photometry: RefCat

    @classmethod
    def of(cls, reference: RefCat | References) -> References:
        """Take one catalogue for both, or both as they are."""
        return cls(reference, reference) if isinstance(reference, RefCat) else reference

    @property
    def origin(self) -> str:
        """Where the catalogues are from."""
        return ", ".join(dict.fromkeys((self.astrometry.origin, self.photometry.origin)))


def _known(values: F64) -> F64:
    return np.where(np.isfinite(values), values, 0.0)


def _parallax_factors(ra: F64, dec: F64, mjd: float) -> tuple[F64, F64]:
    """Return the displacements east and north of stars whose parallax is one, seen from the Earth.

    The Earth's place about the barycentre is that of ERFA's epv00 (good to some km).
    """
    from astropy.coordinates import get_body_barycentric  # costs half a second, and few catalogues have parallaxes
    from astropy.time import Time

    place = get_body_barycentric("earth", Time(mjd, format="mjd", scale="tai"), ephemeris="builtin")
    x, y, z = (float(v) for v in place.xyz.to_value("au"))
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    east = x * np.sin(a) - y * np.cos(a)
    north = (x * np.cos(a) + y * np.sin(a)) * np.sin(d) - z * np.cos(d)
    return east, north
