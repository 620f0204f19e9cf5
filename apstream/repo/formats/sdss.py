"""Images of the Sloan Digital Sky Survey: what their headers leave to the survey's documents.

Neither the corrected frames (``fpC``) of the early releases nor the calibrated ``frame`` files since the eighth tell
gain or variance. The tables here and the recipe are those of the survey's data model of ``frame`` files
(https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits

from apstream.arrays.types import F32
from apstream.errors import BadFile, BadHeader

__all__ = ["SdssImage", "sdss_image", "sdss_middle"]

_BANDS = "ugriz"
#: Electrons per DN, by camera column and band.
_GAIN = (
    (1.62, 3.32, 4.71, 5.165, 4.745),
    (1.595, 3.855, 4.6, 6.565, 5.155),
    (1.59, 3.845, 4.72, 4.86, 4.885),
    (1.6, 3.995, 4.76, 4.885, 4.775),
    (1.47, 4.05, 4.725, 4.64, 3.48),
    (2.17, 4.035, 4.895, 4.76, 4.69),
)
#: Read noise and dark current, DN^2; of two values for early and late runs the later.
_DARK_VARIANCE = (
    (9.61, 15.6025, 1.8225, 7.84, 0.81),
    (12.6025, 1.44, 1.0, 6.25, 1.0),
    (8.7025, 1.3225, 1.3225, 4.6225, 1.0),
    (12.6025, 1.96, 1.3225, 7.5625, 12.6025),
    (9.3025, 1.1025, 0.81, 7.84, 2.1025),
    (7.0225, 1.8225, 0.9025, 5.0625, 1.21),
)
_LATE_RUN = 1100
_SECONDS_A_DAY = 86400.0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SdssImage:
    """Pixels in DN with flat response, their variance (DN^2; None: from the pixels), and electrons per DN.

    The read noise, in electrons, is what belongs to the variance beside the photons; `unit` is one DN in the unit
    of the file.
    """

    pixels: F32
    variance: F32 | None
    gain: float
    read_noise: float
    unit: float = 1.0


def sdss_image(hdus: fits.HDUList, header: fits.Header, pixels: F32, where: str) -> SdssImage | None:
    """Return what an image of the survey holds; None for images of others.

    A ``frame`` is brought from nanomaggies to the mean scale of its calibration, so that its flat field stays.

    Raises
    ------
    BadHeader
        If camera column or filter are not the survey's.
    BadFile
        If a ``frame`` has lost its calibration or its sky.
    """
    if str(header.get("ORIGIN", "")).strip() != "SDSS" or "CAMCOL" not in header:
        return None
    gain, dark = _of_the_ccd(header, where)
    read_noise = gain * float(np.sqrt(dark))
    if str(header.get("BUNIT", "")).strip().lower().startswith("nanomagg"):
        scale, sky = _calibration(hdus, pixels.shape, where)
        mean = float(np.mean(scale))
        counts = np.maximum(pixels / scale + sky, 0)
        variance = (counts / np.float32(gain) + np.float32(dark)) * np.square(scale / np.float32(mean))
        flat = pixels / np.float32(mean)
        return SdssImage(pixels=flat, variance=variance, gain=gain, read_noise=read_noise, unit=mean)
    pedestal = np.float32(header.get("SOFTBIAS", 0))
    return SdssImage(pixels=pixels - pedestal, variance=None, gain=gain, read_noise=read_noise)


def sdss_middle(header: fits.Header, exposure_s: float) -> float | None:
    """Return the middle of the first row's exposure, MJD TAI; None for images of others."""
    if str(header.get("ORIGIN", "")).strip() != "SDSS" or "TAI" not in header:
        return None
    return (float(header["TAI"]) + exposure_s / 2) / _SECONDS_A_DAY


def _of_the_ccd(header: fits.Header, where: str) -> tuple[float, float]:
    """Return gain and dark variance of the CCD that took an image."""
    column, band = header["CAMCOL"], str(header.get("FILTER", "")).strip()
    if column not in range(1, 7) or band not in _BANDS or not band:
        raise BadHeader(
            f"CAMCOL {column!r} and FILTER {band!r} are no CCD of the SDSS camera",
            where=where,
            remedy="restore these cards (1..6 and one of u, g, r, i, z)",
        )
    place = _BANDS.index(band)
    gain = _GAIN[column - 1][place]
    if (column, band) == (2, "u") and int(header.get("RUN", 0)) > _LATE_RUN:
        gain = 1.825
    return gain, _DARK_VARIANCE[column - 1][place]


def _calibration(hdus: fits.HDUList, shape: tuple[int, ...], where: str) -> tuple[F32, F32]:
    """Return nanomaggies per DN of every column, and the sky in DN that was taken off."""
    from scipy.ndimage import map_coordinates

    try:
        scale = np.asarray(hdus[1].data, np.float32)
        table: Any = hdus[2].data
        sky, x, y = (np.asarray(table[name][0], float) for name in ("ALLSKY", "XINTERP", "YINTERP"))
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(
            f"an SDSS frame without calibration or sky: {error}",
            where=where,
            remedy="fetch the file again; the first extension is the calibration, the second the sky",
        ) from None
    if scale.shape != shape[1:] or (len(y), len(x)) != shape or not np.all(scale > 0):
        raise BadFile(
            f"calibration {scale.shape} and sky ({len(y)}, {len(x)}) do not fit the image {shape}",
            where=where,
            remedy="fetch the file again",
        )
    grid = np.meshgrid(y, x, indexing="ij")
    return scale, map_coordinates(sky, grid, order=1, mode="nearest").astype(np.float32)
