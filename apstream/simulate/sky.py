"""The sky: stars, galaxies, and what changes among them."""

from __future__ import annotations

import numpy as np

from apstream.arrays.types import F64, FloatArray, IntArray, Records
from apstream.model.wcs import SkyWcs
from apstream.simulate.config import BANDS, SkyConfig

__all__ = [
    "CHANGING_DTYPE",
    "EPOCH",
    "OBJECT_DTYPE",
    "changing_positions",
    "draw_changing",
    "draw_objects",
    "draw_variables",
    "flux_of",
    "magnitude_flux",
    "place_on_galaxies",
    "positions_at",
]

#: Julian year of the catalogue positions.
EPOCH = 2016.0
_BAND_NAMES = tuple(BANDS)

OBJECT_DTYPE = np.dtype(
    [
        ("id", "i8"),
        ("is_star", "?"),
        ("ra", "f8"),
        ("dec", "f8"),
        ("pm_ra", "f8"),  # mas/yr, times cos dec
        ("pm_dec", "f8"),
        *((f"mag_{band}", "f8") for band in _BAND_NAMES),
        ("radius_arcsec", "f8"),
        ("sersic", "f8"),
        ("axis_ratio", "f8"),
        ("angle_deg", "f8"),  # of the major axis, from north through east
    ]
)

#: What changes: supernova, flare (fast fader), faded (bright in the template), variable, asteroid.
CHANGING_DTYPE = np.dtype(
    [
        ("id", "i8"),
        ("kind", "U10"),
        ("host", "U8"),  # galaxy, star or none
        ("host_id", "i8"),
        ("ra", "f8"),
        ("dec", "f8"),
        ("mag", "f8"),  # at peak; mean for variables
        ("mjd0", "f8"),  # peak, flare or reference time
        ("rise_d", "f8"),
        ("fade_d", "f8"),
        ("amplitude", "f8"),  # variables, mag
        ("period_d", "f8"),
        ("rate_ra", "f8"),  # asteroids, arcsec/h on the sky
        ("rate_dec", "f8"),
    ]
)

_KINDS = ("supernova", "flare", "faded")


def magnitude_flux(mag: FloatArray) -> F64:
    """Return fluxes in nJy of AB magnitudes."""
    return np.asarray(10 ** (-0.4 * (np.asarray(mag, float) - 31.4)))


def _power_law(rng: np.random.Generator, count: int, limits: tuple[float, float], slope: float) -> F64:
    low, high = (10 ** (slope * m) for m in limits)
    return np.asarray(np.log10(rng.uniform(low, high, count)) / slope)


def _scatter(rng: np.random.Generator, count: int, config: SkyConfig, half: tuple[float, float]) -> tuple[F64, F64]:
    """Return positions evenly over the tangent plane, `half` its half sides (y, x) in arcsec."""
    plane = SkyWcs.tan(config.ra_deg, config.dec_deg, pixel_scale_arcsec=1.0, y=0.0, x=0.0)
    return plane.pixel_to_sky(rng.uniform(-half[0], half[0], count), rng.uniform(-half[1], half[1], count))


def draw_objects(rng: np.random.Generator, config: SkyConfig, half_arcsec: tuple[float, float]) -> Records:
    """Draw the stars and galaxies that do not change; rows of `OBJECT_DTYPE`."""
    area = 4 * half_arcsec[0] * half_arcsec[1] / 3600
    n_star, n_galaxy = (round(d * area) for d in (config.stars_per_arcmin2, config.galaxies_per_arcmin2))
    rows = np.zeros(n_star + n_galaxy, OBJECT_DTYPE)
    rows["id"] = np.arange(len(rows)) + 1
    rows["is_star"] = np.arange(len(rows)) < n_star
    rows["ra"], rows["dec"] = _scatter(rng, len(rows), config, half_arcsec)
    star, galaxy = rows[:n_star], rows[n_star:]
    mag = _power_law(rng, n_star, config.star_mag_limits, config.star_count_slope)
    _set_magnitudes(star, mag, np.where(rng.random(n_star) < 0.5, 0.45, 1.3) + rng.normal(0, 0.12, n_star))
    for axis in ("pm_ra", "pm_dec"):
        star[axis] = rng.normal(0, config.proper_motion_mas_yr, n_star)
    _shape_galaxies(rng, galaxy, config)
    return rows


