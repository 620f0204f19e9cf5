"""What a stage says of its result: counts and medians under the stage's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from apstream.arrays.types import F32, Records
from apstream.model.cutouts import Cutouts
from apstream.model.exposures import CalExp, CharacterizedExposure, DifferenceImage, Exposure, Template
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane, planes
from apstream.tasks.detect import Detections

__all__ = ["counts", "stage_records"]

_STRIDE = 7
_UNUSABLE = planes("BAD", "SAT", "NO_DATA")


def counts(stage: str, result: Any) -> dict[str, float]:
    """Return the counts and medians of a stage's result under dotted names such as ``isr.n_saturated``."""
    return {f"{stage}.{name}": float(value) for name, value in _REPORTS[stage](result).items()}


def stage_records(metrics: Mapping[str, float], seconds: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Merge timings and metrics into one record per stage: ``{stage: {seconds: ..., name: value}}``.

    Stages stand in the order in which they ran; deeper names such as ``isr.A1.noise`` keep their dots.
    """
    records: dict[str, dict[str, float]] = {stage: {"seconds": round(spent, 6)} for stage, spent in seconds.items()}
    for name, value in metrics.items():
        stage, _, key = name.partition(".")
        records.setdefault(stage, {})[key] = float(value)
    return records


def _isr(exposure: Exposure) -> dict[str, float]:
    image = exposure.image
    return {
        "n_saturated": _count(image, "SAT"),
        "n_bad": _count(image, "BAD"),
        "median_level": _median(image.image, image),
        "median_variance": _median(image.variance, image),
    }


def _characterize(found: CharacterizedExposure) -> dict[str, float]:
    stars = found.stars
    return {
        "n_sources": len(stars),
        "n_stars": int(np.count_nonzero(stars["is_star"])),
        "n_cosmic_ray_pixels": _count(found.image, "CR"),
        "median_variance": _median(found.image.variance, found.image),
    }


def _calibrate(calexp: CalExp) -> dict[str, float]:
    return {"zero_point": calexp.photo_calib.zero_point, "n_sources": len(calexp.stars)}


def _template(template: Template) -> dict[str, float]:
    return {
        "n_inputs": len(template.inputs),
        "coverage": template.coverage,
        "median_variance": _median(template.image.variance, template.image),
    }


def _subtract(difference: DifferenceImage) -> dict[str, float]:
    return {
        "n_no_data": _count(difference.image, "NO_DATA"),
        "median_variance": _median(difference.image.variance, difference.image),
    }


def _detect(detections: Detections) -> dict[str, float]:
    snr = detections.footprints["snr"]
    return {"n_positive": int(np.count_nonzero(snr > 0)), "n_negative": int(np.count_nonzero(snr < 0))}


def _rows(rows: Records) -> dict[str, float]:
    return {"n": len(rows)}


def _cutouts(cutouts: Cutouts) -> dict[str, float]:
    return {"n": len(cutouts.y)}


def _count(image: MaskedImage, plane: str) -> int:
    return int(np.count_nonzero(image.mask & int(MaskPlane[plane])))


def _median(pixels: F32, image: MaskedImage) -> float:
    """Return the median of what is free of flags, on every seventh row and column: as good, and free."""
    sample = pixels[::_STRIDE, ::_STRIDE][(image.mask[::_STRIDE, ::_STRIDE] & _UNUSABLE) == 0]
    return float(np.median(sample)) if len(sample) else float("nan")


_REPORTS: dict[str, Callable[[Any], dict[str, float]]] = {
    "isr": _isr,
    "characterize": _characterize,
    "calibrate": _calibrate,
    "template": _template,
    "subtract": _subtract,
    "detect": _detect,
    "measure": _rows,
    "forced": _rows,
    "cutouts": _cutouts,
}
