"""How much light passes, by wavelength."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.types import F64, FloatArray

__all__ = ["TransmissionCurve"]


@dataclass(frozen=True, slots=True, eq=False)
class TransmissionCurve:
    """Throughput of a filter, an instrument or an atmosphere; linear between its points, zero outside them.

    Parameters
    ----------
    wavelength_nm : ndarray, shape (n,), float64
        Vacuum wavelengths in nanometres, increasing; at least two.
    throughput : ndarray, shape (n,), float64
        Fraction of the light that passes, 0 to 1.

    Raises
    ------
    ValueError
        If shapes differ, wavelengths do not increase or are not positive, or a throughput is not in [0, 1].
    """

    wavelength_nm: F64
    throughput: F64

    def __post_init__(self) -> None:
        wavelength, throughput = self.wavelength_nm, self.throughput
        if wavelength.shape != throughput.shape or wavelength.ndim != 1 or len(wavelength) < 2:
            raise ValueError(f"a curve needs two points or more: {wavelength.shape} and {throughput.shape}")
        if not (np.all(np.isfinite(wavelength)) and wavelength[0] > 0 and np.all(np.diff(wavelength) > 0)):
            raise ValueError("wavelengths must be positive and increase")
        if not np.all((throughput >= 0) & (throughput <= 1)):
            raise ValueError("throughput must lie between 0 and 1")

    def at(self, wavelength_nm: FloatArray | float) -> F64:
        """Return the throughput at wavelengths in nanometres, zero outside the curve."""
        return np.asarray(np.interp(wavelength_nm, self.wavelength_nm, self.throughput, left=0.0, right=0.0))

    def times(self, other: TransmissionCurve) -> TransmissionCurve:
        """Return the throughput of both in a row, at the points of both where they overlap; ValueError if nowhere."""
        points = np.union1d(self.wavelength_nm, other.wavelength_nm)
        low = max(self.wavelength_nm[0], other.wavelength_nm[0])
        high = min(self.wavelength_nm[-1], other.wavelength_nm[-1])
        points = points[(points >= low) & (points <= high)]
        return TransmissionCurve(points, self.at(points) * other.at(points))

    @property
    def mean_wavelength_nm(self) -> float:
        """Throughput-weighted mean wavelength; NaN where nothing passes."""
        light = np.trapezoid(self.throughput, self.wavelength_nm)
        weighted = np.trapezoid(self.throughput * self.wavelength_nm, self.wavelength_nm)
        return float(weighted / light) if light > 0 else float("nan")
