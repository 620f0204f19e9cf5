"""Positions of stars against the truth, over simulated images of many kinds, and what their errors are made of.

    python -m benchmarks.astrometry [--size 2048] [--seed 500] [--scamp]

Nine fields differ by seed, seeing, crowding, and distortion. Judged are the stars of S/N above 100 whose light is their
own: other light shifts even a perfect fit by less than a quarter of its error. Printed are, per axis: the rms residual
of their sky positions to the truth; the same over the noise floor, which is the Cramer-Rao bound of a centroid with
the true PSF and noise; the residual of the centroids alone, less what is linear in the place and so part of any WCS,
over the floor; and the error of the WCS at the stars that is not linear, beside what calibration expects of the whole,
which the errors and number of the catalogue's stars bound. SCAMP is given the same star list and the same catalogue.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from scipy.spatial import cKDTree

from apstream.arrays.types import F32, F64, Records
from apstream.model.exposures import CalExp
from apstream.model.wcs import SkyWcs
from apstream.simulate.config import NightConfig, OpticsConfig, SkyConfig
from apstream.simulate.optics import FocalPlane
from apstream.simulate.render import psf_stamp
from apstream.simulate.scene import View, paint_objects, paint_sky
from apstream.tasks.calibrate import CalibrateConfig, calibrate
from apstream.tasks.characterize import CharacterizeConfig, characterize
from benchmarks.calibrate import CATALOGUE_MAS, READ_NOISE, Scene, make_scene
from benchmarks.sextractor import missing_programs, run_scamp, write_references

__all__ = ["FIELDS", "Field", "floors", "main"]

_MIN_SNR = 100.0
_OWN = 0.25  # shift by other light, in units of the floor
_HALF = 25  # of the stamps on which floors are computed, pixels


class Field(NamedTuple):
    """What a simulated image is like."""

    name: str
    seeing: tuple[float, float] = (0.7, 1.3)
    density: float = 62.0
    distortion: float = 1e-3


FIELDS = (
    Field("plain"),
    Field("plain"),
    Field("plain"),
    Field("sharp", seeing=(0.55, 0.6)),
    Field("blurred", seeing=(1.5, 1.7)),
    Field("crowded", density=250.0),
    Field("sparse", density=20.0),
    Field("undistorted", distortion=0.0),
    Field("distorted", distortion=5e-3),
)


@dataclass(frozen=True, eq=False)
class Judged:
    """Bright stars whose light is their own: rows of the star list and of the truth.

    Parameters
    ----------
    floor : ndarray, shape (n, 2)
        Standard error by the Cramer-Rao bound, pixels, y and x.
    """

    stars: Records
    true: Records
    floor: F64


def config_of(field: Field, size: int) -> NightConfig:
    """Return what the simulator is told."""
    return NightConfig(
        size=size,
        sky=SkyConfig(stars_per_arcmin2=field.density),
        optics=OpticsConfig(seeing_arcsec=field.seeing, distortion=field.distortion),
    )


def judged_stars(scene: Scene, view: View, calexp: CalExp) -> Judged:
    """Return the stars that are compared with the truth."""
    stars = calexp.stars
    with np.errstate(invalid="ignore"):
        stars = stars[stars["is_star"] & ~stars["saturated"] & ~stars["flagged"]
                      & (stars["flux"] > _MIN_SNR * stars["flux_err"])]  # fmt: skip
    tree = cKDTree(np.column_stack([scene.stars["y"], scene.stars["x"]]))
    gap, index = tree.query(np.column_stack([stars["y"], stars["x"]]))
    keep = (gap < 1) & scene.stars["star"][index]
    stars, true = stars[keep], scene.stars[index[keep]]
    floor, shift = floors(scene, view, true)
    own = (np.abs(shift) < _OWN * floor).all(axis=1)
    return Judged(stars[own], true[own], floor[own])


def floors(scene: Scene, view: View, true: Records) -> tuple[F64, F64]:
    """Return Cramer-Rao bounds of y and x with the true PSF, and the shifts by light that is not the star's."""
    sky = paint_sky(view)
    light = sky.copy()
    paint_objects(light, view, scene.objects)
    shapes = view.psf(true["y"], true["x"])
    rows = [_floor((light, sky), row, shape) for row, shape in zip(true, np.column_stack(shapes), strict=True)]
    return np.array([row[0] for row in rows]).reshape(-1, 2), np.array([row[1] for row in rows]).reshape(-1, 2)


