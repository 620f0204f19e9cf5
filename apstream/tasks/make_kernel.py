"""The brighter-fatter kernel of a detector from the covariances of its pairs of flats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.covariances import kernel_of, pair_covariances
from apstream.arrays.types import F32, F64
from apstream.errors import TooFewFrames
from apstream.model.calibs import IsrCalibs
from apstream.model.frames import RawFrames
from apstream.model.transfer import PhotonTransfer
from apstream.tasks.survey import FrameLook, Survey, amplifier_signal

__all__ = ["KernelConfig", "make_kernel"]


class KernelConfig(BaseModel):
    """Settings of `make_kernel`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lags: int = Field(5, ge=1, le=20, description="how far pixels feel each other, pixels")
    min_electron: float = Field(10_000.0, gt=0, description="fainter flats say too little, electrons")


def make_kernel(
    frames: RawFrames,
    found: Survey,
    pairs: Sequence[tuple[FrameLook, FrameLook]],
    *,
    calibs: IsrCalibs,
    transfer: PhotonTransfer,
    config: KernelConfig | None = None,
) -> F32:
    """Return the kernel of all amplifiers together, 1/electron, as ISR takes it.

    Parameters
    ----------
    pairs
        Of flats, even in light.
    calibs
        With bias and linearity to apply.
    transfer
        Gain, noise and turn-off: flats above that do not count.

    Raises
    ------
    TooFewFrames
        If no pair is bright enough.
    """
    config = config or KernelConfig()
    covariances, levels = list[F64](), list[float]()
    for pair in pairs:
        raws = [frames.frame(look.index) for look in pair]
        for k, amplifier in enumerate(found.detector.amplifiers):
            gain, noise = transfer.of(amplifier.name)
            signals = [
                amplifier_signal(raw, look, amplifier, calibs) * np.float32(gain)
                for raw, look in zip(raws, pair, strict=True)
            ]
            level = float(np.mean([np.nanmedian(signal) for signal in signals]))
            full = transfer.turnoff_adu[k] * gain
            if level < config.min_electron or level > 0.95 * full:
                continue
            covariance = pair_covariances(*signals, lags=config.lags)
            covariance[0, 0] -= noise**2
            covariances.append(covariance)
            levels.append(level)
    if not levels:
        raise TooFewFrames(
            f"no pair of flats above {config.min_electron:.0f} electrons",
            remedy="give brighter flats, or lower ptc.kernel.min_electron",
        )
    return np.asarray(kernel_of(covariances, levels), np.float32)
