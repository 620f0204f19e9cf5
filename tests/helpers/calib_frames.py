"""Raw calibration frames of a simulated detector whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.time import Time

from apstream.model.exposures import ExposureInfo, RawExposure
from apstream.model.frames import MemoryFrames
from apstream.model.ids import VisitDetector
from apstream.simulate.config import ChipConfig
from apstream.simulate.raw import Chip, amplifier_cards, draw_chip, expose, read_out
from apstream.simulate.write import write_fits


def make_chip(seed: int = 5, size: int = 192, **config: Any) -> Chip:
    return draw_chip(np.random.default_rng(seed), ChipConfig(**config), number=0, size=size, scale_arcsec=0.25)


def info(visit: int, kind: str, exposure_s: float, band: str = "r") -> ExposureInfo:
    return ExposureInfo(
        id=VisitDetector("simcam", visit, 0),
        band=band,
        physical_filter=f"sim-{band}",
        mid_mjd_tai=61000.0 + visit / 1440,
        exposure_s=exposure_s,
        observation_type=kind,
        origin=f"{kind}_{visit}.fits",
    )


def frame(
    chip: Chip, visit: int, kind: str, *, light: Any = 0.0, exposure_s: float = 0.0, seed: int = 0, cosmic: bool = True
) -> RawExposure:
    """Expose a chip to light (expected electrons, a number or an image) and read it out."""
    rng = np.random.default_rng([seed, visit])
    charge = np.broadcast_to(np.float32(light), chip.flat.shape).astype(np.float32)
    pixels = read_out(rng, expose(rng, charge, chip, exposure_s, cosmic=cosmic), chip).astype(np.float32)
    return RawExposure(pixels=pixels, detector=chip.detector, info=info(visit, kind, exposure_s), wcs=None)


def biases(chip: Chip, count: int, seed: int = 1) -> MemoryFrames:
    return MemoryFrames([frame(chip, visit, "bias", seed=seed) for visit in range(1, count + 1)])


def darks(chip: Chip, times_s: list[float], seed: int = 2) -> MemoryFrames:
    return MemoryFrames([frame(chip, 101 + k, "dark", exposure_s=t, seed=seed) for k, t in enumerate(times_s)])


def flats(chip: Chip, levels_e: list[float], seed: int = 3, exposure_s: float = 5.0) -> MemoryFrames:
    made = (frame(chip, 201 + k, "flat", light=e, exposure_s=exposure_s, seed=seed) for k, e in enumerate(levels_e))
    return MemoryFrames(list(made))


def in_band(raw: RawExposure, band: str) -> RawExposure:
    return replace(raw, info=replace(raw.info, band=band))


def gain_map(chip: Chip) -> Any:
    gain = np.empty(chip.flat.shape, np.float32)
    for amplifier in chip.detector.amplifiers:
        gain[amplifier.target.slices(chip.detector.box)] = amplifier.gain
    return gain


def write_frames(folder: Path, frames: MemoryFrames) -> list[Path]:
    """Write frames as the simulator's camera does, and return the paths."""
    paths = []
    for raw in frames.frames:
        info = raw.info
        start = Time(info.mid_mjd_tai - info.exposure_s / 2 / 86400, format="mjd", scale="tai").utc
        cards = {
            "VISIT": info.id.visit,
            "DETECTOR": info.id.detector,
            "OBSTYPE": info.observation_type,
            "FILTER": info.physical_filter,
            "EXPTIME": info.exposure_s,
            "DATE-OBS": start.isot,
            "PIXSCALE": 0.25,
            "RA": "10:00:00",
            "DEC": "+02:00:00",
            **amplifier_cards(raw.detector),
        }
        paths.append(folder / info.origin)
        write_fits(paths[-1], np.rint(raw.pixels).astype(np.uint16), cards)
    return paths


def star_field(size: int, seed: int, *, stars: int = 120, sky: float = 300.0) -> Any:
    """Return expected electrons of a sky with stars of FWHM 5 pixels, peaks even in their logarithm."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size), sky, np.float32)
    y, x = np.mgrid[:size, :size]
    for y0, x0, height in zip(*rng.uniform(0, size, (2, stars)), 10 ** rng.uniform(3.5, 5, stars), strict=True):
        window = (slice(max(0, int(y0) - 15), int(y0) + 16), slice(max(0, int(x0) - 15), int(x0) + 16))
        image[window] += height * np.exp(-((y[window] - y0) ** 2 + (x[window] - x0) ** 2) / 9.0)
    return image


def with_crosstalk(raw: RawExposure, matrix: Any) -> RawExposure:
    """Let each amplifier hear the others as they were read: ``matrix[i, j]`` of j in i."""
    pixels, amplifiers = raw.pixels.copy(), raw.detector.amplifiers
    signals = []
    for a in amplifiers:
        level = np.median(raw.pixels[:, a.overscan.x0 : a.overscan.x1], axis=1, keepdims=True)
        signal = raw.pixels[:, a.data.x0 : a.data.x1] - level
        signals.append(signal[:, ::-1] if a.backward_x else signal)
    for i, a in enumerate(amplifiers):
        heard = sum(matrix[i, j] * signals[j] for j in range(len(amplifiers)) if j != i)
        pixels[:, a.data.x0 : a.data.x1] += heard[:, ::-1] if a.backward_x else heard
    return replace(raw, pixels=np.rint(pixels))


def bent(raw: RawExposure, bend: float) -> RawExposure:
    """Let amplifiers lose a fraction ``bend`` of their signal at 40,000 ADU, growing with the signal squared."""
    pixels = raw.pixels.copy()
    for a in raw.detector.amplifiers:
        level = np.median(raw.pixels[:, a.overscan.x0 : a.overscan.x1], axis=1, keepdims=True)
        part = (slice(None), slice(a.data.x0, a.data.x1))
        signal = np.maximum(raw.pixels[part] - level, 0)
        pixels[part] -= bend / 40_000 * signal**2
    return replace(raw, pixels=np.rint(pixels))
