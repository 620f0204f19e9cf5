"""Simulate a season of raw exposures with calibrations, reference catalogue and truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import Angle
from astropy.time import Time

from apstream.arrays.types import F64, Records
from apstream.model.calibs import KIND_CARD
from apstream.model.wcs import SkyWcs
from apstream.simulate.config import NightConfig
from apstream.simulate.optics import Conditions, FocalPlane, draw_conditions, header_wcs, sky_level
from apstream.simulate.raw import Chip, amplifier_cards, draw_chip, expose, masters, read_out, satellite_trail
from apstream.simulate.scene import View, paint_objects, paint_sky
from apstream.simulate.sky import changing_positions, draw_changing, draw_objects, flux_of
from apstream.simulate.truth import (
    REFCAT_UNITS,
    TRUTH_DTYPE,
    TRUTH_UNITS,
    reference_catalogue,
    truth_rows,
)
from apstream.simulate.write import write_fits, write_table, write_yaml

__all__ = ["FIRST_SCIENCE_VISIT", "NightSummary", "Progress", "generator", "simulate_night"]

#: Called with (files done, files in all, what was written).
Progress = Callable[[int, int, str], None]
#: Science visits are numbered from here, template visits from 1.
FIRST_SCIENCE_VISIT = 1001
_SKY, _CHANGING, _CHIP, _VISIT, _PIXELS, _CATALOGUE, _MASTERS = range(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class NightSummary:
    """What was written."""

    out: Path
    raws: tuple[Path, ...]
    template_visits: tuple[int, ...]
    science_visits: tuple[int, ...]
    n_stars: int
    n_galaxies: int
    n_transients: int


@dataclass(frozen=True, slots=True, eq=False)
class _World:
    config: NightConfig
    plane: FocalPlane
    objects: Records
    changing: Records
    visits: tuple[Conditions, ...]
    chips: tuple[Chip, ...]

    def template_flux(self, band: str) -> F64:
        """Mean flux of the changing objects over the template visits of a band, nJy."""
        mjds = [v.mjd_mid_utc for v in self.visits if v.role == "template" and v.band == band]
        if not mjds:
            return np.zeros(len(self.changing))
        return np.asarray(np.mean([flux_of(self.changing, mjd) for mjd in mjds], axis=0))


def generator(seed: int, *path: int) -> np.random.Generator:
    """Return the random generator of one corner of the simulation, independent of all others."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, *path])))


def simulate_night(out: Path, config: NightConfig, progress: Progress | None = None) -> NightSummary:
    """Write ``raw/``, ``calib/``, ``truth/``, ``refcat.parquet`` and ``night.yaml`` under `out`.

    The same configuration gives the same bytes.

    Raises
    ------
    StorageUnavailable
        If a file cannot be written.
    """
    out = Path(out)
    world = _make_world(config)
    tell = _Teller(progress, config.detectors * (len(world.visits) + 3 + len(config.bands)) + 4)
    for name, array, cards in _calibrations(world):
        write_fits(out / "calib" / name, array, cards)
        tell(f"calib/{name}")
    raws, truth = _write_visits(out, world, tell)
    _write_tables(out, world, truth, tell)
    _write_plan(out, world, raws)
    tell("night.yaml")
    stars = int(world.objects["is_star"].sum())
    return NightSummary(
        out=out,
        raws=tuple(out / path for path in raws),
        template_visits=tuple(v.visit for v in world.visits if v.role == "template"),
        science_visits=tuple(v.visit for v in world.visits if v.role == "science"),
        n_stars=stars,
        n_galaxies=len(world.objects) - stars,
        n_transients=int(np.isin(world.changing["kind"], ("supernova", "flare", "faded")).sum()),
    )


class _Teller:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, what: str) -> None:
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total, what)


def _make_world(config: NightConfig) -> _World:
    plane = FocalPlane(config.size, config.detectors)
    scale = config.optics.pixel_scale_arcsec
    margin = 4 * config.optics.dither_px + 40
    half_y, half_x = plane.half_extent
    half = ((half_y + margin) * scale, (half_x + margin) * scale)
    visits = tuple(_plan(config))
    objects = draw_objects(generator(config.seed, _SKY), config.sky, half)
    science = np.array([v.mjd_mid_utc for v in visits if v.role == "science"])
    inner = (half_y * scale, half_x * scale)
    changing = draw_changing(
        generator(config.seed, _CHANGING),
        config.sky,
        objects,
        half_arcsec=inner,
        transients=config.transients,
        mjds=science,
    )
    chips = tuple(
        draw_chip(generator(config.seed, _CHIP, d), config.chip, number=d, size=config.size, scale_arcsec=scale)
        for d in range(config.detectors)
    )
    return _World(config, plane, objects, changing, visits, chips)


