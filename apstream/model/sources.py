"""The catalogue of sources of one exposure: positions, fluxes, flags, places on the sky, and what else was measured."""

from __future__ import annotations

import numpy as np

from apstream.arrays.types import Records
from apstream.model.exposures import STAR_DTYPE, sky_positions
from apstream.model.measurements import measured_columns
from apstream.model.tablespec import Column, TableSpec
from apstream.model.wcs import SkyWcs

__all__ = ["INSTRUMENTAL_SOURCE", "SOURCE", "source_catalog", "with_measured"]

_UNITS = {
    "y": ("pixel", "Row of the centroid, 0-based, absolute."),
    "x": ("pixel", "Column of the centroid, 0-based, absolute."),
    "y_err": ("pixel", "Error of y."),
    "x_err": ("pixel", "Error of x."),
    "flux": ("flux", "PSF flux, of a PSF that sums to one."),
    "flux_err": ("flux", "Error of flux."),
    "ap_flux": ("flux", "Flux in the aperture of the aperture correction."),
    "ap_flux_err": ("flux", "Error of ap_flux."),
    "fwhm": ("pixel", "Full width at half maximum."),
    "ellipticity": ("", "Length of ((xx - yy), 2 xy) / (xx + yy), second moments."),
    "peak": ("flux", "Highest pixel."),
    "is_star": ("", "On the stellar locus."),
    "psf_used": ("", "Shaped the PSF model."),
    "saturated": ("", "Touches a saturated pixel."),
    "blended": ("", "Overlaps a neighbour."),
    "flagged": ("", "BAD, CR, EDGE, NO_DATA or STREAK near the centre."),
}
_SKY = (
    Column("ra", "f8", "deg", "Right ascension, ICRS."),
    Column("dec", "f8", "deg", "Declination, ICRS."),
)


def _table(name: str, doc: str, flux_unit: str) -> TableSpec:
    units = {column: (flux_unit if unit == "flux" else unit, text) for column, (unit, text) in _UNITS.items()}
    stars = (Column(column, STAR_DTYPE[column].char, *units[column]) for column in STAR_DTYPE.names or ())
    return TableSpec(name, doc, (*stars, *_SKY), ())


#: The columns of STAR_DTYPE, then ra and dec, NaN where there is no value: of a calexp, fluxes in nJy.
SOURCE = _table("src", "Sources of one calibrated exposure.", "nJy")
#: The same of a characterized exposure, fluxes in electrons.
INSTRUMENTAL_SOURCE = _table("icSrc", "Sources of one exposure before calibration.", "electron")


def source_catalog(stars: Records, wcs: SkyWcs | None, measured: Records | None = None) -> Records:
    """Return the stars with ra and dec, NaN without a WCS, and beside them what was measured of each.

    The columns are those of `SOURCE` (or `INSTRUMENTAL_SOURCE`), then those of `measured`.
    """
    further = [] if measured is None else measured.dtype.descr
    rows = np.zeros(len(stars), np.dtype([*SOURCE.dtype.descr, *further]))
    for name in STAR_DTYPE.names or ():
        rows[name] = stars[name]
    rows["ra"], rows["dec"] = sky_positions(wcs, stars["y"], stars["x"])
    if measured is not None:
        for name in measured.dtype.names or ():
            rows[name] = measured[name]
    _sky_errors(rows, wcs)
    return rows


def with_measured(spec: TableSpec, dtype: np.dtype[np.void]) -> TableSpec:
    """Return `SOURCE` or `INSTRUMENTAL_SOURCE` with the further columns that `dtype` has.

    Raises
    ------
    ValueError
        If `dtype` does not begin with the columns of `spec`.
    """
    names = dtype.names or ()
    own, further = names[: len(spec.columns)], names[len(spec.columns) :]
    if own != spec.names or any(dtype[name] != spec.dtype[name] for name in own):
        raise ValueError(f"rows are not of table {spec.name}")
    return TableSpec(spec.name, spec.doc, (*spec.columns, *measured_columns(dtype, further, spec["flux"].unit)), ())


def _sky_errors(rows: Records, wcs: SkyWcs | None) -> None:
    """Fill `ra_err` and `dec_err`, angles on the sky, from the errors in pixels by the scale of the WCS there."""
    if wcs is None or not {"ra_err", "dec_err"} <= set(rows.dtype.names or ()):
        return
    squares = np.zeros((2, len(rows)))
    for axis in ("y", "x"):
        ra, dec = sky_positions(wcs, rows["y"] + (axis == "y"), rows["x"] + (axis == "x"))
        along = (ra - rows["ra"] + 180) % 360 - 180
        steps = np.array([along * np.cos(np.radians(rows["dec"])), dec - rows["dec"]])
        squares += (steps * rows[f"{axis}_err"]) ** 2
    rows["ra_err"], rows["dec_err"] = np.sqrt(squares)