def _floor(images: tuple[F32, F32], star: np.void, shape: F64) -> tuple[F64, F64]:
    row, col = round(star["y"]), round(star["x"])
    dy, dx = star["y"] - row, star["x"] - col
    step = 0.05
    psf = psf_stamp(*shape, dy, dx, _HALF)
    slope_y = (psf_stamp(*shape, dy + step, dx, _HALF) - psf_stamp(*shape, dy - step, dx, _HALF)) / (2 * step)
    slope_x = (psf_stamp(*shape, dy, dx + step, _HALF) - psf_stamp(*shape, dy, dx - step, _HALF)) / (2 * step)
    light, sky = (_cut(image, row, col) for image in images)
    known = np.isfinite(light)
    design = np.stack([psf[known], star["flux"] * slope_y[known], star["flux"] * slope_x[known]])
    variance = sky[known] + star["flux"] * psf[known] + READ_NOISE**2
    inverse = np.linalg.inv(design / variance @ design.T)
    other = light[known] - sky[known] - star["flux"] * psf[known]
    other -= np.median(other)  # the sky has it
    return np.sqrt(np.diag(inverse)[1:]), (inverse @ (design / variance @ other))[1:]


def _cut(image: F32, row: int, col: int) -> F64:
    """Return a stamp, NaN off the image."""
    stamp = np.full((2 * _HALF + 1, 2 * _HALF + 1), np.nan)
    y0, x0 = max(row - _HALF, 0), max(col - _HALF, 0)
    part = image[y0 : row + _HALF + 1, x0 : col + _HALF + 1]
    top, left = y0 - row + _HALF, x0 - col + _HALF
    stamp[top : top + part.shape[0], left : left + part.shape[1]] = part
    return stamp


def _rms(values: F64) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _not_linear(values: F64, true: Records) -> F64:
    """Return values (n, k) less what is linear in the place."""
    terms = np.column_stack([np.ones(len(true)), true["y"], true["x"]])
    return values - terms @ np.linalg.lstsq(terms, values, rcond=None)[0]


def sky_residual(wcs: SkyWcs, y: F64, x: F64, true: Records) -> F64:
    """Return positions by a WCS less the true ones, mas east and north, shape (n, 2)."""
    ra, dec = wcs.pixel_to_sky(y, x)
    return np.column_stack([(ra - true["ra"]) * np.cos(np.deg2rad(dec)), dec - true["dec"]]) * 3.6e6


def scamp_wcs(scene: Scene, stars: Records, folder: Path) -> SkyWcs:
    """Return SCAMP's solution for a star list of ours."""
    names = ("y_err", "x_err", "flux", "fwhm", "ellipticity")
    rows = stars[np.all([np.isfinite(stars[name]) for name in names], axis=0) & (stars["flux"] > 0)]
    columns = {
        "XWIN_IMAGE": rows["x"] + 1, "YWIN_IMAGE": rows["y"] + 1, "ERRAWIN_IMAGE": rows["x_err"],
        "ERRBWIN_IMAGE": rows["y_err"], "ERRTHETAWIN_IMAGE": np.zeros(len(rows)), "FLUX_AUTO": rows["flux"],
        "FLUXERR_AUTO": rows["flux_err"], "FLUX_RADIUS": rows["fwhm"] / 2, "ELONGATION": 1 + rows["ellipticity"],
        "MAG_AUTO": -2.5 * np.log10(rows["flux"]), "MAGERR_AUTO": 1.0857 * rows["flux_err"] / rows["flux"],
    }  # fmt: skip
    flags = np.where(rows["saturated"], 4, np.where(rows["blended"], 2, 0)).astype(np.int16)
    table = [fits.Column(name, "1D" if name[0] in "XY" else "1E", array=values) for name, values in columns.items()]
    objects = fits.BinTableHDU.from_columns([*table, fits.Column("FLAGS", "1I", array=flags)], name="LDAC_OBJECTS")
    card = fits.PrimaryHDU(scene.exposure.image.image, scene.header.to_header()).header.tostring(padding=False)
    column = fits.Column("Field Header Card", f"{len(card)}A", array=np.array([card]))
    head = fits.BinTableHDU.from_columns([column], name="LDAC_IMHEAD")
    path = folder / "image.cat"
    fits.HDUList([fits.PrimaryHDU(), head, objects]).writeto(path)
    written = path.read_bytes()
    start = written.index(card[:80].encode(), 2880)
    cell = written[start : start + len(card)].replace(b"\0", b" ")  # astropy ends strings by zeros, SCAMP by spaces
    path.write_bytes(written[:start] + cell + written[start + len(card) :])
    (folder / "none.conf").write_text("")
    write_references(scene.catalogue.stars, CATALOGUE_MAS, folder / "ref.cat")
    return run_scamp(folder)[0]


