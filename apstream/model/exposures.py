"""The exposures, one type per stage: the type proves that the stage ran."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apstream.arrays.types import F32, F64, FloatArray, IntArray, Records
from apstream.model.detector import Detector
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf, PsfPart
from apstream.model.wcs import SkyWcs

__all__ = [
    "STAR_DTYPE",
    "Background",
    "CalExp",
    "CharacterizedExposure",
    "DifferenceImage",
    "Exposure",
    "ExposureInfo",
    "MatchingKernel",
    "RawExposure",
    "Template",
    "scaled_stars",
    "sky_positions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureInfo:
    """What is known of an exposure beside its pixels.

    Times are MJD TAI of the middle of the exposure; ra, dec are the pointing of the detector's centre
    where the camera knows it, ICRS degrees, NaN where not.
    """

    id: VisitDetector
    band: str
    physical_filter: str
    mid_mjd_tai: float
    exposure_s: float
    ra: float = float("nan")
    dec: float = float("nan")
    object_name: str = ""
    observation_type: str = "science"
    origin: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RawExposure:
    """A raw detector array in ADU, as read; `wcs` is the header's first guess.

    Parameters
    ----------
    variance : ndarray, shape of `pixels`, or None
        ADU^2, where it came with the frame; not positive or not finite where it is not known.
    mask : ndarray, shape of `pixels`, int32, or None
        Bits of `MaskPlane`, where a mask came with the frame.
    """

    pixels: F32
    detector: Detector
    info: ExposureInfo
    wcs: SkyWcs | None
    header: dict[str, Any] = field(default_factory=dict)
    variance: F32 | None = None
    mask: IntArray | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Exposure:
    """An image whose instrument signature is removed, in electrons (or the unit it came in).

    `psf` is the one that came with the image, if any did.
    """

    image: MaskedImage
    info: ExposureInfo
    wcs: SkyWcs | None
    metrics: dict[str, float] = field(default_factory=dict)
    psf: Psf | None = None

    @property
    def box(self) -> Box:
        """Box of the pixels."""
        return self.image.box


#: Columns of the star lists made by characterization: 0-based absolute pixels, instrumental units.
STAR_DTYPE = np.dtype(
    [
        ("y", "f8"),
        ("x", "f8"),
        ("y_err", "f4"),
        ("x_err", "f4"),
        ("flux", "f8"),  # PSF flux, of a PSF that sums to one: the scale of the zero point
        ("flux_err", "f8"),
        ("ap_flux", "f8"),  # flux in the aperture of the aperture correction
        ("ap_flux_err", "f8"),
        ("fwhm", "f4"),  # pixels
        ("ellipticity", "f4"),
        ("peak", "f4"),
        ("is_star", "?"),  # on the stellar locus
        ("psf_used", "?"),  # shaped the PSF model
        ("saturated", "?"),
        ("blended", "?"),
        ("flagged", "?"),  # any of BAD, CR, EDGE, NO_DATA, STREAK near the centre
    ]
)


#: Columns of STAR_DTYPE in the unit of the image's pixels.
_FLUX_COLUMNS = ("flux", "flux_err", "ap_flux", "ap_flux_err", "peak")


def scaled_stars(stars: Records, factor: float | F64) -> Records:
    """Return rows of STAR_DTYPE whose fluxes follow an image multiplied by `factor`, one or one for each row."""
    scaled = stars.copy()
    for column in _FLUX_COLUMNS:
        scaled[column] = scaled[column] * factor
    return scaled


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """A background mesh: values at the centres of the cells of `box`, evaluated by spline."""

    mesh: F32
    rms: F32
    box: Box
    cell: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CharacterizedExposure:
    """A background-subtracted exposure with its PSF, sources and aperture correction.

    Parameters
    ----------
    measured : ndarray, shape of `stars`, or None
        What else was measured of each source, see `model.measurements`.
    """

    image: MaskedImage
    info: ExposureInfo
    wcs: SkyWcs | None
    psf: Psf
    background: Background
    stars: Records
    aperture_correction: float
    metrics: dict[str, float] = field(default_factory=dict)
    measured: Records | None = None

    def __post_init__(self) -> None:
        _require_rows(self.stars, self.measured)

    @property
    def box(self) -> Box:
        """Box of the pixels."""
        return self.image.box


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CalExp:
    """A calibrated exposure: pixels in nJy, with PSF, WCS and photometric calibration.

    Parameters
    ----------
    measured : ndarray, shape of `stars`, or None
        What else was measured of each source, fluxes in nJy.
    psf_parts
        Of a coadd or warp whose PSF changes by steps: what every exposure gives to it; `psf` is smooth.
    """

    image: MaskedImage
    info: ExposureInfo
    psf: Psf
    wcs: SkyWcs
    photo_calib: PhotoCalib
    stars: Records
    metrics: dict[str, float] = field(default_factory=dict)
    measured: Records | None = None
    psf_parts: tuple[PsfPart, ...] = ()

    def __post_init__(self) -> None:
        if self.image.unit != "nJy":
            raise ValueError(f"a CalExp is in nJy, not {self.image.unit}")
        _require_rows(self.stars, self.measured)

    @property
    def box(self) -> Box:
        """Box of the pixels."""
        return self.image.box


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Template:
    """A template on the pixel grid of the science image; NO_DATA where it does not reach."""

    image: MaskedImage
    psf: Psf
    inputs: tuple[str, ...]
    coverage: float

    @property
    def box(self) -> Box:
        """Box of the pixels."""
        return self.image.box


@dataclass(frozen=True, slots=True, eq=False)
class MatchingKernel:
    """Spatially varying matching kernel and differential background.

    K(y, x) = sum over k of (sum over t of coefficients[k, t] T_t(y, x)) basis[k], and
    background(y, x) = sum over t of background[t] T_t(y, x), T the polynomial terms on `box`.
    """

    basis: F64  # (n_basis, h, w)
    coefficients: F64  # (n_basis, n_spatial)
    background: F64  # (n_background,)
    box: Box

    def at(self, y: float, x: float) -> F64:
        """Return the kernel at an absolute position, not normalised."""
        from apstream.arrays.polynomial import degree_of, poly_terms

        ty, tx = self.box.normalize(y, x)
        weights = self.coefficients @ poly_terms(ty, tx, degree_of(self.coefficients.shape[1]))
        return np.asarray(np.tensordot(weights, self.basis, axes=(0, 0)))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DifferenceImage:
    """Science minus matched template, whitened, on the science grid, with its own PSF.

    `convolved` says which image was convolved, ``template`` or ``science``.
    """

    image: MaskedImage
    info: ExposureInfo
    psf: Psf
    wcs: SkyWcs | None
    kernel: MatchingKernel
    matched_template: F32
    convolved: str
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def box(self) -> Box:
        """Box of the pixels."""
        return self.image.box


def _require_rows(stars: Records, measured: Records | None) -> None:
    if stars.dtype != STAR_DTYPE:
        raise ValueError(f"stars must have STAR_DTYPE, not {stars.dtype}")
    if measured is not None and len(measured) != len(stars):
        raise ValueError(f"{len(measured)} rows of measurements for {len(stars)} sources")


def sky_positions(wcs: SkyWcs | None, y: FloatArray, x: FloatArray) -> tuple[F64, F64]:
    """Return (ra, dec); NaN without a WCS."""
    if wcs is None:
        return np.full(len(y), np.nan), np.full(len(y), np.nan)
    return wcs.pixel_to_sky(y, x)
