"""What a CCD does to light: response, dark current, noise, cosmic rays, saturation, bleeding, read-out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, BoolArray
from apstream.cameras.sections import format_section
from apstream.model.detector import Amplifier, Detector
from apstream.model.geometry import Box
from apstream.simulate.config import ChipConfig

__all__ = [
    "Chip",
    "add_photon_noise",
    "amplifier_cards",
    "bleed",
    "cosmic_rays",
    "draw_chip",
    "expose",
    "masters",
    "read_out",
    "satellite_trail",
]

_F32 = np.float32


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """A detector as it is; `detector` as its maker describes it."""

    detector: Detector
    config: ChipConfig
    bias: F32  # ADU, structure that stays after overscan subtraction
    bias_levels: tuple[float, ...]  # ADU per amplifier
    dark_rate: F32  # electrons per second, hot pixels included
    flat: F32  # relative response, mean one
    defects: BoolArray  # hot, dead and bad-column pixels


def draw_chip(rng: np.random.Generator, config: ChipConfig, *, number: int, size: int, scale_arcsec: float) -> Chip:
    """Make a chip: amplifiers, bias structure, dark current, response and defects."""
    detector = _draw_detector(rng, config, number, size, scale_arcsec)
    defects, hot, response = _draw_defects(rng, size)
    dark = (config.dark_e_s * rng.uniform(0.7, 1.3, (size, size))).astype(_F32) + hot
    flat = _draw_flat(rng, config, size) * response
    return Chip(
        detector=detector,
        config=config,
        bias=_draw_bias(rng, detector),
        bias_levels=tuple(float(v) for v in config.bias_adu * rng.uniform(0.9, 1.1, len(detector.amplifiers))),
        dark_rate=dark,
        flat=flat,
        defects=defects,
    )


def _draw_detector(rng: np.random.Generator, config: ChipConfig, number: int, size: int, scale: float) -> Detector:
    """Lay amplifiers side by side; the left half's overscans stand left of the image, the others right."""
    count, strip = config.amplifiers, config.overscan_px
    edges = np.linspace(0, size, count + 1).astype(int)
    n_left = (count + 1) // 2 if count > 1 else 0
    start = n_left * strip
    amplifiers = []
    for i in range(count):
        x0, x1 = int(edges[i]), int(edges[i + 1])
        over = i * strip if i < n_left else start + size + (i - n_left) * strip
        gain = round(float(config.gain * (1 + 0.05 * rng.uniform(-1, 1))), 4)
        amplifiers.append(
            Amplifier(
                name=f"C{i + 1}",
                data=Box(0, start + x0, size, start + x1),
                target=Box(0, x0, size, x1),
                overscan=Box(0, over, size, over + strip),
                backward_x=i < n_left,
                gain=gain,
                read_noise=round(float(config.read_noise_e * rng.uniform(0.9, 1.1)), 3),
                saturation=round(0.98 * config.full_well_e / gain, 1),
            )
        )
    return Detector(
        number=number,
        name=f"D{number}",
        shape=(size, size),
        pixel_scale_arcsec=scale,
        amplifiers=tuple(amplifiers),
    )


def _draw_bias(rng: np.random.Generator, detector: Detector) -> F32:
    """Return fixed-pattern bias in ADU: a column pattern, a glow along the rows, a tilt per amplifier."""
    ny, nx = detector.shape
    y = np.linspace(0, 1, ny)[:, None]
    bias = np.broadcast_to(rng.normal(0, 0.8, nx), (ny, nx)) + 6 * np.exp(-y / 0.02)
    for amplifier in detector.amplifiers:
        rows, columns = amplifier.target.slices(detector.box)
        bias[rows, columns] += rng.normal(0, 3) * (y - 0.5) + rng.normal(0, 1.5)
    return np.ascontiguousarray(bias, dtype=_F32)


def _draw_flat(rng: np.random.Generator, config: ChipConfig, size: int) -> F32:
    """Return the response: vignetting, a slope, a few dust rings, scatter from pixel to pixel."""
    t = np.linspace(-1, 1, size, dtype=_F32)
    ty, tx = t[:, None], t[None, :]
    flat = 1 - config.vignetting * (ty**2 + tx**2) / 2 + 0.01 * (rng.normal() * ty + rng.normal() * tx)
    for _ in range(4):
        cy, cx, radius = rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9), rng.uniform(0.03, 0.08)
        r = np.hypot(ty - cy, tx - cx) / radius
        flat *= 1 - 0.03 * np.exp(-(((r - 1) / 0.25) ** 2))
    flat *= 1 + config.pixel_response * rng.standard_normal((size, size), dtype=_F32)
    return np.asarray(flat / flat.mean(), _F32)


