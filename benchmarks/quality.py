"""Difference-image quality against simulated truth.

    python -m benchmarks.quality --size 4096 --transients 400

simulates a pair, subtracts it, and prints completeness by S/N, spurious detections by kind, and flux pulls.
The S/N of a true transient is its true flux over the noise of the difference image at its place.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.spatial import cKDTree

from apstream.model.exposures import DifferenceImage
from apstream.model.mask import planes
from apstream.repo.formats.fits import read_difference

MATCH_PIXELS = 4.0  # 1 arcsec at the simulator's 0.25 arcsec
_UNUSABLE = planes("BAD", "NO_DATA", "SAT", "SAT_TEMPLATE", "EDGE", "CR")


@dataclass(frozen=True)
class Quality:
    """What one subtraction recovered of the truth."""

    snr: np.ndarray  # of the true transients outside masks
    recovered: np.ndarray
    pulls: np.ndarray  # of recovered transients with S/N above 5
    spurious: int
    spurious_plain: int  # neither dipole, saturated nor bright-star residual
    detections: int

    def count(self, low: float, high: float) -> int:
        """Number of transients with true S/N in [low, high)."""
        return int(((self.snr >= low) & (self.snr < high)).sum())

    def completeness(self, low: float, high: float) -> float:
        """Recovered fraction of the transients with true S/N in [low, high)."""
        chosen = (self.snr >= low) & (self.snr < high)
        return float(self.recovered[chosen].mean()) if chosen.any() else float("nan")

    @property
    def pull_median(self) -> float:
        """Median of (measured - true) / error."""
        return float(np.median(self.pulls))

    @property
    def pull_width(self) -> float:
        """Half the width of the central 68 % of the pulls."""
        low, high = np.percentile(self.pulls, [15.87, 84.13])
        return float(high - low) / 2

    def table(self) -> str:
        """A few lines to read."""
        bins = [(3, 5), (5, 6), (6, 8), (8, 10), (10, 20), (20, 1e9)]
        lines = [
            f"  S/N {low:>3}-{'' if high > 1e8 else high:<3} {self.count(low, high):>4} true"
            f"  completeness {self.completeness(low, high):.3f}"
            for low, high in bins
        ]
        lines.append(f"  S/N > 10 completeness {self.completeness(10, np.inf):.3f}")
        lines.append(f"  S/N 5.25-5.75 completeness {self.completeness(5.25, 5.75):.3f}")
        lines.append(f"  {self.detections} detections, {self.spurious} spurious, {self.spurious_plain} not flagged")
        lines.append(f"  pulls: median {self.pull_median:+.3f}, width {self.pull_width:.3f} ({len(self.pulls)})")
        return "\n".join(lines)


def evaluate(folder: Path, truth: Path) -> Quality:
    """Compare ``folder/dia_sources.parquet`` with a truth table of transients and variables."""
    difference = read_difference(folder / "difference.fits")
    found, true = pq.read_table(folder / "dia_sources.parquet"), pq.read_table(truth)
    sources = {name: found[name].to_numpy(zero_copy_only=False) for name in found.column_names}
    y, x, flux = (true[name].to_numpy() for name in ("y", "x", "flux_njy"))
    transient = np.asarray(true["kind"].to_pylist()) != "variable"
    clear = usable(difference, y, x)
    noise = np.array([noise_at(difference, a, b) for a, b in zip(y, x, strict=True)])
    places = np.column_stack([sources["y"], sources["x"]])
    distance, nearest = cKDTree(places).query(np.column_stack([y, x]))
    matched = distance < MATCH_PIXELS
    chosen = transient & clear & (flux > 0)
    pulled = chosen & matched & (flux / noise > 5)
    measured = sources["psfFlux"][nearest[pulled]], sources["psfFluxErr"][nearest[pulled]]
    lonely = cKDTree(np.column_stack([y, x])).query(places)[0] >= MATCH_PIXELS
    return Quality(
        snr=(flux / noise)[chosen],
        recovered=matched[chosen],
        pulls=(measured[0] - flux[pulled]) / measured[1],
        spurious=int(lonely.sum()),
        spurious_plain=int((lonely & ~explained(sources)).sum()),
        detections=len(places),
    )


def count_sources(folder: Path) -> int:
    """Return the number of rows of ``folder/dia_sources.parquet``."""
    return int(pq.read_table(folder / "dia_sources.parquet").num_rows)


def noise_detections_expected(difference: DifferenceImage, threshold: float = 5.0) -> float:
    """Detections of both signs that pure white noise gives (Kaiser 2004; DMTN-006).

    The width that counts is that of the filtered noise at its peaks, so it is taken from the mean squared
    gradient of the PSF; for a Gaussian PSF it is its sigma.
    """
    kernel = difference.psf.central()
    slopes = np.gradient(kernel)
    sigma2 = float(np.sum(kernel**2) / sum(np.sum(slope**2) for slope in slopes))
    good = np.count_nonzero(~difference.image.flagged(_UNUSABLE))
    density = threshold * np.exp(-(threshold**2) / 2) / (2**2.5 * np.pi**1.5 * sigma2)
    return 2 * good * float(density)


def explained(sources: dict[str, np.ndarray]) -> np.ndarray:
    """Tell which sources are flagged as dipoles, saturated or residuals of bright stars."""
    names = ("isDipole", "pixelFlags_saturated", "pixelFlags_saturated_template", "isBrightStarResidual")
    flags = [np.asarray(sources[name], bool) for name in names if name in sources]
    return np.asarray(np.logical_or.reduce(flags), bool)


def usable(difference: DifferenceImage, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Tell which positions have no bad pixel within two pixels."""
    bad = difference.image.flagged(_UNUSABLE)
    rows = np.clip(np.rint(y).astype(int), 2, bad.shape[0] - 3)
    cols = np.clip(np.rint(x).astype(int), 2, bad.shape[1] - 3)
    return np.array([not bad[r - 2 : r + 3, c - 2 : c + 3].any() for r, c in zip(rows, cols, strict=True)])


def noise_at(difference: DifferenceImage, y: float, x: float) -> float:
    """Return the noise of a point source's flux at a position."""
    variance = difference.image.variance
    row = int(np.clip(round(y), 0, variance.shape[0] - 1))
    col = int(np.clip(round(x), 0, variance.shape[1] - 1))
    around = variance[max(0, row - 3) : row + 4, max(0, col - 3) : col + 4]
    return float(np.sqrt(np.median(around) / np.sum(difference.psf.at(y, x) ** 2)))


def _run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "apstream", *words], check=True)


def main() -> None:
    """Simulate, subtract, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--transients", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--identical", action="store_true")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp())
    size, seed = str(options.size), str(options.seed)
    if not (out / "science.fits").exists():
        kind = ("--identical", "--no-cosmic-rays") if options.identical else ("--transients", str(options.transients))
        _run("simulate", str(out), "--pair", "--size", size, "--seed", seed, *kind)
    images = (str(out / "science.fits"), str(out / "template.fits"))
    _run("subtract", *images, "--out", str(out / "diff"), "--refcat", str(out / "refcat.parquet"))
    if options.identical:
        difference = read_difference(out / "diff" / "difference.fits")
        found = count_sources(out / "diff")
        print(f"identical images: {found} detections, theory {noise_detections_expected(difference):.1f}")
    else:
        print(evaluate(out / "diff", out / "truth.parquet").table())


if __name__ == "__main__":
    main()