def _set_magnitudes(rows: Records, mag_r: F64, g_r: F64) -> None:
    """Fill the bands from r and g-r along a simple locus."""
    steps = {"u": 2.3 * g_r, "g": g_r, "r": 0 * g_r, "i": -0.45 * g_r, "z": -0.7 * g_r, "y": -0.8 * g_r}
    for band, step in steps.items():
        rows[f"mag_{band}"] = mag_r + step


def _shape_galaxies(rng: np.random.Generator, rows: Records, config: SkyConfig) -> None:
    count = len(rows)
    mag = _power_law(rng, count, config.galaxy_mag_limits, config.galaxy_count_slope)
    _set_magnitudes(rows, mag, rng.normal(0.7, 0.25, count))
    rows["radius_arcsec"] = np.clip(0.45 * 10 ** (-0.13 * (mag - 23.0)) * 10 ** rng.normal(0, 0.15, count), 0.12, 4.0)
    rows["sersic"] = np.where(rng.random(count) < 0.7, 1.0, 4.0)
    rows["axis_ratio"] = rng.uniform(0.3, 1.0, count)
    rows["angle_deg"] = rng.uniform(0, 180, count)


def positions_at(rows: Records, mjd: float) -> tuple[F64, F64]:
    """Return (ra, dec) of objects at a date, proper motion applied."""
    years = 2000 + (mjd - 51544.5) / 365.25 - EPOCH
    dec = rows["dec"] + rows["pm_dec"] * years / 3.6e6
    return rows["ra"] + rows["pm_ra"] * years / 3.6e6 / np.cos(np.deg2rad(dec)), dec


def draw_changing(
    rng: np.random.Generator,
    config: SkyConfig,
    objects: Records,
    *,
    half_arcsec: tuple[float, float],
    transients: int | None,
    mjds: FloatArray,
) -> Records:
    """Draw all that changes; `mjds` are the times of the science visits."""
    area = 4 * half_arcsec[0] * half_arcsec[1] / 3600
    count = max(10, round(config.transients_per_arcmin2 * area)) if transients is None else transients
    nights = np.unique(np.floor(mjds))
    north = (objects["dec"] - config.dec_deg) * 3600
    east = ((objects["ra"] - config.ra_deg + 180) % 360 - 180) * 3600 * np.cos(np.deg2rad(config.dec_deg))
    objects = objects[(np.abs(north) < half_arcsec[0]) & (np.abs(east) < half_arcsec[1])]
    parts = [
        _draw_transients(rng, config, objects, count, half_arcsec, mjds),
        draw_variables(rng, objects, round(config.variables_per_arcmin2 * area), mjds),
        _draw_asteroids(rng, config, round(config.asteroids_per_arcmin2 * area * len(nights)), half_arcsec, mjds),
    ]
    rows = np.concatenate(parts)
    rows["id"] = np.arange(len(rows)) + 1
    return rows


def _draw_transients(
    rng: np.random.Generator,
    config: SkyConfig,
    objects: Records,
    count: int,
    half: tuple[float, float],
    mjds: FloatArray,
) -> Records:
    rows = np.zeros(count, CHANGING_DTYPE)
    rows["kind"] = rng.choice(_KINDS, count, p=[0.65, 0.25, 0.10])
    rows["ra"], rows["dec"] = _scatter(rng, count, config, half)
    rows["host"], rows["host_id"] = "none", -1
    place_on_galaxies(rng, rows, objects, np.flatnonzero(rng.random(count) < 0.5))
    rows["mag"] = rng.uniform(19.5, 24.3, count)
    first, last = float(mjds.min()), float(mjds.max())
    flare, faded = rows["kind"] == "flare", rows["kind"] == "faded"
    rows["mjd0"] = rng.uniform(first - 5, last + 5, count)
    rows["mjd0"][flare] = rng.choice(mjds, int(flare.sum())) - rng.uniform(0, 0.05, int(flare.sum()))
    rows["mjd0"][faded] = first - rng.uniform(62, 75, int(faded.sum()))
    rows["rise_d"] = np.where(flare, 0.005, rng.uniform(3, 8, count))
    rows["fade_d"] = np.where(flare, rng.uniform(0.05, 2.0, count), rng.uniform(15, 40, count))
    return rows


