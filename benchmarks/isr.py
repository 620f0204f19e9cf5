"""Time ISR of one detector beside ccdproc doing the same, in one process and on one core.

    python -m benchmarks.isr [--size 4096] [--repeats 5]

A simulated chip with two amplifiers, stars and saturated columns; overscan by rows, bias, dark scaled by exposure,
gain, flat, variance, masks of saturation and defects. Both are run once before the clock starts, then by turns, so that
whatever else the machine does meets both; how far the two images differ is printed. ccdproc (BSD-3) is optional: where
it is not installed, that is said. A further line is ours with crosstalk and linearity switched on as well.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from apstream.model.calibs import IsrCalibs
from apstream.model.crosstalk import Crosstalk
from apstream.model.detector import Amplifier
from apstream.model.exposures import ExposureInfo, RawExposure
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.linearity import Linearity
from apstream.simulate.config import ChipConfig
from apstream.simulate.raw import draw_chip, expose, masters, read_out
from apstream.tasks.isr import isr

__all__ = ["Frame", "make_frame", "run_ccdproc"]


@dataclass(frozen=True)
class Frame:
    """A raw frame and its calibrations."""

    raw: RawExposure
    calibs: IsrCalibs


def make_frame(size: int, seed: int = 1) -> Frame:
    """Simulate a chip, its masters and a frame of 30 s with stars, some of them saturated."""
    rng = np.random.default_rng(seed)
    chip = draw_chip(rng, ChipConfig(), number=0, size=size, scale_arcsec=0.2)
    light = np.full((size, size), 800, np.float32)
    y, x = np.mgrid[-10:11, -10:11]
    for cy, cx in rng.integers(11, size - 11, (max(20, size * size // 20_000), 2)):
        star = 10 ** rng.uniform(3, 6.5) * np.exp(-(y**2 + x**2) / 8) / 25
        light[cy - 10 : cy + 11, cx - 10 : cx + 11] += star.astype(np.float32)
    pixels = read_out(rng, expose(rng, light, chip, 30.0), chip).astype(np.float32)
    bias, dark, flat = masters(rng, chip)
    info = ExposureInfo(
        id=VisitDetector("bench", 1, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0
    )
    raw = RawExposure(pixels=pixels, detector=chip.detector, info=info, wcs=None)
    return Frame(raw, IsrCalibs(bias=bias, dark=dark, flat=flat, defects=chip.defects))


def with_everything(frame: Frame) -> Frame:
    """Add crosstalk and linearity of every amplifier."""
    names = tuple(a.name for a in frame.raw.detector.amplifiers)
    matrix = 1e-4 * (1 - np.eye(len(names)))
    linearity = Linearity(
        names=names, kind="polynomial", coefficients=(np.array([1e-7]),) * len(names), max_adu=(np.inf,) * len(names)
    )
    return replace(frame, calibs=replace(frame.calibs, crosstalk=Crosstalk(names, matrix), linearity=linearity))


def run_ccdproc(frame: Frame) -> Any:
    """Do what `isr` does, with ccdproc; return its image of the detector, with mask and uncertainty."""
    import ccdproc
    from astropy import units as u
    from astropy.nddata import CCDData, StdDevUncertainty

    detector = frame.raw.detector
    image, sigma = (np.empty(detector.shape, np.float32) for _ in range(2))
    mask = np.zeros(detector.shape, bool)
    for amplifier in detector.amplifiers:
        part = _amplifier_with_ccdproc(frame, amplifier)
        where = amplifier.target.slices(detector.box)
        image[where], sigma[where], mask[where] = part.data, part.uncertainty.array, part.mask
    mask |= frame.calibs.defects
    ccd = CCDData(image, unit=u.electron, mask=mask, uncertainty=StdDevUncertainty(sigma))
    flat = CCDData(frame.calibs.flat, unit=u.dimensionless_unscaled)
    return ccdproc.flat_correct(ccd, flat, min_value=0.05, norm_value=1.0)


def _amplifier_with_ccdproc(frame: Frame, amplifier: Amplifier) -> Any:
    import ccdproc
    from astropy import units as u
    from astropy.nddata import CCDData

    detector, calibs, whole = frame.raw.detector, frame.calibs, Box.from_shape(frame.raw.pixels.shape)
    where = amplifier.target.slices(detector.box)
    over = CCDData(frame.raw.pixels[amplifier.overscan.slices(whole)], unit=u.adu)
    data = CCDData(frame.raw.pixels[amplifier.data.slices(whole)], unit=u.adu)
    data = ccdproc.subtract_overscan(data, overscan=over, overscan_axis=1, median=True)
    data.mask = data.data >= amplifier.saturation
    data = ccdproc.subtract_bias(data, CCDData(calibs.bias[where], unit=u.adu))
    data = ccdproc.subtract_dark(
        data,
        CCDData(calibs.dark[where], unit=u.adu),
        dark_exposure=1 * u.s,
        data_exposure=frame.raw.info.exposure_s * u.s,
        scale=True,
    )
    gain = amplifier.gain * u.electron / u.adu
    noise = amplifier.read_noise * u.electron
    return ccdproc.gain_correct(ccdproc.create_deviation(data, gain=gain, readnoise=noise, disregard_nan=True), gain)


def _once(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """Time both by turns and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    frame = make_frame(options.size)
    full = with_everything(frame)
    jobs: dict[str, Callable[[], object]] = {
        "apstream isr": lambda: isr(frame.raw, frame.calibs),
        "apstream isr, crosstalk and linearity too": lambda: isr(full.raw, full.calibs),
    }
    if find_spec("ccdproc"):
        warnings.simplefilter("ignore")
        jobs["ccdproc"] = lambda: run_ccdproc(frame)
    else:
        print("ccdproc is not installed: ours alone (pip install ccdproc)")
    for work in jobs.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(options.repeats):
        for name, work in jobs.items():
            seconds[name].append(_once(work))
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:45s} {median:7.3f} s  (least {min(seconds[name]):.3f} s)")
    if "ccdproc" in medians:
        ours, theirs = isr(frame.raw, frame.calibs).image, run_ccdproc(frame)
        off = np.abs(ours.image - theirs.data)[(ours.mask == 0) & ~theirs.mask]
        print(f"difference of the images: median {np.median(off):.3f}, 99.9 % below {np.percentile(off, 99.9):.3f} e-")
        print(f"ccdproc takes {medians['ccdproc'] / medians['apstream isr']:.1f} times as long")


if __name__ == "__main__":
    main()
