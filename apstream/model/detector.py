"""Detectors and their amplifiers, as a camera description gives them."""

from __future__ import annotations

from dataclasses import dataclass

from apstream.model.geometry import Box

__all__ = ["Amplifier", "Detector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Amplifier:
    """One read-out channel.

    Parameters
    ----------
    data
        Box of the image pixels in the raw array.
    overscan
        Box of the serial overscan in the raw array; None where there is none.
    parallel_overscan
        Box of the parallel overscan in the raw array, in the columns of `data`; None where there is none.
    target
        Box in the assembled detector, same shape as `data`.
    flip_x, flip_y
        Whether the raw pixels are mirrored on assembly.
    backward_x, backward_y
        Whether the raw array holds the pixels against the order in which they were read.
    gain
        Electrons per ADU.
    read_noise
        Electrons.
    saturation
        ADU, after overscan subtraction.

    Raises
    ------
    ValueError
        If shapes differ or gain, noise or saturation are impossible.
    """

    name: str
    data: Box
    target: Box
    overscan: Box | None
    gain: float
    read_noise: float
    saturation: float
    flip_x: bool = False
    flip_y: bool = False
    backward_x: bool = False
    backward_y: bool = False
    parallel_overscan: Box | None = None

    def __post_init__(self) -> None:
        if self.data.shape != self.target.shape:
            raise ValueError(f"amplifier {self.name}: data {self.data.shape}, target {self.target.shape}")
        if self.overscan and self.overscan.shape[0] != self.data.shape[0]:
            raise ValueError(f"amplifier {self.name}: overscan and data have different rows")
        if self.parallel_overscan and self.parallel_overscan.shape[1] != self.data.shape[1]:
            raise ValueError(f"amplifier {self.name}: parallel overscan and data have different columns")
        if not (self.gain > 0 and self.read_noise >= 0 and self.saturation > 0):
            raise ValueError(f"amplifier {self.name}: impossible gain, read noise or saturation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """One CCD: its amplifiers, its assembled shape and its pixel scale (arcsec)."""

    number: int
    name: str
    shape: tuple[int, int]
    pixel_scale_arcsec: float
    amplifiers: tuple[Amplifier, ...]

    def __post_init__(self) -> None:
        covered = sum(a.target.shape[0] * a.target.shape[1] for a in self.amplifiers)
        if covered != self.shape[0] * self.shape[1]:
            raise ValueError(f"detector {self.name}: amplifiers cover {covered} of {self.shape} pixels")

    @property
    def box(self) -> Box:
        """Box of the assembled detector."""
        return Box.from_shape(self.shape)

    @property
    def gain(self) -> float:
        """Mean gain, electrons per ADU."""
        return sum(a.gain for a in self.amplifiers) / len(self.amplifiers)

    @property
    def read_noise(self) -> float:
        """Mean read noise, electrons."""
        return sum(a.read_noise for a in self.amplifiers) / len(self.amplifiers)
