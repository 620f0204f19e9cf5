"""Find all sources of a characterized exposure, for astrometry and photometry and for the catalogue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.masks import mark, usable_planes
from apstream.arrays.types import F32, Records
from apstream.model.exposures import Background, CharacterizedExposure
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.measurements import MEASURED
from apstream.model.psf import Psf
from apstream.tasks.deblend import DeblendConfig, deblend
from apstream.tasks.measure_list import MeasureListConfig
from apstream.tasks.source_peaks import Peaks, Pixels, find_source_peaks, subtract_remaining_sky
from apstream.tasks.source_rows import measured_rows

__all__ = ["FindSourcesConfig", "find_sources"]

_UNUSABLE = int(MaskPlane.BAD | MaskPlane.SAT | MaskPlane.NO_DATA)
_FAINTEST = 3.0  # a source that ends below this S/N, its neighbours fitted with it, was light of theirs


#: What is measured of all sources before calibration.
FULL = (
    "blend", "peak", "psf", "apertures", "kron", "moments", "psf_shape", "extendedness", "local_sky", "sky_errors",
)  # fmt: skip


class FindSourcesConfig(BaseModel):
    """Settings of `find_sources`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(1, ge=1, le=10, description="rounds of detection and background")
    detect_sigma: float = Field(5.0, gt=0, description="detection threshold, sigma of a point source")
    mask_sigma: float = Field(2.5, gt=0, description="what is above it is masked while the sky is measured again")
    max_sources: int = Field(100000, ge=1, description="most sources measured, the most significant")
    deblend: DeblendConfig = Field(DeblendConfig(), description="how overlapping sources are told apart")
    measure: MeasureListConfig = Field(
        MeasureListConfig(names=FULL), description="what is measured beside the star list"
    )
    aperture_fwhm: float = Field(3.0, gt=0, description="radius of the aperture ap_flux of the star list, FWHM")


def find_sources(char: CharacterizedExposure, config: FindSourcesConfig | None) -> CharacterizedExposure:
    """Detect all sources, measure the sky again without them, tell overlapping ones apart, and measure.

    Parameters
    ----------
    char
        The exposure with its PSF, which is the filter of the detection.
    config
        None: the exposure is returned as it is, with the stars of characterization.

    Returns
    -------
    CharacterizedExposure
        The pixels differ by the correction of the sky alone, which is added to `background`; DETECTED is set on
        sources; `stars` and `measured` are new. Where not a single source is found, `char` is returned.
    """
    if config is None:
        return char
    pixels = _begin(char)
    mesh = np.zeros_like(char.background.mesh)
    for _ in range(config.iterations):
        peaks = find_source_peaks(
            pixels, n_sigma=config.detect_sigma, max_peaks=config.deblend.max_peaks, mask_sigma=config.mask_sigma
        )
        mesh += subtract_remaining_sky(pixels, peaks.covered, cell=char.background.cell)
    if not len(peaks.y):
        return char
    brightest = slice(0, config.max_sources)
    start = peaks.y[brightest], peaks.x[brightest], peaks.flux[brightest]
    sources = deblend(pixels.image, pixels.variance, pixels.psf, start, fwhm=pixels.fwhm, config=config.deblend)
    with np.errstate(invalid="ignore"):
        sources.keep(sources.flux > _FAINTEST * sources.flux_err)
    if not len(sources):
        return char
    stars, measured = measured_rows(
        char, pixels, sources, peaks, config.measure,
        aperture_fwhm=config.aperture_fwhm, divide=config.deblend.templates,
    )  # fmt: skip
    return _finish(char, pixels, peaks, mesh, *_with_saturated(char.stars, stars, measured, pixels.fwhm))


def _with_saturated(
    old: Records, stars: Records, measured: Records | None, fwhm: float
) -> tuple[Records, Records | None]:
    """Add the saturated stars of characterization that have no usable core to be found by; nothing is measured of them.

    What lies around them is told from real sources by their places.
    """
    from scipy.spatial import cKDTree

    lost = old[old["saturated"]]
    if not len(lost):
        return stars, measured
    gap = cKDTree(np.column_stack([stars["y"], stars["x"]])).query(np.column_stack([lost["y"], lost["x"]]))[0]
    lost = lost[gap > fwhm]
    if measured is None:
        return np.concatenate([stars, lost]), None
    empty = np.zeros(len(lost), measured.dtype)
    for name in measured.dtype.names or ():
        unknown = np.nan if measured.dtype[name].kind == "f" else 0
        empty[name] = MEASURED[name].empty if name in MEASURED else unknown
    return np.concatenate([stars, lost]), np.concatenate([measured, empty])


def _begin(char: CharacterizedExposure) -> Pixels:
    given = char.image
    data, variance, mask = usable_planes(
        given.image, given.variance, given.mask, bits=_UNUSABLE, no_data=int(MaskPlane.NO_DATA)
    )
    ny, nx = data.shape
    psf = Psf(char.psf.basis, Box(0, 0, ny, nx)) if char.psf.box == char.box else _moved(char.psf, char.box)
    return Pixels(data, variance, given.variance, mask, psf, char.psf.fwhm())


def _moved(psf: Psf, box: Box) -> Psf:
    """Return the PSF in array coordinates of an image at `box`."""
    return Psf(psf.basis, Box(psf.box.y0 - box.y0, psf.box.x0 - box.x0, psf.box.y1 - box.y0, psf.box.x1 - box.x0))


def _finish(
    char: CharacterizedExposure, pixels: Pixels, peaks: Peaks, mesh: F32, stars: Records, measured: Records | None
) -> CharacterizedExposure:
    mask = mark(pixels.mask, peaks.covered, int(MaskPlane.DETECTED))
    old = char.background
    metrics = {
        "find_sources.n_sources": float(len(stars)),
        "find_sources.n_stars": float(np.count_nonzero(stars["is_star"])),
        "find_sources.noise_scale": peaks.noise,
        "find_sources.covered_fraction": np.count_nonzero(peaks.covered) / peaks.covered.size,
        "find_sources.sky_correction": float(np.median(mesh)),
    }
    return replace(
        char,
        image=MaskedImage.make(pixels.image, mask, char.image.variance, char.image.unit, char.box),
        background=Background(old.mesh + mesh, old.rms, old.box, old.cell),
        stars=stars,
        measured=measured,
        metrics={**char.metrics, **metrics},
    )
