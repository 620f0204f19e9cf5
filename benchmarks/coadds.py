"""Difference-image quality with templates of psf-matched and of direct warps, against simulated truth.

    python -m benchmarks.coadds WORK --case A

simulates the nights of a case of docs/coadds.md (A, B or C) in the folder WORK; without a case, WORK is a night that
``apstream simulate WORK --visits 8 --template-visits 5 --transients 300`` wrote. The template
visits become one coadd of each type, every science visit is subtracted from each, and completeness, spurious
detections and flux pulls are printed for the visits that are sharper than the psf-matched template and for
those that are wider.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from scipy.spatial import cKDTree

from apstream.cameras import load_camera
from apstream.model.calibs import IsrCalibs
from apstream.model.exposures import CalExp
from apstream.model.products import KnownObjects
from apstream.pipeline.coadd_inputs import CoaddInput, covering_skymap
from apstream.pipeline.coadds import CoaddConfig, coadd_patch, common_psf, sharp_enough
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.pixels import PixelInputs, PixelResult, calibrate_raw, find_dia_sources
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.raw import read_raw
from apstream.simulate.config import NightConfig, OpticsConfig
from apstream.simulate.night import simulate_night
from apstream.tasks.template import TemplateInput
from benchmarks.quality import MATCH_PIXELS, Quality, explained, noise_at, usable

#: Fluxes are compared where no other true source is as near as this.
_ALONE_PIXELS = 15.0

__all__ = ["Night", "coadd_of", "main", "quality_of"]

#: For each case: science visits, template visits, how many of these are used, seed, seeing of science and of templates.
_CASES = {
    "A": (8, 5, 5, 1, (0.7, 1.3), (0.7, 1.3)),
    "B": (6, 8, 3, 2, (0.7, 1.3), (0.7, 1.3)),
    "C": (4, 5, 5, 3, (1.15, 1.25), (0.72, 0.8)),
}


@dataclass(frozen=True)
class Night:
    """A simulated night of one detector."""

    folder: Path
    band: str = "r"

    def visits(self, role: str) -> list[int]:
        """Return the visits of a role, ``template`` or ``science``."""
        rows = pq.read_table(self.folder / "truth" / "visits.parquet").to_pylist()
        return [row["visit"] for row in rows if row["role"] == role]

    def truth(self, visit: int) -> pa.Table:
        """Return the true sources of a visit."""
        rows = pq.read_table(self.folder / "truth" / "sources.parquet")
        return rows.filter(pa.compute.equal(rows["visit"], visit))

    def inputs(self, template: CalExp | None) -> PixelInputs:
        """Return what a raw frame needs."""
        load = lambda name: fits.getdata(self.folder / "calib" / f"{name}_d00.fits")  # noqa: E731
        calibs = IsrCalibs(
            bias=load("bias").astype("f4"),
            dark=load("dark").astype("f4"),
            flat=load(f"flat_{self.band}").astype("f4"),
            defects=load("defects") != 0,
        )
        templates = [TemplateInput.from_image(template, "coadd")] if template else []
        reference = read_refcat(self.folder / "refcat.parquet", band=self.band)
        return PixelInputs(calibs=calibs, reference=reference, templates=templates, known=KnownObjects.none())

    def raw(self, visit: int):  # type: ignore[no-untyped-def]
        """Read the raw frame of a visit."""
        return read_raw(self.folder / "raw" / f"sim_v{visit:05d}_d00.fits", load_camera("simcam"), detector=0)

    def calexp(self, visit: int) -> CalExp:
        """Calibrate a visit."""
        inputs = self.inputs(None)
        return calibrate_raw(self.raw(visit), inputs.calibs, inputs.reference, PixelConfig())

    def result(self, visit: int, template: CalExp) -> PixelResult:
        """Subtract a template from a visit."""
        return find_dia_sources(self.raw(visit), self.inputs(template), PixelConfig())


def simulate_case(work: Path, case: str) -> tuple[Night, Night, int]:
    """Simulate a case; return the night of the science visits, that of the templates, and how many of these to use."""
    visits, templates, best, seed, science, earlier = _CASES[case]
    nights = []
    for name, seeing in (("science", science), ("templates", earlier)):
        folder = work / f"{case}-{name}"
        if not folder.exists():
            optics = OpticsConfig(seeing_arcsec=seeing)
            counts = {"visits": visits, "template_visits": templates, "transients": 300}
            simulate_night(folder, NightConfig(**counts, seed=seed, optics=optics))
        nights.append(Night(folder))
    return nights[0], nights[1], best


def coadd_of(calexps: Sequence[CalExp], config: CoaddConfig) -> CalExp:
    """Return one patch that holds all exposures."""
    inputs = [CoaddInput.of(calexp) for calexp in calexps]
    tract = covering_skymap(inputs, patch_size=8192, border=0).tract(0)
    kept = sharp_enough(inputs, config)
    return coadd_patch(kept, tract, 0, common_psf(kept, tract.pixel_scale_arcsec, config), config).calexp


def quality_of(result: PixelResult, truth: pa.Table) -> Quality:
    """Compare the DIA sources of a visit with the truth."""
    difference, sources = result.pair.difference, result.pair.dia_sources
    y, x, flux = (truth[name].to_numpy() for name in ("y", "x", "flux_njy"))
    transient = (np.asarray(truth["kind"].to_pylist()) != "variable") & (flux > 0)
    chosen = transient & usable(difference, y, x)
    noise = np.array([noise_at(difference, a, b) for a, b in zip(y, x, strict=True)])
    places = np.column_stack([sources["y"], sources["x"]])
    distance, nearest = cKDTree(places).query(np.column_stack([y, x]))
    matched = distance < MATCH_PIXELS
    shown = np.abs(flux) > 0.5 * noise
    spots = np.column_stack([y, x])
    crowd = cKDTree(spots[shown]).query_ball_point(spots, _ALONE_PIXELS, return_length=True)
    pulled = chosen & matched & (flux / noise > 5) & (flux / noise < 50) & (crowd == 1)
    rows = sources[nearest[pulled]]
    lonely = cKDTree(np.column_stack([y, x])[shown]).query(places)[0] >= MATCH_PIXELS
    flags = {name: sources[name] for name in sources.dtype.names}
    return Quality(
        snr=(flux / noise)[chosen],
        recovered=matched[chosen],
        pulls=(rows["psfFlux"] - flux[pulled]) / rows["psfFluxErr"],
        spurious=int(lonely.sum()),
        spurious_plain=int((lonely & ~explained(flags)).sum()),
        detections=len(places),
    )


def _joined(parts: Sequence[Quality]) -> Quality:
    arrays = {name: np.concatenate([getattr(q, name) for q in parts]) for name in ("snr", "recovered", "pulls")}
    counts = {name: sum(getattr(q, name) for q in parts) for name in ("spurious", "spurious_plain", "detections")}
    return Quality(**arrays, **counts)


def main() -> None:
    """Coadd, subtract, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("night", type=Path)
    parser.add_argument("--types", nargs="+", default=["psf_matched", "direct"])
    parser.add_argument("--best", type=int, default=9999, help="template visits to use, the sharpest")
    parser.add_argument("--templates", type=Path, help="night whose template visits are taken; same sky, other seeing")
    parser.add_argument("--case", choices=sorted(_CASES), help="simulate a case of docs/coadds.md in the folder")
    options = parser.parse_args()
    night, other, best = Night(options.night), Night(options.templates or options.night), options.best
    if options.case:
        night, other, best = simulate_case(options.night, options.case)
    calexps = [other.calexp(visit) for visit in other.visits("template")]
    calexps = sorted(calexps, key=lambda calexp: calexp.psf.fwhm())[:best]
    print("template visits, FWHM px:", " ".join(f"{c.psf.fwhm():.2f}" for c in calexps))
    coadds: dict[str, CalExp] = {}
    for kind in options.types:
        start = time.perf_counter()
        coadds[kind] = coadd_of(calexps, CoaddConfig(warp_type=kind))
        metrics = {k: round(v, 4) for k, v in coadds[kind].metrics.items() if k.startswith("coadd.")}
        print(f"{kind}: FWHM {coadds[kind].psf.fwhm():.2f} px, {time.perf_counter() - start:.1f} s, {metrics}")
    limit = max(c.psf.fwhm() for c in coadds.values())
    for kind, template in coadds.items():
        found: dict[str, list[Quality]] = {"sharper": [], "wider": []}
        for visit in night.visits("science"):
            result = night.result(visit, template)
            quality = quality_of(result, night.truth(visit))
            fwhm = result.calexp.psf.fwhm()
            found["sharper" if fwhm < limit else "wider"].append(quality)
            scale = result.pair.difference.metrics["subtract.variance_scale"]
            print(f"  {kind} {visit}: FWHM {fwhm:.2f}, convolved {result.pair.difference.convolved}, "
                  f"variance scale {scale:.3f}, {quality.spurious} spurious, {quality.detections} detections, "
                  f"median noise {np.median(quality_noise(result)):.1f} nJy")  # fmt: skip
        if all(found.values()):
            print(f"{kind}, all visits\n{_joined([*found['sharper'], *found['wider']]).table()}")
        for name, parts in found.items():
            if parts:
                print(f"{kind}, {len(parts)} visits {name} than the matched template\n{_joined(parts).table()}")


def quality_noise(result: PixelResult) -> np.ndarray:
    """Return the noise of a point source's flux at some positions."""
    difference = result.pair.difference
    ys, xs = (np.linspace(40, n - 40, 8) for n in difference.image.image.shape)
    return np.array([noise_at(difference, y, x) for y in ys for x in xs])


if __name__ == "__main__":
    main()