def _draw_defects(rng: np.random.Generator, size: int) -> tuple[BoolArray, F32, F32]:
    """Return the defect mask, and excess dark current and response of bad columns, hot and dead pixels."""
    defects = np.zeros((size, size), bool)
    hot, response = np.zeros((size, size), _F32), np.ones((size, size), _F32)
    for k in range(max(2, size // 700)):
        x, y0 = int(rng.integers(0, size)), int(rng.integers(0, size * 3 // 4))
        defects[y0:, x] = True
        if k % 2:
            hot[y0:, x] += float(rng.uniform(20, 200))
        else:
            response[y0:, x] *= float(rng.uniform(0.05, 0.6))
    n_hot = size * size // 20_000
    ys, xs = rng.integers(0, size, (2, 2 * n_hot))
    defects[ys, xs] = True
    hot[ys[:n_hot], xs[:n_hot]] += 10 ** rng.uniform(0.5, 3, n_hot)
    response[ys[n_hot:], xs[n_hot:]] *= rng.uniform(0.0, 0.5, n_hot)
    return defects, hot, response


def expose(rng: np.random.Generator, light: F32, chip: Chip, exposure_s: float, *, cosmic: bool = True) -> F32:
    """Turn expected electrons into collected charge: response, dark, photon noise, cosmic rays, bleeding.

    `light` is overwritten and returned.
    """
    light *= chip.flat
    light += chip.dark_rate * _F32(exposure_s)
    add_photon_noise(rng, light)
    if cosmic:
        cosmic_rays(rng, light, chip.config, exposure_s)
    bleed(light, chip.config.full_well_e)
    return light


def add_photon_noise(rng: np.random.Generator, image: F32) -> None:
    """Replace expected by counted electrons in place: Gaussian at high levels, Poisson at low ones."""
    if float(np.percentile(image[::7, ::7], 1)) > 50:
        noise = rng.standard_normal(image.shape, dtype=_F32)
        noise *= np.sqrt(np.maximum(image, 0))
        image += noise
    else:
        image[:] = rng.poisson(np.maximum(image, 0))


@njit(cache=True, nogil=True)
def bleed(charge, full_well):  # type: ignore[no-untyped-def]
    """Spill charge above `full_well` along the columns, half up and half down, in place."""
    ny, nx = charge.shape
    excess = np.zeros(ny)
    for x in range(nx):
        top = 0.0
        for y in range(ny):
            excess[y] = max(0.0, charge[y, x] - full_well)
            top = max(top, excess[y])
        if top == 0.0:
            continue
        carry = 0.0
        for y in range(ny):
            if excess[y] > 0:
                charge[y, x] = full_well
                carry += excess[y] / 2
            else:
                take = min(carry, full_well - charge[y, x])
                charge[y, x] += take
                carry -= take
        carry = 0.0
        for y in range(ny - 1, -1, -1):
            if excess[y] > 0:
                carry += excess[y] / 2
            else:
                take = min(carry, full_well - charge[y, x])
                charge[y, x] += take
                carry -= take


def cosmic_rays(rng: np.random.Generator, image: F32, config: ChipConfig, exposure_s: float) -> int:
    """Add tracks in place and return their number: straight, mostly short, some long, a little diffused."""
    area_cm2 = image.size * (15e-4) ** 2
    count = int(rng.poisson(config.cosmic_rays_cm2_min * area_cm2 * exposure_s / 60))
    length = np.minimum(rng.exponential(6, count) + 1, 150.0)
    length[rng.random(count) < 0.05] *= 6
    angle = rng.uniform(0, np.pi, count)
    per_px = rng.lognormal(np.log(700), 0.7, count)
    starts = rng.uniform(0, 1, (count, 2)) * image.shape
    for (y, x), span, turn, charge in zip(starts, length, angle, per_px, strict=True):
        steps = max(2, int(span * 4))
        s = np.linspace(0, span, steps)
        ys = y + s * np.sin(turn) + rng.normal(0, 0.25, steps)
        xs = x + s * np.cos(turn) + rng.normal(0, 0.25, steps)
        energy = charge * span / steps * rng.lognormal(0, 0.3, steps)
        inside = (ys >= 0) & (ys < image.shape[0]) & (xs >= 0) & (xs < image.shape[1])
        np.add.at(image, (ys[inside].astype(int), xs[inside].astype(int)), energy[inside].astype(_F32))
    return count


def satellite_trail(rng: np.random.Generator, image: F32, fwhm_px: float) -> None:
    """Add one straight trail across the image in place (electrons, before noise)."""
    ny, nx = image.shape
    cy, cx, angle = rng.uniform(0.1, 0.9) * ny, rng.uniform(0.1, 0.9) * nx, rng.uniform(0, np.pi)
    sigma, peak = 1.2 * fwhm_px / 2.355, 10 ** rng.uniform(2.3, 3.3)
    y = np.arange(ny, dtype=_F32)[:, None]
    for x0 in range(0, nx, 256):  # slabs keep the temporary small
        x = np.arange(x0, min(nx, x0 + 256), dtype=_F32)[None, :]
        distance = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        image[:, x0 : x0 + 256] += (peak * np.exp(-0.5 * np.minimum((distance / sigma) ** 2, 60))).astype(_F32)


def read_out(rng: np.random.Generator, charge: F32, chip: Chip) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """Turn electrons into the raw array: gain, bias, read noise, overscan, 16 bits."""
    ny = charge.shape[0]
    strips = [a.overscan for a in chip.detector.amplifiers if a.overscan]
    width = charge.shape[1] + sum(s.shape[1] for s in strips)
    raw = np.zeros((ny, width), np.uint16)
    origin = Box.from_shape(raw.shape)
    drift = np.cumsum(rng.normal(0, 0.02, ny))[:, None]
    for amplifier, level in zip(chip.detector.amplifiers, chip.bias_levels, strict=True):
        target = amplifier.target.slices(chip.detector.box)
        base = (level + drift).astype(_F32)
        signal = charge[target] / _F32(amplifier.gain) + chip.bias[target]
        raw[amplifier.data.slices(origin)] = _digitize(rng, signal + base, amplifier)
        if amplifier.overscan is not None:
            blank = np.broadcast_to(base, amplifier.overscan.shape)
            raw[amplifier.overscan.slices(origin)] = _digitize(rng, blank, amplifier)
    return raw


def _digitize(rng: np.random.Generator, adu: F32, amplifier: Amplifier) -> F32:
    noise = rng.standard_normal(adu.shape, dtype=_F32)
    noise *= _F32(amplifier.read_noise / amplifier.gain)
    noise += adu
    return np.clip(np.rint(noise, out=noise), 0, 65535, out=noise)


def masters(rng: np.random.Generator, chip: Chip, frames: int = 25) -> tuple[F32, F32, F32]:
    """Return bias (ADU), dark (ADU/s) and flat (mean one) with the noise that `frames` exposures leave."""
    noise_adu = np.empty(chip.bias.shape, _F32)
    gain = np.empty(chip.bias.shape, _F32)
    for amplifier in chip.detector.amplifiers:
        part = amplifier.target.slices(chip.detector.box)
        noise_adu[part] = amplifier.read_noise / amplifier.gain / np.sqrt(frames)
        gain[part] = amplifier.gain
    shape = chip.bias.shape
    bias = chip.bias + noise_adu * rng.standard_normal(shape, dtype=_F32)
    dark_s = _F32(600.0)
    dark_noise = np.sqrt(chip.dark_rate * dark_s / frames) / dark_s
    dark = (chip.dark_rate + dark_noise * rng.standard_normal(shape, dtype=_F32)) / gain
    flat = chip.flat * (1 + _F32(1 / np.sqrt(30_000 * frames)) * rng.standard_normal(shape, dtype=_F32))
    return bias, dark.astype(_F32), np.asarray(flat / flat.mean(), _F32)


def amplifier_cards(detector: Detector) -> dict[str, object]:
    """Return the header cards that describe the amplifiers, as the simcam description reads them."""
    cards: dict[str, object] = {"NAMPS": len(detector.amplifiers)}
    for i, amplifier in enumerate(detector.amplifiers, 1):
        cards[f"DATASEC{i}"] = format_section(amplifier.data)
        cards[f"CCDSEC{i}"] = format_section(amplifier.target)
        if amplifier.overscan is not None:
            cards[f"BIASSEC{i}"] = format_section(amplifier.overscan)
        cards[f"GAIN{i}"] = amplifier.gain
        cards[f"RDNOISE{i}"] = amplifier.read_noise
        cards[f"SATURAT{i}"] = amplifier.saturation
    return cards
