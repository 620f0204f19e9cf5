"""Which exposures go into a coadd: by their PSF, with a reason for each that does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.moments import adaptive_moments
from apstream.model.ids import VisitDetector
from apstream.model.psf import Psf

__all__ = ["InputQuality", "SelectInputsConfig", "Selected", "psf_ellipticity", "select_inputs"]


class SelectInputsConfig(BaseModel):
    """Which exposures are good enough for a coadd."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_fwhm_arcsec: float | None = Field(None, gt=0, description="Exposures with a wider PSF are left out, arcsec.")
    max_ellipticity: float | None = Field(
        None, gt=0, le=1, description="Exposures whose PSF is more elongated are left out; (a^2 - b^2) / (a^2 + b^2)."
    )
    seeing_quantile: float | None = Field(
        None, gt=0, le=1, description="Of each detector and band, this share with the narrowest PSFs is used."
    )
    best: int | None = Field(None, ge=1, description="So many of each detector and band, the narrowest, are used.")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputQuality:
    """What is judged of an exposure: the width of its PSF in its middle, arcsec, and its ellipticity."""

    id: VisitDetector
    band: str
    fwhm_arcsec: float
    ellipticity: float


@dataclass(frozen=True, slots=True)
class Selected:
    """Which exposures are used, by their places in the order they had, and why the others are not, by their id."""

    kept: tuple[int, ...]
    left_out: dict[VisitDetector, str]


def select_inputs(inputs: Sequence[InputQuality], config: SelectInputsConfig) -> Selected:
    """Choose the exposures for a coadd; those that are used keep their order.

    Limits hold first; then, among what is left of each detector and band, the quantile and the number.
    """
    reasons: dict[int, str] = {}
    for k, item in enumerate(inputs):
        if reason := _beyond(item, config):
            reasons[k] = reason
    for group in _groups(inputs, [k for k in range(len(inputs)) if k not in reasons]):
        ranked = sorted(group, key=lambda k: (inputs[k].fwhm_arcsec, inputs[k].id))
        wanted = _wanted(len(ranked), config)
        for place, k in enumerate(ranked[wanted:], start=wanted + 1):
            width = f"its PSF of {inputs[k].fwhm_arcsec:.2f} arcsec"
            reasons[k] = f"{width} is number {place} of {len(ranked)} by width, {wanted} are used"
    kept = tuple(k for k in range(len(inputs)) if k not in reasons)
    return Selected(kept, {inputs[k].id: reasons[k] for k in sorted(reasons)})


def psf_ellipticity(psf: Psf) -> float:
    """Return (a^2 - b^2) / (a^2 + b^2) of the PSF in the middle of its box, from adaptive moments."""
    kernel = psf.central().astype(np.float32)
    middle = (np.array([float(n // 2)]) for n in kernel.shape)
    y, x = middle
    sigma = float(np.sqrt(psf.effective_area() / (4 * np.pi)))
    found = adaptive_moments(kernel, np.zeros(kernel.shape, bool), y=y, x=x, sigma=max(sigma, 0.5))[0]
    size = float(found["xx"] + found["yy"])
    return float(np.hypot(found["xx"] - found["yy"], 2 * found["xy"])) / size if size > 0 else float("nan")


def _beyond(item: InputQuality, config: SelectInputsConfig) -> str:
    if config.max_fwhm_arcsec is not None and not item.fwhm_arcsec <= config.max_fwhm_arcsec:
        return f"its PSF of {item.fwhm_arcsec:.2f} arcsec is wider than {config.max_fwhm_arcsec:.2f}"
    if config.max_ellipticity is not None and not item.ellipticity <= config.max_ellipticity:
        return f"its PSF's ellipticity of {item.ellipticity:.3f} is larger than {config.max_ellipticity:.3f}"
    return ""


def _groups(inputs: Sequence[InputQuality], places: Sequence[int]) -> list[list[int]]:
    groups: dict[tuple[str, int], list[int]] = {}
    for k in places:
        groups.setdefault((inputs[k].band, inputs[k].id.detector), []).append(k)
    return [groups[key] for key in sorted(groups)]


def _wanted(n: int, config: SelectInputsConfig) -> int:
    share = n if config.seeing_quantile is None else max(1, round(config.seeing_quantile * n))
    return min(share, config.best or n)
