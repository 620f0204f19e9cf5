"""Truth tables and the reference catalogue."""

from __future__ import annotations

import numpy as np

from apstream.arrays.types import F32, F64, FloatArray, Records
from apstream.simulate.config import BANDS
from apstream.simulate.optics import sky_level
from apstream.simulate.render import effective_area, psf_stamp
from apstream.simulate.scene import View
from apstream.simulate.sky import EPOCH

__all__ = ["REFCAT_UNITS", "TRUTH_DTYPE", "TRUTH_UNITS", "reference_catalogue", "truth_rows"]

#: One row per changing object and visit. Fluxes are differences to the template; x, y are 0-based pixels.
TRUTH_DTYPE = np.dtype(
    [
        ("id", "i8"),
        ("kind", "U10"),
        ("host", "U8"),
        ("host_id", "i8"),
        ("visit", "i8"),
        ("detector", "i4"),
        ("band", "U2"),
        ("mjd_mid_utc", "f8"),
        ("ra", "f8"),
        ("dec", "f8"),
        ("x", "f8"),
        ("y", "f8"),
        ("flux_njy", "f8"),  # science minus template
        ("total_flux_njy", "f8"),  # of the changing part alone, in the science visit
        ("mag", "f8"),  # AB of |flux_njy|
        ("sn_expected", "f8"),  # signed flux / (sky noise x sqrt(PSF effective area)), science image alone
        ("sn_local", "f8"),  # the same with the noise of stars and galaxies under the source
    ]
)
TRUTH_UNITS = {
    "ra": "deg",
    "dec": "deg",
    "x": "pixel",
    "y": "pixel",
    "flux_njy": "nJy",
    "total_flux_njy": "nJy",
}
REFCAT_UNITS = {"ra": "deg", "dec": "deg", "pmra": "mas/yr", "pmdec": "mas/yr", "epoch": "Julian year"}


def truth_rows(
    view: View, changing: Records, *, flux_njy: F64, template_njy: F64, radec: tuple[F64, F64], variance: F32
) -> Records:
    """Tabulate the changing objects that fall on the detector.

    Parameters
    ----------
    variance : ndarray, shape (ny, nx)
        Variance of the science image in electrons squared, sources included.
    """
    y, x = view.wcs.sky_to_pixel(*radec)
    ny, nx = view.shape
    inside = np.flatnonzero((y > -0.5) & (y < ny - 0.5) & (x > -0.5) & (x < nx - 0.5))
    rows = np.zeros(len(inside), TRUTH_DTYPE)
    for name in ("id", "kind", "host", "host_id"):
        rows[name] = changing[name][inside]
    conditions = view.conditions
    rows["visit"], rows["detector"], rows["band"] = conditions.visit, view.detector, conditions.band
    rows["mjd_mid_utc"] = conditions.mjd_mid_utc
    rows["ra"], rows["dec"], rows["y"], rows["x"] = radec[0][inside], radec[1][inside], y[inside], x[inside]
    rows["total_flux_njy"] = flux_njy[inside]
    rows["flux_njy"] = (flux_njy - template_njy)[inside]
    with np.errstate(divide="ignore"):
        rows["mag"] = 31.4 - 2.5 * np.log10(np.abs(rows["flux_njy"]))
    rows["sn_expected"], rows["sn_local"] = _signal_to_noise(view, rows, variance)
    return rows


def _signal_to_noise(view: View, rows: Records, variance: F32) -> tuple[F64, F64]:
    electrons = view.conditions.electrons(rows["flux_njy"])
    alpha, g1, g2 = view.psf(rows["y"], rows["x"])
    sky = sky_level(view.conditions, view.optics.pixel_scale_arcsec)
    expected, local = np.zeros(len(rows)), np.zeros(len(rows))
    for i, row in enumerate(rows):
        shape = (float(alpha[i]), float(g1[i]), float(g2[i]))
        expected[i] = electrons[i] / np.sqrt(sky * effective_area(*shape))
        local[i] = electrons[i] * np.sqrt(_information(variance, row["y"], row["x"], shape))
    return expected, local


def _information(variance: F32, y: float, x: float, shape: tuple[float, float, float], half: int = 12) -> float:
    """Return sum(PSF^2 / variance) over the part of the stamp that lies on the image."""
    iy, ix = round(y), round(x)
    stamp = psf_stamp(*shape, y - iy, x - ix, half)
    y0, x0 = max(0, iy - half), max(0, ix - half)
    part = variance[y0 : iy + half + 1, x0 : ix + half + 1]
    cut = stamp[y0 - iy + half :, x0 - ix + half :][: part.shape[0], : part.shape[1]]
    return float(np.sum(cut**2 / part))


def reference_catalogue(rng: np.random.Generator, objects: Records, *, limit_mag: float = 21.0) -> Records:
    """Return the stars brighter than `limit_mag` in r as a catalogue would list them, with its errors."""
    stars = objects[objects["is_star"] & (objects["mag_r"] < limit_mag)]
    bands = [(name, "f4") for band in BANDS for name in (band, f"{band}_err")]
    dtype = [(name, "f8") for name in ("ra", "dec", "pmra", "pmdec", "epoch")]
    rows = np.zeros(len(stars), np.dtype([("id", "i8"), *dtype, *bands]))
    noise = 5.0 / 3.6e6
    rows["id"] = stars["id"]
    rows["dec"] = stars["dec"] + rng.normal(0, noise, len(stars))
    rows["ra"] = stars["ra"] + rng.normal(0, noise, len(stars)) / np.cos(np.deg2rad(stars["dec"]))
    rows["pmra"] = stars["pm_ra"] + rng.normal(0, 0.5, len(stars))
    rows["pmdec"] = stars["pm_dec"] + rng.normal(0, 0.5, len(stars))
    rows["epoch"] = EPOCH
    for band in BANDS:
        error = _magnitude_error(stars[f"mag_{band}"])
        rows[band] = stars[f"mag_{band}"] + error * rng.standard_normal(len(stars))
        rows[f"{band}_err"] = error
    return rows


def _magnitude_error(mag: FloatArray) -> F64:
    """Return 0.006 mag for bright stars, growing to about 0.02 at 21."""
    return np.hypot(0.006, 0.02 * 10 ** (0.3 * (np.asarray(mag, float) - 21)))