def place_on_galaxies(rng: np.random.Generator, rows: Records, objects: Records, which: IntArray) -> None:
    """Move rows onto galaxies brighter than 24, within about a half-light radius; changes `rows`."""
    hosts = objects[~objects["is_star"] & (objects["mag_r"] < 24)]
    if len(hosts) == 0 or len(which) == 0:
        return
    host = hosts[rng.integers(0, len(hosts), len(which))]
    reach = host["radius_arcsec"] * np.abs(rng.normal(0, 0.8, len(which))) / 3600
    angle = rng.uniform(0, 2 * np.pi, len(which))
    rows["dec"][which] = host["dec"] + reach * np.sin(angle)
    rows["ra"][which] = host["ra"] + reach * np.cos(angle) / np.cos(np.deg2rad(host["dec"]))
    rows["host"][which], rows["host_id"][which] = "galaxy", host["id"]


def draw_variables(rng: np.random.Generator, objects: Records, count: int, mjds: FloatArray) -> Records:
    """Make `count` of the stars between 17 and 22 mag vary; rows of `CHANGING_DTYPE`."""
    stars = objects[objects["is_star"] & (objects["mag_r"] > 17) & (objects["mag_r"] < 22)]
    chosen = stars[rng.permutation(len(stars))[:count]]
    rows = np.zeros(len(chosen), CHANGING_DTYPE)
    rows["kind"], rows["host"], rows["host_id"] = "variable", "star", chosen["id"]
    rows["ra"], rows["dec"] = positions_at(chosen, float(mjds.min()))
    rows["mag"] = chosen["mag_r"]
    rows["amplitude"] = rng.uniform(0.05, 0.4, len(rows))
    rows["period_d"] = 10 ** rng.uniform(-1, 1, len(rows))
    rows["mjd0"] = mjds.min() + rows["period_d"] * rng.random(len(rows))
    return rows


def _draw_asteroids(
    rng: np.random.Generator, config: SkyConfig, count: int, half: tuple[float, float], mjds: FloatArray
) -> Records:
    rows = np.zeros(count, CHANGING_DTYPE)
    rows["kind"], rows["host"], rows["host_id"] = "asteroid", "none", -1
    rows["ra"], rows["dec"] = _scatter(rng, count, config, half)
    rows["mag"] = _power_law(rng, count, (18.5, 23.5), 0.3)
    rows["mjd0"] = rng.choice(mjds, count) if count else 0.0
    rows["rate_ra"] = -rng.uniform(15, 40, count)
    rows["rate_dec"] = rng.normal(0, 8, count)
    return rows


def changing_positions(rows: Records, mjd: float) -> tuple[F64, F64]:
    """Return (ra, dec) of changing objects at a date; only asteroids move."""
    hours = np.where(rows["kind"] == "asteroid", (mjd - rows["mjd0"]) * 24, 0.0)
    dec = rows["dec"] + rows["rate_dec"] * hours / 3600
    return rows["ra"] + rows["rate_ra"] * hours / 3600 / np.cos(np.deg2rad(dec)), dec


def flux_of(rows: Records, mjd: float) -> F64:
    """Return the flux in nJy of changing objects at a date; variables give their excess over the mean."""
    flux = np.zeros(len(rows))
    peak, dt = magnitude_flux(rows["mag"]), mjd - rows["mjd0"]
    bursts = np.isin(rows["kind"], _KINDS)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        curve = np.where(dt < 0, np.exp(-0.5 * (dt / rows["rise_d"]) ** 2), np.exp(-dt / rows["fade_d"]))
        wave = 10 ** (-0.4 * rows["amplitude"] * np.sin(2 * np.pi * dt / rows["period_d"])) - 1
    flux[bursts] = (peak * curve)[bursts]
    variable = rows["kind"] == "variable"
    flux[variable] = (peak * wave)[variable]
    asteroid = rows["kind"] == "asteroid"
    flux[asteroid] = peak[asteroid] * (np.abs(dt[asteroid]) < 1.0)
    return flux
