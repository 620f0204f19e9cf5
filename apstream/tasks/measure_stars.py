"""What is measured of the stars of characterization beside the star list: the short list of that stage."""

from __future__ import annotations

import numpy as np

from apstream.arrays.polynomial import poly_terms
from apstream.arrays.psf import psf_stamps
from apstream.arrays.stamps import gather_stamps, stamp_corners
from apstream.arrays.types import Records
from apstream.model.image import MaskedImage
from apstream.model.psf import Psf
from apstream.tasks.measure_list import MeasureListConfig, measure_listed
from apstream.tasks.source_view import SourceView, psf_moments

__all__ = ["measure_stars"]

_CHUNK = 4096


def measure_stars(pixels: MaskedImage, psf: Psf, stars: Records, config: MeasureListConfig) -> Records | None:
    """Return what `config` lists, one row for each of `stars`; None for an empty list.

    Unlike before calibration, neighbours are not told apart: their light is in the measurements.

    Parameters
    ----------
    pixels
        Sky-subtracted, without NaN; variance NaN where a pixel must not be used.
    psf
        Its box is that of the array.
    stars
        Rows of `STAR_DTYPE`, array coordinates.

    Raises
    ------
    BadSettings
        If a measurement is not known or gives no numbers.
    """
    if not config.names or not len(stars):
        return None
    fwhm, shapes = psf.fwhm(), psf_moments(psf, stars["y"], stars["x"])
    side = 2 * int(np.ceil(max((*config.apertures_px, 2.5 * fwhm)) + 1)) + 1
    parts = [
        measure_listed(_view(pixels, psf, stars[rows], shapes[rows], (side, fwhm)), config)
        for rows in (slice(first, first + _CHUNK) for first in range(0, len(stars), _CHUNK))
    ]
    return np.concatenate([part for part in parts if part is not None])


def _view(pixels: MaskedImage, psf: Psf, stars: Records, shapes: np.ndarray, size: tuple[int, float]) -> SourceView:
    side, fwhm = size
    y, x = (np.asarray(stars[name], float) for name in ("y", "x"))
    corners = stamp_corners(y, x, side)
    data = gather_stamps(pixels.image, *corners, side=side, fill=0.0)
    variance = gather_stamps(pixels.variance, *corners, side=side, fill=np.nan)
    good = variance > 0
    terms = np.ascontiguousarray(poly_terms(*psf.box.normalize(y, x), psf.degree).T)
    cube = psf_stamps(psf.basis, terms, y=y, x=x)
    left, n = data.copy(), min(side, cube.shape[1])
    a, b = (side - n) // 2, (cube.shape[1] - n) // 2
    left[:, a : a + n, a : a + n] -= cube[:, b : b + n, b : b + n] * stars["flux"][:, None, None].astype(np.float32)
    row, col = corners[0] + side // 2, corners[1] + side // 2
    return SourceView(
        data=data, variance=np.where(good, variance, np.float32(1)), good=good, left=left, y=y - row, x=x - col,
        row=row + pixels.box.y0, col=col + pixels.box.x0, flux=stars["flux"], flux_err=stars["flux_err"],
        psf_shape=shapes, fwhm=fwhm,
    )  # fmt: skip