def _plan(config: NightConfig) -> Iterator[Conditions]:
    """Yield the visits: quiet ones 60 to 30 days before, science ones in pairs, a day or two apart."""
    rng = generator(config.seed, _VISIT)
    centre = (config.sky.ra_deg, config.sky.dec_deg)
    plans = []
    n_early = config.template_visits * len(config.bands)
    for i in range(n_early):
        mjd = config.start_mjd - 60 + 30 * i / max(1, n_early)
        plans.append((i + 1, "template", config.bands[i % len(config.bands)], mjd))
    for i in range(config.visits):
        pair, second = divmod(i, 2)
        mjd = config.start_mjd + 1.5 * pair - (pair % 2) * 0.5 + second * 33 / 1440
        plans.append((FIRST_SCIENCE_VISIT + i, "science", config.bands[pair % len(config.bands)], mjd))
    for visit, role, band, mjd in plans:
        yield draw_conditions(
            rng,
            config.optics,
            centre=centre,
            visit=visit,
            role=role,
            band=band,
            mjd_start_utc=round(mjd, 6),
            exposure_s=config.exposure_s,
        )


def _write_visits(out: Path, world: _World, tell: _Teller) -> tuple[list[str], Records]:
    raws, truth = [], [np.zeros(0, TRUTH_DTYPE)]
    for conditions in world.visits:
        for chip in world.chips:
            view = View.of(conditions, world.plane, chip.detector.number, world.config.optics)
            raw, rows = _expose_view(world, view, chip)
            path = f"raw/sim_v{conditions.visit:05d}_d{chip.detector.number:02d}.fits"
            write_fits(out / path, raw, _raw_cards(world, view, chip))
            raws.append(path)
            truth.append(rows)
            tell(path)
    return raws, np.concatenate(truth)


def _expose_view(world: _World, view: View, chip: Chip) -> tuple[np.ndarray[Any, Any], Records]:
    """Return the raw array and the truth of one detector in one visit."""
    config, conditions = world.config, view.conditions
    rng = generator(config.seed, _PIXELS, conditions.visit, view.detector)
    light = paint_sky(view)
    paint_objects(light, view, world.objects)
    flux = flux_of(world.changing, conditions.mjd_mid_utc)
    radec = changing_positions(world.changing, conditions.mjd_mid_utc)
    view.add_points(light, *radec, flux)
    variance = light + np.float32(config.chip.read_noise_e**2)
    rows = truth_rows(
        view,
        world.changing,
        flux_njy=flux,
        template_njy=world.template_flux(conditions.band),
        radec=radec,
        variance=variance,
    )
    del variance
    if rng.random() < config.chip.satellite_rate:
        satellite_trail(rng, light, conditions.seeing_arcsec / config.optics.pixel_scale_arcsec)
    return read_out(rng, expose(rng, light, chip, conditions.exposure_s), chip), rows


def _raw_cards(world: _World, view: View, chip: Chip) -> dict[str, Any]:
    conditions, detector = view.conditions, chip.detector
    ra = Angle(conditions.ra, "deg").to_string("hourangle", sep=":", precision=3, pad=True)
    dec = Angle(conditions.dec, "deg").to_string("deg", sep=":", precision=2, pad=True, alwayssign=True)
    start = Time(conditions.mjd_start_utc, format="mjd", scale="utc")
    cards: dict[str, Any] = {
        "INSTRUME": "simcam",
        "TELESCOP": "simulated",
        "VISIT": (conditions.visit, "exposure number"),
        "DETECTOR": detector.number,
        "DETNAME": detector.name,
        "OBSTYPE": "science",
        "OBJECT": f"sim-{conditions.role}",
        "FILTER": f"sim-{conditions.band}",
        "EXPTIME": (conditions.exposure_s, "s"),
        "TIMESYS": "UTC",
        "DATE-OBS": (start.isot, "start, UTC"),
        "MJD-OBS": (conditions.mjd_start_utc, "start, UTC"),
        "RA": (ra, "telescope pointing, h"),
        "DEC": (dec, "telescope pointing, deg"),
        "PIXSCALE": (detector.pixel_scale_arcsec, "arcsec"),
        "BUNIT": "adu",
        **amplifier_cards(detector),
    }
    wcs = header_wcs(conditions, world.plane, detector.number, world.config.optics)
    return cards | _shifted(wcs, detector.amplifiers[0].data.x0)


