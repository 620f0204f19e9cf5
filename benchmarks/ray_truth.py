"""Judge masks of cosmic rays by injected rays and by the stars that must be left alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter

from benchmarks.star_fields import Rays, StarField

__all__ = ["PEAK_SNR", "RayScore", "score"]

#: Bounds of the classes of rays by the S/N of their highest pixel.
PEAK_SNR = (5.0, 10.0, 20.0, 50.0, np.inf)
_CORE_PX, _STAR_SNR = 1, 20.0


@dataclass(frozen=True)
class RayScore:
    """How well a mask found the rays, and what it took of the stars.

    By class of peak S/N: `rays` there are, `found` the share whose highest pixel is flagged, `charge` the share of
    their light. `pixels` is the share of pixels flagged in which rays left more than 5 sigma. `cores` is the share of
    `stars` (S/N above 20, off the rays) that lost a pixel within one of their centre; `false_pixels` are flagged more
    than a pixel from any ray, per 10^6.
    """

    rays: tuple[int, ...]
    found: tuple[float, ...]
    charge: tuple[float, ...]
    pixels: float
    cores: float
    stars: int
    false_pixels: float

    def row(self) -> str:
        """Return the numbers for a table: per cent, cores per mille, false pixels per 10^6."""
        classes = "".join(f"{100 * value:7.1f}" for value in (*self.found, *self.charge))
        return f"{classes}{100 * self.pixels:8.1f}{1000 * self.cores:8.2f}{self.false_pixels:8.1f}"


def score(mask: Any, field: StarField, rays: Rays) -> RayScore:
    """Compare `mask` with the truth.

    Parameters
    ----------
    mask : ndarray, shape (ny, nx), bool
        Pixels said to be hit.
    field
        Stars and the image without noise and rays.
    rays
        What was added.
    """
    noise = np.sqrt(field.variance)
    snr = rays.charge / noise
    label, n = rays.label.ravel(), rays.count + 1
    order = np.lexsort((snr.ravel(), label))
    last = np.searchsorted(label[order], np.arange(1, n), side="right") - 1
    there = np.bincount(label, minlength=n)[1:] > 0
    highest = order[last[there]]
    peak, found = snr.ravel()[highest], mask.ravel()[highest]
    total = np.bincount(label, rays.charge.ravel(), minlength=n)[1:][there]
    flagged = np.bincount(label, (rays.charge * mask).ravel(), minlength=n)[1:][there]
    classes = [(peak >= low) & (peak < high) for low, high in pairwise(PEAK_SNR)]
    near = maximum_filter(rays.charge > 0, 3)
    cores, stars = _cores(mask, field, near)
    return RayScore(
        rays=tuple(int(c.sum()) for c in classes),
        found=tuple(float(found[c].mean()) if c.any() else np.nan for c in classes),
        charge=tuple(float(flagged[c].sum() / total[c].sum()) if c.any() else np.nan for c in classes),
        pixels=float(mask[snr > 5].mean()),
        cores=cores,
        stars=stars,
        false_pixels=1e6 * float(np.count_nonzero(mask & ~near)) / mask.size,
    )


def _cores(mask: Any, field: StarField, near: Any) -> tuple[float, int]:
    """Return the share of bright enough stars whose core is hit, and how many there are off the rays."""
    area = 4 * np.pi * (field.config.fwhm / 2.355) ** 2
    snr = field.flux / np.sqrt(field.flux + area * (field.config.sky + field.config.read_noise**2))
    rows, cols = np.rint(field.y).astype(int), np.rint(field.x).astype(int)
    reach = 2 * _CORE_PX + 1
    clear = (snr > _STAR_SNR) & ~maximum_filter(near, reach)[rows, cols]
    hit = maximum_filter(mask, reach)[rows, cols]
    return float(hit[clear].mean()), int(clear.sum())