def judge(field: Field, size: int, seed: int, *, scamp: bool) -> tuple[str, F64]:
    """Simulate, calibrate and compare one field; return a row and (residual, floor, SCAMP's residual), mas."""
    config = config_of(field, size)
    scene = make_scene(size, seed, "r", config)
    view = View.of(scene.conditions, FocalPlane(size, 1), 0, config.optics)
    calexp = calibrate(characterize(scene.exposure, CharacterizeConfig()), scene.catalogue, CalibrateConfig())
    found = judged_stars(scene, view, calexp)
    scale = config.optics.pixel_scale_arcsec * 1e3
    centroid = np.column_stack([found.stars[axis] - found.true[axis] for axis in "yx"])
    total = _rms(sky_residual(calexp.wcs, found.stars["y"], found.stars["x"], found.true))
    wcs = _rms(_not_linear(sky_residual(calexp.wcs, found.true["y"], found.true["x"], found.true), found.true))
    floor, metrics, peer = _rms(found.floor) * scale, calexp.metrics, np.nan
    if scamp:
        with tempfile.TemporaryDirectory() as folder:
            solution = scamp_wcs(scene, calexp.stars, Path(folder))
        peer = _rms(sky_residual(solution, found.stars["y"], found.stars["x"], found.true))
    row = (
        f"{field.name:<12}{seed:>5}{scene.fwhm:>6.1f}{len(found.stars):>6}{metrics['calibrate.n_astrometry']:>7.0f}"
        f"{total:>8.2f}{total / floor:>8.3f}"
        f"{_rms(_not_linear(centroid, found.true)) * scale / floor:>10.3f}{wcs:>7.2f}"
        f"{1e3 * metrics['calibrate.wcs_error_arcsec']:>10.2f}{metrics['calibrate.wcs_degree']:>8.0f}{peer:>8.2f}"
    )
    return row, np.array([total, floor, peer])


def main() -> None:
    """Print a row for every field."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=500, help="of the first field; the others follow")
    parser.add_argument("--scamp", action="store_true", help="compare with SCAMP on the same lists")
    options = parser.parse_args()
    scamp = options.scamp and "SCAMP" not in missing_programs()
    print(f"catalogue {CATALOGUE_MAS:g} mas per axis; residuals in mas per axis, floor: Cramer-Rao bound")
    print("field        seed  FWHM stars fitted   total  /floor  centroid    WCS  expected  degree   SCAMP")
    rows = []
    for k, field in enumerate(FIELDS):
        row, numbers = judge(field, options.size, options.seed + k, scamp=scamp)
        print(row, flush=True)
        rows.append(numbers)
    ratio = np.array(rows)[:, 0] / np.array(rows)[:, 1]
    print(f"total/floor: median {np.median(ratio):.3f}, largest {ratio.max():.3f}; {(ratio <= 1.15).sum()} within 1.15")


if __name__ == "__main__":
    main()
