"""The SAAO bulge field, from 75 raw frames to the light curve of a variable: python docs/saao_bulge.py DATA OUT.

DATA is the folder with the frames; OUT gets the repository, the database, the alerts, `lightcurve.csv` and
the two pictures of docs/saao_bulge.md. Only the commands of apstream do the work; this file calls them,
reads the tables and draws.
"""

from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from apstream.alerts.codec import records_of_ocf
from apstream.arrays.types import F64
from apstream.repo.repository import Repository

#: The frame whose pixels name the variable, and where it lies there, 0-based.
REFERENCE, VARIABLE_Y, VARIABLE_X = 28, 249.0, 256.5
_CURVE = """
    SELECT visit, midpointMjdTai, psfFlux, psfFluxErr, 'forced' FROM DiaForcedSource WHERE diaObjectId = :id
    UNION ALL
    SELECT visit, midpointMjdTai, psfFlux, psfFluxErr, 'detected' FROM DiaSource WHERE diaObjectId = :id
    AND visit NOT IN (SELECT visit FROM DiaForcedSource WHERE diaObjectId = :id) ORDER BY midpointMjdTai"""


@dataclass(frozen=True, eq=False)
class LightCurve:
    """Flux differences of one object, in time order; where nothing was forced, the detection serves."""

    object_id: int
    visit: Any
    mjd: F64
    flux: F64
    error: F64

    def chi2_of_constant(self) -> float:
        """Return the reduced chi-square about the weighted mean."""
        weight = self.error**-2
        mean = np.sum(weight * self.flux) / np.sum(weight)
        return float(np.sum(weight * (self.flux - mean) ** 2) / (len(self.flux) - 1))

    def roughness(self) -> float:
        """Return von Neumann's ratio: squared steps over twice the variance; 1 for noise, 0 for a smooth curve."""
        return float(np.mean(np.diff(self.flux) ** 2) / (2 * np.var(self.flux)))


def process(data: Path, out: Path) -> None:
    """Run the five commands of docs/saao_bulge.md."""
    repo, url = str(out / "repo"), f"sqlite:///{out}/apdb.sqlite"
    _apstream("repo", "create", repo, "--camera", "saao-ste3")
    _apstream("repo", "ingest", repo, str(data))
    best = ("--reference", str(REFERENCE), "--best", "5", "-c", "warp_type=direct")
    _apstream("coadd", repo, "--id", "visit=1..30", *best, "-j", "2")
    _apstream("apdb", "create", url)
    _apstream("run", repo, "--apdb", url, "--alerts", str(out / "alerts"))


def _apstream(*words: str) -> None:
    print("apstream", *words, flush=True)
    subprocess.run([sys.executable, "-m", "apstream", *words], check=True)


def variable_position(out: Path) -> tuple[float, float]:
    """Return right ascension and declination of the variable's pixel in the frame that names it."""
    calexp = Repository(out / "repo").get("calexp", visit=REFERENCE, detector=0)
    ra, dec = calexp.wcs.pixel_to_sky(np.array([VARIABLE_Y]), np.array([VARIABLE_X]))
    return float(ra[0]), float(dec[0])


def objects_near(out: Path, ra: float, dec: float, arcsec: float) -> list[int]:
    """Return the ids of the DIAObjects within a radius, nearest first."""
    rows = _query(out, "SELECT diaObjectId, ra, dec FROM DiaObject WHERE validityEndMjdTai IS NULL")
    apart = {row[0]: 3600 * np.hypot((row[1] - ra) * np.cos(np.deg2rad(dec)), row[2] - dec) for row in rows}
    return sorted((id for id, distance in apart.items() if distance < arcsec), key=apart.__getitem__)


def light_curve(out: Path, object_id: int) -> LightCurve:
    """Read the light curve of one object from the database."""
    rows = _query(out, _CURVE, id=object_id)
    visit, mjd, flux, error = (np.array([row[i] for row in rows]) for i in range(4))
    return LightCurve(object_id, visit, mjd, flux, error)


def outcomes(out: Path) -> dict[int, tuple[str, int]]:
    """Return outcome and number of DIA sources of every visit."""
    return {visit: (outcome, n) for visit, outcome, n in _query(out, "SELECT visit, outcome, nSources FROM Ledger")}


