"""Measurements by name: which columns stand beside the star list, and how they are made.

A measurement is a function of a `SourceView` and the settings that returns columns by name; a user's own is named
`module:function` and may return any columns of numbers, one value per source. A column with `flux` among the parts
of its name is in the unit of the image and is scaled when the image is calibrated.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.source_sums import circle_sums, kron_sums, ring_medians
from apstream.arrays.types import Records
from apstream.errors import BadSettings
from apstream.imports import load_object
from apstream.model.measurements import MEASURED, aperture_columns
from apstream.tasks.source_view import SourceView

__all__ = ["MEASUREMENTS", "MeasureListConfig", "Measurement", "measure_listed", "measurement"]

Columns = Mapping[str, Any]


class MeasureListConfig(BaseModel):
    """What is measured of each source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = Field((), description="measurements by name, or a user's own as module:function")
    apertures_px: tuple[float, ...] = Field((3.0, 4.5, 6.0, 9.0, 12.0), description="radii of the apertures, pixels")
    extended_ratio: float = Field(1.15, gt=1, description="area over that of the PSF from which a source is extended")


Measurement = Callable[[SourceView, MeasureListConfig], Columns]


def _blend(view: SourceView, config: MeasureListConfig) -> Columns:
    names = ("parent", "n_children", "blendedness", "too_many_peaks")
    return {name: view.facts[name] if name in view.facts else _unknown(name, len(view)) for name in names}


def _peak(view: SourceView, config: MeasureListConfig) -> Columns:
    snr = view.facts.get("peak_snr", _unknown("peak_snr", len(view)))
    return {"peak_y": view.row, "peak_x": view.col, "peak_snr": snr}


def _psf(view: SourceView, config: MeasureListConfig) -> Columns:
    return {"psf_chi2": view.facts.get("psf_chi2", _unknown("psf_chi2", len(view)))}


def _apertures(view: SourceView, config: MeasureListConfig) -> Columns:
    radii = sorted(config.apertures_px)
    sums, errors = circle_sums(view.data, view.variance, view.good, y=view.y, x=view.x, radii=np.array(radii))
    out = {}
    for k, radius in enumerate(radii):
        flux, error = aperture_columns(radius)
        out[flux.name], out[error.name] = sums[:, k], errors[:, k]
    return out


def _kron(view: SourceView, config: MeasureListConfig) -> Columns:
    found = kron_sums(view.data, view.variance, view.good, y=view.y, x=view.x, shape=view.shape)
    names = ("kron_flux", "kron_flux_err", "kron_radius")
    return {
        **dict(zip(names, found.T[:3], strict=True)),
        "kron_flag": ~(found[:, 3] > 0.9) | ~view.moments["converged"],
    }


def _moments(view: SourceView, config: MeasureListConfig) -> Columns:
    m = view.moments
    return {"iyy": m["iyy"], "ixx": m["ixx"], "iyx": m["iyx"], "shape_flag": ~m["converged"]}


def _psf_shape(view: SourceView, config: MeasureListConfig) -> Columns:
    return dict(zip(("psf_iyy", "psf_ixx", "psf_iyx"), view.psf_shape.T, strict=True))


def _extendedness(view: SourceView, config: MeasureListConfig) -> Columns:
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = 2 / np.maximum(view.flux / view.flux_err, 1.0)  # of the area of a Gaussian source, relative
        wide = view.size_ratio > np.maximum(config.extended_ratio, 1 + 3 * noise)
    return {"extendedness": np.where(np.isfinite(view.size_ratio), wide, np.nan)}


def _local_sky(view: SourceView, config: MeasureListConfig) -> Columns:
    level, error = ring_medians(view.left, view.good, inner=0.55 * view.left.shape[1] / 2)
    return {"local_sky_flux": level, "local_sky_flux_err": error}


def _sky_errors(view: SourceView, config: MeasureListConfig) -> Columns:
    return {name: _unknown(name, len(view)) for name in ("ra_err", "dec_err")}  # the catalogue fills them by its WCS


#: Measurements that settings may name.
MEASUREMENTS: Mapping[str, Measurement] = {
    "apertures": _apertures,
    "blend": _blend,
    "extendedness": _extendedness,
    "kron": _kron,
    "local_sky": _local_sky,
    "moments": _moments,
    "peak": _peak,
    "psf": _psf,
    "psf_shape": _psf_shape,
    "sky_errors": _sky_errors,
}


def measurement(name: str) -> Measurement:
    """Return a measurement by name, or a user's own as ``module:function``.

    Raises
    ------
    BadSettings
        If there is none; names what there is.
    """
    if name in MEASUREMENTS:
        return MEASUREMENTS[name]
    if ":" not in name:
        near = difflib.get_close_matches(name, MEASUREMENTS, n=3) or sorted(MEASUREMENTS)
        raise BadSettings(
            f"no measurement {name!r}; there are {', '.join(sorted(MEASUREMENTS))}",
            remedy=f"did you mean {', '.join(near)}? Or give module:function",
        )
    found = load_object(name, "measurement")
    if not callable(found):
        raise BadSettings(f"measurement {name!r} is no function", remedy="name a function of (view, config)")
    return found  # type: ignore[no-any-return]


def measure_listed(view: SourceView, config: MeasureListConfig) -> Records | None:
    """Return the columns of all measurements in `config.names`, one row per source; None without any.

    Raises
    ------
    BadSettings
        If a measurement is not known, or gives columns that are no numbers or of another length.
    """
    columns: dict[str, Any] = {}
    for name in config.names:
        for column, values in measurement(name)(view, config).items():
            columns[column] = _checked(name, column, np.asarray(values), len(view))
    if not columns:
        return None
    rows = np.empty(len(view), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    return rows


def _checked(name: str, column: str, values: Any, count: int) -> Any:
    if values.shape != (count,) or values.dtype.kind not in "fiub":
        raise BadSettings(
            f"measurement {name!r} gives {column!r} of shape {values.shape} and type {values.dtype}",
            remedy=f"return one number for each of the {count} sources",
        )
    if column in MEASURED:
        return values.astype(MEASURED[column].dtype)
    return values if values.dtype.kind == "b" else values.astype(values.dtype.kind.replace("u", "i") + "8")


def _unknown(name: str, count: int) -> Any:
    return np.full(count, MEASURED[name].empty, MEASURED[name].dtype)
