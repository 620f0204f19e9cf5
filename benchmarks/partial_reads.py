"""What reading one part of a large file costs, beside reading all of it.

    python -m benchmarks.partial_reads --size 4096

The file is written, so it comes from the page cache; bytes are those that the process asked the system for.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from apstream.model.exposures import STAR_DTYPE, CalExp, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.registry import FORMATS


def large_calexp(size: int, count: int = 3000) -> CalExp:
    """Make a calexp of noise with `count` stars."""
    rng, box = np.random.default_rng(1), Box.from_shape((size, size))
    stars = np.zeros(count, STAR_DTYPE)
    stars["y"], stars["x"] = rng.uniform(0, size - 1, (2, count))
    pixels, noise = rng.normal(size=box.shape), np.ones(box.shape)
    return CalExp(
        image=MaskedImage.make(pixels, np.zeros(box.shape), noise, "nJy", box),
        info=ExposureInfo(
            id=VisitDetector("simcam", 1, 2), band="r", physical_filter="r", mid_mjd_tai=6e4, exposure_s=30.0
        ),
        psf=Psf.gaussian(3.0, box),
        wcs=SkyWcs.tan(10.0, 1.0, pixel_scale_arcsec=0.2, y=size / 2, x=size / 2),
        photo_calib=PhotoCalib(njy_per_unit=2.0),
        stars=stars,
        metrics={f"stage.metric_{number}": number / 3 for number in range(60)},
    )


def median_s(action: Callable[[], Any], runs: int) -> float:
    """Return the median seconds of several calls, after one to warm up."""
    durations = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        action()
        durations.append(time.perf_counter() - begin)
    return statistics.median(durations[1:])


def bytes_of(action: Callable[[], Any]) -> int:
    """Return how many bytes the process read during a call."""
    counter = Path("/proc/self/io")

    def now() -> int:
        return int(counter.read_text().split("rchar:")[1].split()[0])

    overhead = -now() + now()
    begin = now()
    action()
    return now() - begin - overhead


def _opened(path: Path, read: Callable[..., Any], *more: Any) -> Any:
    with path.open("rb") as file:
        return read(file, *more)


def report(path: Path, size: int, runs: int) -> None:
    """Print a line per way of reading the file."""
    kept = FORMATS["calexp"]
    assert kept.read_box is not None
    middle = Box(size // 2, size // 2, size // 2 + 100, size // 2 + 100)
    ways: dict[str, Callable[[], Any]] = {"everything": partial(kept.read, path)}
    ways |= {name: partial(_opened, path, read) for name, read in kept.components.items()}
    ways["a box of 100 x 100"] = partial(_opened, path, kept.read_box, middle)
    whole, total = median_s(ways["everything"], runs), path.stat().st_size
    print(f"{'part':<20}{'bytes':>12}{'of the file':>13}{'ms':>10}{'faster':>10}")
    for name, way in ways.items():
        count, duration = bytes_of(way), median_s(way, runs)
        print(f"{name:<20}{count:>12}{count / total:>12.4%} {duration * 1e3:>9.2f}{whole / duration:>9.0f}x")
    print(f"whole file: {total / 1e6:.0f} MB, {total / whole / 1e6:.0f} MB/s")


def main() -> None:
    """Write a calexp and read it in every way."""
    parser = argparse.ArgumentParser(description="Time and count partial reads of a calexp.")
    parser.add_argument("--size", type=int, default=4096, help="pixels on a side")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    value = large_calexp(options.size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calexp.fits"
        duration = median_s(partial(FORMATS["calexp"].write, path, value), 3)
        print(f"written in {duration:.2f} s, {path.stat().st_size / duration / 1e6:.0f} MB/s (not synced)")
        report(path, options.size, options.runs)


if __name__ == "__main__":
    main()