def _query(out: Path, text: str, **values: object) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(out / "apdb.sqlite")
    try:
        return connection.execute(text, values).fetchall()
    finally:
        connection.close()


def draw_light_curve(curve: LightCurve, path: Path) -> None:
    """Plot a light curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.errorbar(curve.mjd - 56400, curve.flux / 1e3, curve.error / 1e3, fmt="o", ms=3, lw=0.8, color="#20507a")
    axes.axhline(0, color="0.6", lw=0.8)
    axes.set(xlabel="MJD (TAI) - 56400", ylabel="flux - template flux, 1000 e- of frame 0028")
    axes.set_title(f"DIAObject {curve.object_id}: {len(curve.flux)} epochs, SAAO 1.0 m, I band", fontsize=10)
    figure.savefig(path, dpi=100)


def draw_triplet(out: Path, object_id: int, path: Path) -> str:
    """Draw science, template and difference of the object's most significant alert; returns its title."""
    from matplotlib.figure import Figure

    alert = max(_alerts(out, object_id), key=lambda record: abs(record["diaSource"]["snr"]))
    source = alert["diaSource"]
    sense = "fainter" if source["isNegative"] else "brighter"
    title = f"visit {source['visit']}, {sense} than the template at S/N {abs(source['snr']):.0f}"
    figure = Figure(figsize=(7.5, 2.9), layout="constrained")
    for number, name in enumerate(("Science", "Template", "Difference"), start=1):
        axes = figure.add_subplot(1, 3, number)
        pixels = _pixels(alert[f"cutout{name}"])
        if name != "Difference":  # one bright neighbour must not hide the faint stars
            pixels = np.arcsinh(pixels / np.nanpercentile(np.abs(pixels), 60))
        low, high = np.nanpercentile(pixels, [1, 99.5])
        if name == "Difference":
            low, high = -max(abs(low), high), max(abs(low), high)
        axes.imshow(pixels, origin="lower", cmap="gray", vmin=low, vmax=high)
        axes.set(title=name, xticks=[], yticks=[])
    figure.suptitle(f"DIAObject {object_id}, {title}", fontsize=10)
    figure.savefig(path, dpi=100)
    return title


def _alerts(out: Path, object_id: int) -> list[dict[str, Any]]:
    files = sorted((out / "alerts").glob("*.avro"))
    records = (record for file in files for record in records_of_ocf(file.read_bytes()))
    return [record for record in records if record["diaSource"]["diaObjectId"] == object_id]


def _pixels(cutout: bytes) -> F64:
    with fits.open(io.BytesIO(cutout)) as hdus:
        return np.asarray(hdus[0].data, float)


def main(data: Path, out: Path) -> None:
    """Do everything, and print the numbers of docs/saao_bulge.md."""
    out.mkdir(parents=True, exist_ok=True)
    process(data, out)
    ended = outcomes(out)
    good = [n for outcome, n in ended.values() if outcome == "processed"]
    print(f"{len(good)} of {len(ended)} frames processed, {sum(good)} DIA sources, {np.median(good):.0f} per frame")
    ra, dec = variable_position(out)
    found = objects_near(out, ra, dec, 1.0)
    print(f"DIAObjects within 1 arcsec of the variable at {ra:.5f} {dec:.5f}: {found}")
    curve = light_curve(out, found[0])
    table = np.column_stack([curve.visit, curve.mjd, curve.flux, curve.error])
    head = "visit,midpointMjdTai,psfFlux,psfFluxErr"
    np.savetxt(out / "lightcurve.csv", table, "%d,%.6f,%.1f,%.1f", header=head, comments="")
    print(f"{len(curve.flux)} epochs, chi2 of a constant {curve.chi2_of_constant():.0f}, ", end="")
    print(f"roughness {curve.roughness():.3f}, from {curve.flux.min():.0f} to {curve.flux.max():.0f}")
    draw_light_curve(curve, out / "saao_lightcurve.png")
    print("triplet:", draw_triplet(out, curve.object_id, out / "saao_triplet.png"))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
