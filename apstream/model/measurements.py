"""The columns that measurements add to the sources of an image: names, units, and how they follow its scale.

Every column with `flux` among the parts of its name is in the unit of the image's pixels and is scaled with them;
that holds for measurements of a user's own too.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from apstream.arrays.types import F64, Records
from apstream.model.tablespec import Column, TableSpec

__all__ = ["MEASURED", "aperture_columns", "is_flux", "measured_columns", "scaled_measured"]

_FLUX = "flux"  # stands for the unit of the image

#: Columns of the measurements that come with the package; `flux` is the unit of the image.
MEASURED = TableSpec(
    "measured",
    "Columns that measurements add to icSrc and src, by the measurement list of the stage.",
    (
        Column("parent", "i4", "", "Number of the footprint that the source lies in, from 1.", nullable=False),
        Column("n_children", "i4", "", "Sources in that footprint; 1: it stands alone.", nullable=False),
        Column("blendedness", "f4", "", "Part of the light at the source that is its neighbours', 0 to 1."),
        Column("too_many_peaks", "?", "", "The footprint holds more peaks than are separated.", nullable=False),
        Column("peak_y", "i4", "pixel", "Row of the detected peak.", nullable=False),
        Column("peak_x", "i4", "pixel", "Column of the detected peak.", nullable=False),
        Column("peak_snr", "f4", "", "Significance of a point source at the peak."),
        Column("psf_chi2", "f4", "", "Chi square per pixel of the PSF fit."),
        Column("kron_flux", "f8", _FLUX, "Flux within 2.5 Kron radii, an ellipse."),
        Column("kron_flux_err", "f8", _FLUX, "Error of kron_flux."),
        Column("kron_radius", "f4", "pixel", "Kron radius, geometric mean of the axes."),
        Column(
            "kron_flag",
            "?",
            "",
            "Shape unknown, that of the PSF stands for it; or the ellipse leaves the image.",
            nullable=False,
        ),
        Column("iyy", "f4", "pixel2", "Adaptive second moment along y."),
        Column("ixx", "f4", "pixel2", "Adaptive second moment along x."),
        Column("iyx", "f4", "pixel2", "Adaptive mixed moment."),
        Column("shape_flag", "?", "", "The moments did not converge.", nullable=False),
        Column("psf_iyy", "f4", "pixel2", "Adaptive second moment of the PSF there along y."),
        Column("psf_ixx", "f4", "pixel2", "Adaptive second moment of the PSF there along x."),
        Column("psf_iyx", "f4", "pixel2", "Adaptive mixed moment of the PSF there."),
        Column("extendedness", "f4", "", "0: like the PSF, 1: wider than the PSF."),
        Column("local_sky_flux", "f4", _FLUX, "Background left around the source, per pixel."),
        Column("local_sky_flux_err", "f4", _FLUX, "Error of local_sky_flux."),
        Column("ra_err", "f4", "deg", "Error of right ascension, an angle on the sky."),
        Column("dec_err", "f4", "deg", "Error of declination."),
    ),
    (),
)


def aperture_columns(radius: float) -> tuple[Column, Column]:
    """Return the columns of flux and error in an aperture of `radius` pixels: ap_flux_4_5, ap_flux_err_4_5."""
    label = f"{radius:.1f}".replace(".", "_")
    return (
        Column(f"ap_flux_{label}", "f8", _FLUX, f"Flux within {radius:.1f} pixels of the centroid."),
        Column(f"ap_flux_err_{label}", "f8", _FLUX, f"Error of the flux within {radius:.1f} pixels."),
    )


def is_flux(name: str) -> bool:
    """Tell whether a column is in the unit of the image and is scaled with it."""
    return "flux" in name.split("_")


def scaled_measured(rows: Records | None, factor: float | F64) -> Records | None:
    """Return the rows of an image multiplied by `factor`, one or one for each row."""
    if rows is None:
        return None
    scaled = rows.copy()
    for name in filter(is_flux, rows.dtype.names or ()):
        scaled[name] = scaled[name] * factor
    return scaled


def measured_columns(dtype: np.dtype[np.void], names: Iterable[str], flux_unit: str) -> tuple[Column, ...]:
    """Describe columns of a structured type: those of the package as they are, others as far as names tell."""
    return tuple(_column(name, dtype[name], flux_unit) for name in names)


def _column(name: str, kind: np.dtype[np.void], flux_unit: str) -> Column:
    dtype = "?" if kind.kind == "b" else kind.str[1:]
    if name in MEASURED:
        unit, doc = MEASURED[name].unit, MEASURED[name].doc
    else:
        unit, doc = (_FLUX, "A flux.") if is_flux(name) else ("", "A measurement.")
    return Column(name, dtype, flux_unit if unit == _FLUX else unit, doc, nullable=kind.kind == "f")
