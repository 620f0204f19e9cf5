"""The fringe pattern of a band, from frames of different sky."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.bad_pixels import block_medians
from apstream.arrays.fringe_pattern import masked_sky, smoothed
from apstream.arrays.master import clipped_median_stack
from apstream.arrays.stats import mad_sigma, subsample
from apstream.arrays.types import F32
from apstream.errors import NoGoodPixels
from apstream.model.calibs import IsrCalibs
from apstream.model.frames import CalibReport, Master, RawFrames, Rejected
from apstream.model.mask import planes
from apstream.tasks.isr import IsrConfig, isr
from apstream.tasks.stack import CombineConfig
from apstream.tasks.survey import require_enough, survey

__all__ = ["FringePatternConfig", "make_fringe"]

_UNUSABLE = planes("BAD", "SAT", "NO_DATA", "SUSPECT", "CR", "EDGE")


class FringePatternConfig(BaseModel):
    """Settings of `make_fringe`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    combine: CombineConfig = Field(CombineConfig(min_frames=3), description="how frames are combined")
    source_n_sigma: float = Field(
        2.5, gt=0, description="what stands off from the sky nearby by more is a source, sigma"
    )
    source_cell_px: int = Field(24, ge=8, description="cell of the sky nearby, pixels: narrower than fringes are wide")
    source_grow_px: int = Field(6, ge=0, description="how far sources are grown, pixels")
    sky_cell_px: int = Field(128, ge=16, description="cell of the sky that is no fringe, pixels: wider than fringes")
    smooth_px: float = Field(1.5, ge=0, description="sigma of the Gaussian that takes the noise of pixels out, pixels")
    min_sky_electron: float = Field(50.0, gt=0, description="frames with less sky are left out, electrons")


def make_fringe(
    frames: RawFrames,
    calibs: IsrCalibs | None = None,
    isr_config: IsrConfig | None = None,
    config: FringePatternConfig | None = None,
    *,
    scratch: Callable[[tuple[int, ...]], F32] = lambda shape: np.empty(shape, np.float32),
) -> Master:
    """Combine sky frames after ISR, each less its smooth sky and over its level, sources masked, by the median.

    Parameters
    ----------
    calibs
        All that ISR applies before fringes.
    scratch
        Makes the array (n, ny, nx) for the frames: in a file, where they do not fit into memory.

    Returns
    -------
    Master
        Fraction of the sky, zero median; zero where no frame has a value.

    Raises
    ------
    TooFewFrames
        If fewer than ``combine.min_frames`` have sky.
    MixedFrames
        If frames are of different detectors or filters.
    """
    calibs, config = calibs or IsrCalibs(), config or FringePatternConfig()
    isr_config = (isr_config or IsrConfig()).model_copy(update={"fringe": None})
    found = survey(frames, calibs, isr_config, one_band=True)
    cube = scratch((len(found.looks), *found.detector.shape))
    faults, skies = [], []
    for k, look in enumerate(found.looks):
        try:
            exposure = isr(frames.frame(look.index), calibs, isr_config)
        except NoGoodPixels as error:
            faults.append(error.message)
            skies.append(0.0)
            continue
        sky, level = _sky(exposure.image.image, (exposure.image.mask & _UNUSABLE) != 0, config)
        cube[k] = sky / np.float32(level) if level > 0 else np.nan
        skies.append(level)
        faults.append("" if level >= config.min_sky_electron else f"empty: {level:.0f} electrons of sky")
    kept = [k for k, fault in enumerate(faults) if not fault]
    found = found.split(faults)
    require_enough(found, config.combine.min_frames, "sky frame")
    pattern, count = _combined(cube, kept, config)
    metrics = _metrics(pattern, count, [skies[k] for k in kept], found.rejected)
    report = CalibReport(kind="fringe", used=found.names, rejected=found.rejected, metrics=metrics)
    noise = np.float32(metrics["noise"]) * np.sqrt(len(kept) / np.maximum(count, 1))
    return Master(image=pattern, noise=np.asarray(noise, np.float32), report=report)


def _sky(image: F32, bad: np.ndarray, config: FringePatternConfig) -> tuple[F32, float]:
    """Return the sky less its smooth part, NaN under sources and bad pixels, and its level."""
    clean = np.where(bad, np.float32(np.nan), image)
    masked = masked_sky(clean, cell=config.source_cell_px, n_sigma=config.source_n_sigma, grow=config.source_grow_px)
    return _residual(masked, config.sky_cell_px)


def _residual(masked: F32, cell: int) -> tuple[F32, float]:
    """Return what is left of a sky without a smooth surface through the medians of its cells, and the level."""
    medians = block_medians(masked, cell)
    ny, nx = medians.shape
    y, x = np.meshgrid((np.arange(ny) + 0.5) / ny, (np.arange(nx) + 0.5) / nx, indexing="ij")
    good = np.isfinite(medians)
    order = 2 if good.sum() >= 12 else 0
    terms = [(i, k) for i in range(order + 1) for k in range(order + 1 - i)]
    if not good.any():
        return np.full_like(masked, np.nan), 0.0
    design = np.stack([y[good] ** i * x[good] ** k for i, k in terms], axis=1)
    found, *_ = np.linalg.lstsq(design, medians[good], rcond=None)
    v, u = ((np.arange(n, dtype=np.float32) + 0.5) / n for n in masked.shape)
    surface = sum(np.float32(c) * v[:, None] ** i * u[None, :] ** k for c, (i, k) in zip(found, terms, strict=True))
    return np.asarray(masked - surface, np.float32), float(np.nanmedian(medians))


def _combined(cube: F32, kept: list[int], config: FringePatternConfig) -> tuple[F32, F32]:
    ny, nx = cube.shape[1:]
    pattern, count = np.zeros((ny, nx), np.float32), np.zeros((ny, nx), np.float32)
    rows = max(1, int(config.combine.memory_mb * 1e6 / (8 * nx * len(kept))))
    for y0 in range(0, ny, rows):
        part = np.stack([cube[k, y0 : y0 + rows] for k in kept]).reshape(len(kept), -1)
        middle, number = clipped_median_stack(part, n_sigma=config.combine.n_sigma)
        pattern[y0 : y0 + rows], count[y0 : y0 + rows] = middle.reshape(-1, nx), number.reshape(-1, nx)
    seen = count > 0
    if not seen.any():
        raise NoGoodPixels("no pixel has sky in any frame", remedy="give frames of emptier fields")
    pattern = smoothed(pattern, seen, config.smooth_px)
    pattern[pattern != 0] -= np.float32(np.median(pattern[pattern != 0]))
    return pattern, count


def _metrics(pattern: F32, count: F32, skies: list[float], rejected: tuple[Rejected, ...]) -> dict[str, float]:
    noise = mad_sigma(subsample(np.diff(pattern, axis=1))) / np.sqrt(2)
    return {
        "frames": float(len(skies)),
        "rejected_frames": float(len(rejected)),
        "sky_electron": float(np.median(skies)),
        "amplitude": mad_sigma(subsample(pattern)),
        "noise": noise,
        "unseen_fraction": float(np.mean(count == 0)),
    }
