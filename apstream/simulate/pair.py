"""Simulate a calibrated science image and a coadd-like template: what subtraction is tested and timed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.time import Time

from apstream.arrays.types import F32, F64, BoolArray, Records
from apstream.simulate.config import PairConfig
from apstream.simulate.night import generator
from apstream.simulate.optics import Conditions, FocalPlane, draw_conditions, sky_level
from apstream.simulate.raw import add_photon_noise, bleed, cosmic_rays
from apstream.simulate.render import effective_area
from apstream.simulate.scene import View, paint_objects, paint_sky
from apstream.simulate.sky import CHANGING_DTYPE, draw_objects, draw_variables, flux_of, place_on_galaxies
from apstream.simulate.truth import REFCAT_UNITS, TRUTH_UNITS, reference_catalogue, truth_rows
from apstream.simulate.write import write_fits, write_table

__all__ = ["PairSummary", "simulate_pair"]

_SKY, _CHANGING, _SCIENCE, _TEMPLATE, _CATALOGUE, _CONDITIONS = range(10, 16)
_MJD, _EDGE_PX = 61100.2, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSummary:
    """What was written."""

    science: Path
    template: Path
    n_transients: int
    n_variables: int


def simulate_pair(out: Path, config: PairConfig, progress: Callable[[str], None] | None = None) -> PairSummary:
    """Write ``science.fits``, ``template.fits``, ``refcat.parquet`` and ``truth.parquet`` under `out`.

    Images are in ADU, sky included, float32, with true TAN-SIP WCS and GAIN, RDNOISE and SATURATE such that
    (pixel x GAIN) is the variance in (pixel x GAIN)^2, RDNOISE apart: for the template they describe the mean
    of `template_exposures` exposures. Transients stand in the science image only,
    never where a star saturates.
    """
    out, tell = Path(out), progress or (lambda what: None)
    science, template = _views(config)
    objects = draw_objects(generator(config.seed, _SKY), config.sky, _half_arcsec(config))
    light = paint_sky(science)
    paint_objects(light, science, objects)
    tell("science sky")
    changing, flux, reference = _changing(config, science, template, objects, light)
    science.add_points(light, changing["ra"], changing["dec"], flux)
    read_variance = np.float32(config.chip.read_noise_e**2)
    truth = truth_rows(
        science,
        changing,
        flux_njy=flux,
        template_njy=reference,
        radec=(changing["ra"], changing["dec"]),
        variance=light + read_variance,
    )
    _write_image(out / "science.fits", config, science, light, exposures=1)
    tell("science.fits")
    light = paint_sky(template)
    paint_objects(light, template, objects)
    template.add_points(light, changing["ra"], changing["dec"], reference)
    count = 1 if config.identical else config.template_exposures
    _write_image(out / "template.fits", config, template, light, exposures=count)
    tell("template.fits")
    catalogue = reference_catalogue(generator(config.seed, _CATALOGUE), objects)
    write_table(out / "refcat.parquet", catalogue, REFCAT_UNITS)
    write_table(out / "truth.parquet", truth, TRUTH_UNITS)
    variables = int((truth["kind"] == "variable").sum())
    return PairSummary(
        science=out / "science.fits",
        template=out / "template.fits",
        n_transients=len(truth) - variables,
        n_variables=variables,
    )


def _half_arcsec(config: PairConfig) -> tuple[float, float]:
    half = (config.size / 2 + 4 * config.optics.dither_px + 40) * config.optics.pixel_scale_arcsec
    return half, half


def _views(config: PairConfig) -> tuple[View, View]:
    rng = generator(config.seed, _CONDITIONS)
    plane = FocalPlane(config.size, 1)
    both = []
    for visit, (role, seeing) in enumerate(zip(("science", "template"), config.seeing_arcsec, strict=True)):
        optics = config.optics.model_copy(update={"seeing_arcsec": (seeing, seeing)})
        conditions = draw_conditions(
            rng,
            optics,
            centre=(config.sky.ra_deg, config.sky.dec_deg),
            visit=2 - visit,
            role=role,
            band=config.band,
            mjd_start_utc=_MJD - 40.0 * visit,
            exposure_s=config.exposure_s,
        )
        both.append(View.of(conditions, plane, 0, config.optics))
    if config.identical:
        twin = replace(both[0].conditions, visit=1, role="template")
        both[1] = View.of(twin, plane, 0, config.optics)
    return both[0], both[1]


def _changing(
    config: PairConfig, science: View, template: View, objects: Records, light: F32
) -> tuple[Records, F64, F64]:
    """Return the changing objects and their fluxes in science and template, nJy."""
    rng = generator(config.seed, _CHANGING)
    if config.identical:
        return np.zeros(0, CHANGING_DTYPE), np.zeros(0), np.zeros(0)
    area = (config.size * config.optics.pixel_scale_arcsec / 60) ** 2
    count = config.transients
    if count is None:
        count = max(10, round(config.sky.transients_per_arcmin2 * area))
    new = _draw_transients(rng, config, science, objects, light, count)
    times = np.array([science.conditions.mjd_mid_utc])
    variables = draw_variables(rng, objects, round(config.sky.variables_per_arcmin2 * area), times)
    rows = np.concatenate([new, variables])
    rows["id"] = np.arange(len(rows)) + 1
    flux = flux_of(rows, science.conditions.mjd_mid_utc)
    reference = flux_of(rows, template.conditions.mjd_mid_utc)
    flux[: len(new)], reference[: len(new)] = _flux_for_snr(rng, config, science, new), 0.0
    rows["mag"][: len(new)] = 31.4 - 2.5 * np.log10(flux[: len(new)])
    return rows, flux, reference


def _draw_transients(
    rng: np.random.Generator, config: PairConfig, view: View, objects: Records, light: F32, count: int
) -> Records:
    """Place `count` transients, half on galaxies, inside the edges and off saturated stars."""
    hosts = objects[~objects["is_star"]]
    hosts = hosts[_is_inside(config, *view.wcs.sky_to_pixel(hosts["ra"], hosts["dec"]))]
    rows = np.zeros(0, CHANGING_DTYPE)
    while len(rows) < count:
        batch = np.zeros(count, CHANGING_DTYPE)
        y, x = rng.uniform(_EDGE_PX, config.size - _EDGE_PX, (2, len(batch)))
        batch["ra"], batch["dec"] = view.wcs.pixel_to_sky(y, x)
        batch["kind"], batch["host"], batch["host_id"] = "transient", "none", -1
        place_on_galaxies(rng, batch, hosts, np.arange(0, len(batch), 2))
        rows = np.concatenate([rows, batch[_is_clear(config, view, batch, light)]])
    return rows[:count]


def _is_inside(config: PairConfig, y: F64, x: F64) -> BoolArray:
    last = config.size - 1 - _EDGE_PX
    inside: BoolArray = (y > _EDGE_PX) & (y < last) & (x > _EDGE_PX) & (x < last)
    return inside


def _is_clear(config: PairConfig, view: View, rows: Records, light: F32) -> BoolArray:
    y, x = view.wcs.sky_to_pixel(rows["ra"], rows["dec"])
    iy, ix = (np.clip(np.rint(v), 3, config.size - 4).astype(int) for v in (y, x))
    limit = 0.5 * config.chip.full_well_e
    calm = [float(light[j - 3 : j + 4, i - 3 : i + 4].max()) < limit for j, i in zip(iy, ix, strict=True)]
    clear: BoolArray = _is_inside(config, y, x) & np.array(calm, bool)
    return clear


def _flux_for_snr(rng: np.random.Generator, config: PairConfig, view: View, rows: Records) -> F64:
    """Return fluxes in nJy that give S/N evenly in its logarithm over the wanted range."""
    low, high = np.log(config.snr_range)
    snr = np.exp(low + (high - low) * (rng.permutation(len(rows)) + 0.5) / len(rows))
    y, x = view.wcs.sky_to_pixel(rows["ra"], rows["dec"])
    areas = np.array([effective_area(*map(float, shape)) for shape in zip(*view.psf(y, x), strict=True)])
    sky = sky_level(view.conditions, view.optics.pixel_scale_arcsec)
    return np.asarray(snr * np.sqrt(sky * areas) / view.conditions.electrons(np.ones(1))[0])


def _write_image(path: Path, config: PairConfig, view: View, light: F32, *, exposures: int) -> None:
    """Add noise, saturate and write; `light` is overwritten."""
    stream = _SCIENCE if view.conditions.role == "science" else _TEMPLATE
    rng = generator(config.seed, stream)
    gain, read_noise = config.chip.gain, config.chip.read_noise_e
    light *= np.float32(exposures)
    add_photon_noise(rng, light)
    light += np.float32(read_noise * np.sqrt(exposures)) * rng.standard_normal(light.shape, dtype=np.float32)
    if view.conditions.role == "science" and config.cosmic_rays:
        cosmic_rays(rng, light, config.chip, config.exposure_s)
    light /= np.float32(exposures)
    bleed(light, config.chip.full_well_e)
    light /= np.float32(gain)
    write_fits(path, light, _cards(config, view.conditions, exposures) | dict(view.wcs.to_header()))


def _cards(config: PairConfig, conditions: Conditions, exposures: int) -> dict[str, Any]:
    chip = config.chip
    return {
        "INSTRUME": "simpair",
        "OBJECT": f"sim-{conditions.role}",
        "VISIT": conditions.visit,
        "FILTER": conditions.band,
        "EXPTIME": (conditions.exposure_s, "s"),
        "TIMESYS": "UTC",
        "DATE-OBS": (Time(conditions.mjd_start_utc, format="mjd", scale="utc").isot, "start, UTC"),
        "MJD-OBS": (conditions.mjd_start_utc, "start, UTC"),
        "GAIN": (chip.gain * exposures, "electrons per ADU, effective"),
        "RDNOISE": (chip.read_noise_e * exposures**0.5, "electrons, effective"),
        "SATURATE": (0.98 * chip.full_well_e / chip.gain, "ADU"),
        "NCOMBINE": exposures,
        "MAGZERO": (conditions.zero_point - 2.5 * np.log10(chip.gain), "AB magnitude of 1 ADU"),
        "SEEING": (conditions.seeing_arcsec, "arcsec FWHM at the centre"),
        "PIXSCALE": (config.optics.pixel_scale_arcsec, "arcsec"),
        "BUNIT": "adu",
    }
