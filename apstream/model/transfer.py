"""Photon transfer: what pairs of flats say of each amplifier."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["PhotonTransfer"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhotonTransfer:
    """Measured gain, read noise and turn-off of the amplifiers of a detector.

    Parameters
    ----------
    names
        Names of the amplifiers, in the order of what follows.
    gain, gain_err
        Electrons per ADU.
    read_noise
        Electrons.
    turnoff_adu
        Signal above which the variance no longer grows with it; NaN: not reached.
    a00
        Brighter-fatter coefficient of a pixel on itself, 1/electron; 0: not known.

    Raises
    ------
    ValueError
        If names repeat, numbers do not fit them, or a gain or a noise is impossible.
    """

    names: tuple[str, ...]
    gain: tuple[float, ...]
    gain_err: tuple[float, ...]
    read_noise: tuple[float, ...]
    turnoff_adu: tuple[float, ...]
    a00: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"amplifier names must be given and differ: {', '.join(self.names) or 'none'}")
        columns = (self.gain, self.gain_err, self.read_noise, self.turnoff_adu, self.a00)
        if any(len(column) != len(self.names) for column in columns):
            raise ValueError(f"photon transfer of {len(self.names)} amplifiers needs as many values of each kind")
        for name, gain, noise in zip(self.names, self.gain, self.read_noise, strict=True):
            if not (0 < gain < math.inf and 0 <= noise < math.inf):
                raise ValueError(f"amplifier {name}: impossible gain {gain} or read noise {noise}")

    def of(self, name: str) -> tuple[float, float]:
        """Return gain (electrons per ADU) and read noise (electrons) of an amplifier; ValueError if unknown."""
        at = self.names.index(name)
        return self.gain[at], self.read_noise[at]