def _shifted(wcs: SkyWcs, x0: int) -> dict[str, Any]:
    """Return WCS cards that count raw pixels, `x0` columns of overscan first."""
    cards = dict(wcs.to_header())
    cards["CRPIX1"] += x0
    return cards


def _calibrations(world: _World) -> Iterator[tuple[str, np.ndarray[Any, Any], dict[str, Any]]]:
    for chip in world.chips:
        number = chip.detector.number
        rng = generator(world.config.seed, _MASTERS, number)
        bias, dark, flat = masters(rng, chip)
        yield f"bias_d{number:02d}.fits", bias, _calib_cards("bias", number) | {"BUNIT": "adu"}
        yield f"dark_d{number:02d}.fits", dark, _calib_cards("dark", number) | {"BUNIT": "adu/s"}
        for band in world.config.bands:
            cards = _calib_cards("flat", number) | {"FILTER": f"sim-{band}", "BUNIT": ""}
            yield f"flat_{band}_d{number:02d}.fits", flat, cards
        defects = chip.defects.astype(np.uint8)
        yield f"defects_d{number:02d}.fits", defects, _calib_cards("defects", number) | {"BUNIT": ""}


def _calib_cards(kind: str, detector: int) -> dict[str, Any]:
    card = (kind, "kind of calibration")
    return {"INSTRUME": "simcam", "DETECTOR": detector, "OBSTYPE": kind, KIND_CARD: card}


def _write_tables(out: Path, world: _World, truth: Records, tell: _Teller) -> None:
    catalogue = reference_catalogue(generator(world.config.seed, _CATALOGUE), world.objects)
    write_table(out / "refcat.parquet", catalogue, REFCAT_UNITS)
    tell("refcat.parquet")
    write_table(out / "truth" / "objects.parquet", world.objects)
    tell("truth/objects.parquet")
    write_table(out / "truth" / "sources.parquet", truth, TRUTH_UNITS)
    write_table(out / "truth" / "visits.parquet", list(_visit_rows(world)))
    tell("truth/visits.parquet")


def _visit_rows(world: _World) -> Iterator[dict[str, Any]]:
    for v in world.visits:
        for chip in world.chips:
            view = View.of(v, world.plane, chip.detector.number, world.config.optics)
            centre = (world.config.size - 1) / 2
            ra, dec = view.wcs.pixel_to_sky(centre, centre)
            yield {
                "visit": v.visit,
                "detector": chip.detector.number,
                "role": v.role,
                "band": v.band,
                "mjd_mid_utc": v.mjd_mid_utc,
                "exposure_s": v.exposure_s,
                "seeing_arcsec": v.seeing_arcsec,
                "zero_point_mag": v.zero_point,
                "sky_e": sky_level(v, world.config.optics.pixel_scale_arcsec),
                "ra": float(ra),
                "dec": float(dec),
                "true_wcs": view.wcs.to_header().tostring(sep="\n"),
            }


_PLAN_COMMENT = """A simulated season. Raw frames lie under raw/, masters under calib/, truth under truth/.
Template visits are earlier and hold no new transient; science visits follow. Times are MJD UTC."""


def _write_plan(out: Path, world: _World, raws: list[str]) -> None:
    paths = iter(raws)
    exposures = [
        {
            "visit": v.visit,
            "detector": chip.detector.number,
            "role": v.role,
            "band": v.band,
            "mjd_mid_utc": round(v.mjd_mid_utc, 6),
            "seeing_arcsec": round(v.seeing_arcsec, 3),
            "path": next(paths),
        }
        for v in world.visits
        for chip in world.chips
    ]
    content = {
        "camera": "simcam",
        "refcat": "refcat.parquet",
        "configuration": world.config.model_dump(mode="json"),
        "exposures": exposures,
    }
    write_yaml(out / "night.yaml", content, _PLAN_COMMENT)
