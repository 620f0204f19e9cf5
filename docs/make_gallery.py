"""Draw the pictures of docs/gallery.md: python docs/make_gallery.py simulated|huntsman|saao DATA OUT.

DATA is the folder of the real frames (any for `simulated`); OUT gets the repository and the products. The commands of
apstream do the work; this file calls them, reads what they wrote and draws `docs/images/gallery_NAME.png`.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits

from apstream.alerts.codec import records_of_ocf
from apstream.model.exposures import CalExp
from apstream.model.mask import MaskPlane
from apstream.repo.formats.fits import read_calexp, read_exposure
from apstream.repo.repository import Repository
from apstream.simulate.config import ChipConfig, NightConfig
from apstream.simulate.night import simulate_night

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap

IMAGES = Path(__file__).parent / "images"
PLANES = ("SAT", "CR", "STREAK", "BAD", "EDGE", "DETECTED")
COLOURS = ("#d62728", "#ff7f0e", "#2ca02c", "#7f7f7f", "#c7c7c7", "#9edae5")
VISIT = 1001
Panel = tuple[str, Callable[[Any], None]]


def simulated(data: Path, out: Path) -> list[Panel]:
    """One raw frame of a simulated night, with a satellite, on its way to DIA sources."""
    night, repo = out / "night", out / "repo"
    satellites = ChipConfig(satellite_rate=1.0)
    simulate_night(night, NightConfig(size=1024, visits=2, transients=60, seed=17, chip=satellites))
    run("repo", "create", repo, "--camera", "simcam")
    run("repo", "ingest", repo, night)
    run("coadd", repo, "--id", f"visit=1..{VISIT - 1}")
    for stage in ("isr", "characterize", "calibrate"):
        run(stage, repo, "--id", f"visit={VISIT}", "--rerun", "gallery")
    run("run", repo, "--id", f"visit={VISIT}", "--rerun", "whole", *ends(out))
    stages, whole = (Repository(repo / "rerun" / name) for name in ("gallery", "whole"))
    key = {"visit": VISIT, "detector": 0}
    raw = fits.getdata(Repository(repo).locate("raw", **key))
    truth = pq.read_table(night / "truth" / "sources.parquet").to_pylist()
    places = np.array([(row["y"], row["x"]) for row in truth if row["visit"] == VISIT]).T
    difference = whole.get("deepDiff_differenceExp", **key)
    return [
        *single_panels(raw, stages.get("postISRCCD", **key), stages.get("icExp", **key), stages.get("calexp", **key)),
        ("coadd of four such frames", picture(coadd(repo).image.image)),
        ("template: the coadd, matched", picture(difference.matched_template)),
        ("difference", picture(difference.image.image)),
        ("DIA sources (red) and true changes (+)", found(difference, whole.get("deepDiff_diaSrc", **key), places)),
        ("cutouts of one alert", cutouts(out / "alerts")),
    ]


def huntsman(data: Path, out: Path) -> list[Panel]:
    """A raw frame of a CMOS camera through the single commands, with the one bias, dark and flat that there are."""
    raw, camera = data / "science_0.fits", ("--camera", "generic")
    masters: list[Any] = []
    for kind in ("bias", "dark", "flat"):
        one = ("-c", f"{kind}.combine.min_frames=1")
        run("calib", kind, data / f"{kind}_0.fits", *camera, *masters, *one, "--out", out / f"{kind}.fits")
        masters += [f"--{kind}", out / f"{kind}.fits"]
    run("isr", raw, *camera, *masters, "--out", out / "isr.fits")
    run("characterize", out / "isr.fits", "--out", out)
    run("calibrate", out / "isr.fits", "--refcat", data / "refcat.csv", "--out", out)
    isr, characterized = read_exposure(out / "isr.fits"), read_exposure(out / "characterized.fits")
    return single_panels(fits.getdata(raw), isr, characterized, read_calexp(out / "calexp.fits"))


def saao(data: Path, out: Path) -> list[Panel]:
    """A frame of a crowded field against a coadd of five others."""
    repo, visit = out / "repo", 48
    run("repo", "create", repo, "--camera", "saao-ste3")
    run("repo", "ingest", repo, data)
    run("coadd", repo, "--id", "visit=20..35", "--reference", "28", "--best", "5", "-c", "warp_type=direct")
    run("run", repo, "--id", f"visit={visit}", "--rerun", "g", *ends(out))
    rerun, key = Repository(repo / "rerun" / "g"), {"visit": visit, "detector": 0}
    difference = rerun.get("deepDiff_differenceExp", **key)
    return [
        ("calibrated frame", picture(rerun.get("calexp", **key).image.image)),
        ("coadd of the five sharpest", picture(coadd(repo).image.image)),
        ("template, matched to the frame", picture(difference.matched_template)),
        ("difference", picture(difference.image.image)),
        ("DIA sources", found(difference, rerun.get("deepDiff_diaSrc", **key), None)),
    ]


def single_panels(raw: Any, isr: Any, characterized: Any, calexp: CalExp) -> list[Panel]:
    """Return the panels that every single frame has, from raw to calibrated."""
    return [
        ("raw frame", picture(raw)),
        ("instrument signature removed", picture(isr.image.image)),
        ("mask planes", masks(characterized.image.mask)),
        ("sky subtracted, cosmic rays repaired", picture(characterized.image.image)),
        ("sources; stars of the PSF in red", sources(calexp)),
        ("PSF at nine places", psf(calexp)),
        ("calibrated: nJy, north and east", calibrated(calexp)),
    ]


def picture(pixels: Any) -> Callable[[Any], None]:
    """Draw an image between its low and high percentiles."""

    def draw(axes: Any) -> None:
        values = np.asarray(pixels, float)
        low, high = np.nanpercentile(values, [2, 99])
        axes.imshow(values, origin="lower", cmap="gray", vmin=low, vmax=high, interpolation="antialiased")

    return draw


def masks(mask: Any) -> Callable[[Any], None]:
    """Draw the planes in colours, the rarer ones on top."""

    def draw(axes: Any) -> None:
        shown = np.zeros(mask.shape, int)
        for number, name in reversed(list(enumerate(PLANES, start=1))):
            shown[(mask & int(MaskPlane[name])) != 0] = number
        axes.imshow(shown, origin="lower", cmap=ListedColormap(["white", *COLOURS]), vmin=0, vmax=len(PLANES),
                    interpolation="nearest")  # fmt: skip
        for number, name in enumerate(PLANES):
            axes.text(0.02, 0.97 - 0.06 * number, name, color=COLOURS[number], transform=axes.transAxes, fontsize=7,
                      va="top", weight="bold")  # fmt: skip

    return draw


def sources(calexp: CalExp) -> Callable[[Any], None]:
    """Draw the sources over the image."""

    def draw(axes: Any) -> None:
        picture(calexp.image.image)(axes)
        stars = calexp.stars
        used = stars["psf_used"]
        axes.scatter(stars["x"][~used], stars["y"][~used], s=6, facecolors="none", edgecolors="#17becf", linewidths=0.3)
        axes.scatter(stars["x"][used], stars["y"][used], s=12, facecolors="none", edgecolors="red", linewidths=0.6)

    return draw


def psf(calexp: CalExp) -> Callable[[Any], None]:
    """Draw the PSF at nine places of the detector, in logarithmic grey."""

    def draw(axes: Any) -> None:
        box, places = calexp.box, (0.1, 0.5, 0.9)
        rows = [
            [calexp.psf.at(box.y0 + v * box.shape[0], box.x0 + u * box.shape[1]) for u in places] for v in places[::-1]
        ]
        tiles = np.block(rows)
        axes.imshow(np.log10(np.maximum(tiles, 1e-5 * tiles.max())), cmap="magma", interpolation="nearest")

    return draw


def calibrated(calexp: CalExp) -> Callable[[Any], None]:
    """Draw the image with the directions of the sky and the zero point."""

    def draw(axes: Any) -> None:
        picture(calexp.image.image)(axes)
        y, x = calexp.box.center
        ra, dec = (float(v) for v in calexp.wcs.pixel_to_sky(y, x))
        length = 0.15 * calexp.box.shape[0] * calexp.wcs.pixel_scale_arcsec / 3600
        for name, d_ra, d_dec in (("N", 0.0, length), ("E", length / np.cos(np.deg2rad(dec)), 0.0)):
            to_y, to_x = (float(v) for v in calexp.wcs.sky_to_pixel(ra + d_ra, dec + d_dec))
            axes.annotate(name, (x, y), (to_x, to_y), color="yellow", fontsize=8, ha="center",
                          arrowprops={"arrowstyle": "<-", "color": "yellow"})  # fmt: skip
        scatter = calexp.metrics.get("calibrate.astrometry_rms_arcsec", float("nan"))
        text = f"zero point {calexp.photo_calib.zero_point:.2f}, astrometry {1000 * scatter:.0f} mas"
        axes.text(0.02, 0.02, text, color="yellow", transform=axes.transAxes, fontsize=7)

    return draw


def found(difference: Any, rows: Any, truth: Any) -> Callable[[Any], None]:
    """Draw detections, and what truly changed, over the difference."""

    def draw(axes: Any) -> None:
        picture(difference.image.image)(axes)
        axes.scatter(rows["x"], rows["y"], s=18, facecolors="none", edgecolors="red", linewidths=0.6)
        if truth is not None:
            axes.scatter(truth[1], truth[0], s=6, marker="+", c="#17becf", linewidths=0.5)
        axes.set_xlim(-0.5, difference.box.shape[1] - 0.5)
        axes.set_ylim(-0.5, difference.box.shape[0] - 0.5)

    return draw


def coadd(repo: Path) -> CalExp:
    """Return the only coadd of a repository."""
    repository = Repository(repo)
    (entry,) = repository.find("deepCoadd")
    made: CalExp = repository.get_entry(entry)
    return made


def cutouts(folder: Path) -> Callable[[Any], None]:
    """Draw science, template and difference around the strongest clean source."""
    alerts = [alert for path in sorted(folder.rglob("*.avro")) for alert in records_of_ocf(path.read_bytes())]
    clean = [alert for alert in alerts if not alert["diaSource"]["isDipole"] and alert["diaSource"]["psfFlux"] > 0]
    best = max(clean, key=lambda alert: alert["diaSource"]["reliability"] * np.log(alert["diaSource"]["snr"]))

    def draw(axes: Any) -> None:
        shown = []
        for name in ("Science", "Template", "Difference"):
            with fits.open(io.BytesIO(best["cutout" + name])) as hdus:
                pixels = np.asarray(hdus[0].data, float)
            shown.append((pixels - np.nanmedian(pixels)) / np.nanpercentile(np.abs(pixels - np.nanmedian(pixels)), 99))
        axes.imshow(np.hstack(shown), origin="lower", cmap="gray", vmin=-0.3, vmax=1)

    return draw


def ends(out: Path) -> tuple[str, ...]:
    """Return where `apstream run` puts objects and alerts."""
    return ("--apdb", f"sqlite:///{out}/apdb.sqlite", "--alerts", f"{out}/alerts")


def run(*words: Any) -> None:
    """Run one command of apstream."""
    subprocess.run([sys.executable, "-m", "apstream", *map(str, words)], check=True)


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Put the panels on one page, four in a row."""
    rows = -(-len(panels) // 4)
    figure, axes = plt.subplots(rows, 4, figsize=(12, 3.3 * rows), layout="constrained")
    for place, axis in enumerate(np.ravel(axes)):
        axis.set_axis_off()
        if place < len(panels):
            title, paint = panels[place]
            paint(axis)
            axis.set_title(f"{place + 1}. {title}", fontsize=9)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=90, pil_kwargs={"optimize": True})
    plt.close(figure)


if __name__ == "__main__":
    name, data, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    draw({"simulated": simulated, "huntsman": huntsman, "saao": saao}[name](data, out), IMAGES / f"gallery_{name}.png")
