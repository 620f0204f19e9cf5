"""Zero point, repeatability and astrometry of visits of one field, against simulated truth.

    python -m benchmarks.visits FOLDER [--visits 10] [--size 1024] [--seed 77] [--exact]

FOLDER gets a simulated night, once. Every visit goes from the raw frame through ISR, characterization and calibration
on the simulated catalogue, whose positions and magnitudes have errors. Stars that are isolated and constant in truth
are compared with it: the median magnitude offset of each visit, and the scatter of each star over the visits. With
--exact the catalogue has the true magnitudes, with the errors it claims: the offset is then the calibration's alone.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.spatial import cKDTree

from apstream.arrays.types import F64, BoolArray, IntArray
from apstream.cameras import load_camera
from apstream.model.calibs import IsrCalibs
from apstream.model.exposures import CalExp
from apstream.model.refcat import RefCat
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.pixels import calibrate_raw
from apstream.repo.formats.calibs import read_array
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.raw import read_raw
from apstream.simulate.config import NightConfig
from apstream.simulate.night import simulate_night

__all__ = ["calexps", "main"]

_MATCH_ARCSEC = 0.3
#: A star is isolated if nothing within so many arcsec is brighter than itself by less than so many magnitudes.
_LONELY_ARCSEC, _LONELY_MAG = 5.0, 5.0
_NANOJANSKY = 31.4  # AB magnitude of one nJy


@dataclass(frozen=True, eq=False)
class Truth:
    """Isolated constant stars: position in degrees (ICRS), magnitude."""

    ra: F64
    dec: F64
    mag: F64


def read_truth(folder: Path, band: str) -> Truth:
    """Read the stars that truth calls isolated and constant."""
    objects, changing = (_columns(folder / "truth" / f"{name}.parquet") for name in ("objects", "sources"))
    mag = objects[f"mag_{band}"]
    shrink = np.cos(np.deg2rad(objects["dec"].mean()))
    places = np.column_stack([objects["ra"] * shrink, objects["dec"]])
    gap, other = cKDTree(places).query(places, k=12)
    crowded = ((gap[:, 1:] < _LONELY_ARCSEC / 3600) & (mag[other[:, 1:]] < mag[:, None] + _LONELY_MAG)).any(axis=1)
    moving = cKDTree(np.column_stack([changing["ra"] * shrink, changing["dec"]])).query(places)[0] < 1 / 3600
    kept = objects["is_star"] & ~crowded & ~moving
    return Truth(objects["ra"][kept], objects["dec"][kept], mag[kept])


def _columns(path: Path) -> dict[str, Any]:
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def calexps(folder: Path, band: str = "r", *, exact: bool = False) -> Iterator[CalExp]:
    """Calibrate every raw frame of a simulated night, with true magnitudes if `exact`."""
    camera, catalogue = load_camera("simcam"), read_refcat(folder / "refcat.parquet", band=band)
    if exact:
        catalogue.stars["mag"] = true_magnitudes(folder, catalogue, band)
    masters = {name: read_array(next((folder / "calib").rglob(f"{name}*"))) for name in ("bias", "dark", "flat")}
    for path in sorted((folder / "raw").iterdir()):
        yield calibrate_raw(read_raw(path, camera), IsrCalibs(**masters), catalogue, PixelConfig())


def true_magnitudes(folder: Path, catalogue: RefCat, band: str) -> F64:
    """Return the true magnitude of every star of the catalogue: that of the brightest object within its errors."""
    objects = _columns(folder / "truth" / "objects.parquet")
    shrink = np.cos(np.deg2rad(objects["dec"].mean()))
    places = cKDTree(np.column_stack([objects["ra"] * shrink, objects["dec"]]))
    stars = catalogue.stars
    near = places.query_ball_point(np.column_stack([stars["ra"] * shrink, stars["dec"]]), _MATCH_ARCSEC / 3600)
    return np.array([np.min(objects[f"mag_{band}"][index]) if index else np.nan for index in near])


def compare(calexp: CalExp, truth: Truth, snr: float) -> tuple[IntArray, F64]:
    """Return which true stars above a S/N are found clean, and their magnitude less the true one."""
    stars = calexp.stars
    ra, dec = calexp.wcs.pixel_to_sky(stars["y"], stars["x"])
    shrink = np.cos(np.deg2rad(dec.mean()))
    gap, index = cKDTree(np.column_stack([ra * shrink, dec])).query(np.column_stack([truth.ra * shrink, truth.dec]))
    found = stars[index]
    clean: BoolArray = ~found["saturated"] & ~found["flagged"] & (gap < _MATCH_ARCSEC / 3600)
    used = np.flatnonzero(clean & (found["flux"] > snr * found["flux_err"]))
    return used, -2.5 * np.log10(found["flux"][used]) + _NANOJANSKY - truth.mag[used]


def main() -> None:
    """Simulate, calibrate, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--visits", type=int, default=10)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--snr", type=float, default=300.0, help="least S/N of the stars compared")
    parser.add_argument("--exact", action="store_true", help="a catalogue with true magnitudes")
    given = parser.parse_args()
    if not (given.folder / "raw").exists():
        simulate_night(
            given.folder,
            NightConfig(size=given.size, visits=given.visits, template_visits=0, transients=0, seed=given.seed),
        )
    truth, epochs = read_truth(given.folder, "r"), defaultdict[int, list[float]](list)
    print(f"{'visit':>8}{'stars':>7}{'offset mmag':>13}{'scatter mmag':>14}{'FWHM px':>9}{'catalogue rms mas':>19}")
    for calexp in calexps(given.folder, exact=given.exact):
        used, offset = compare(calexp, truth, given.snr)
        for star, value in zip(used, offset, strict=True):
            epochs[int(star)].append(float(value))
        rms = calexp.metrics["calibrate.astrometry_rms_arcsec"]
        print(f"{calexp.info.id.visit:>8}{len(used):>7}{1e3 * np.median(offset):>13.2f}{1e3 * offset.std():>14.2f}"
              f"{calexp.psf.fwhm():>9.2f}{1e3 * rms:>19.1f}")  # fmt: skip
    scatter = np.array([np.std(values, ddof=1) for values in epochs.values() if len(values) >= 0.8 * given.visits])
    print(f"repeatability of {len(scatter)} stars with S/N > {given.snr:g}: "
          f"median {1e3 * np.median(scatter):.2f}, rms {1e3 * np.sqrt(np.mean(scatter**2)):.2f} mmag")  # fmt: skip


if __name__ == "__main__":
    main()
