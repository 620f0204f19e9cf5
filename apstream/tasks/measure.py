"""Measure every detection of a difference image: one row of `columns.DIA_SOURCE` each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.adaptive import adaptive_moments
from apstream.arrays.photometry import aperture_fluxes, fit_points, without_gain
from apstream.arrays.stamps import psf_stamps
from apstream.arrays.types import F64, Records
from apstream.model.columns import DIA_SOURCE
from apstream.model.exposures import CalExp, CharacterizedExposure, DifferenceImage, Template, sky_positions
from apstream.model.ids import pack_source_ids
from apstream.tasks.cutouts import local_cd
from apstream.tasks.detect import Detections
from apstream.tasks.flags import fill_pixel_flags
from apstream.tasks.measure_models import DipoleRules, fill_dipoles, fill_trails
from apstream.tasks.measure_quality import fill_bright_stars, fill_reliability
from apstream.tasks.stamps import LEAST_COVERAGE, PointStamps, cut_points

__all__ = ["MeasureConfig", "measure"]


class MeasureConfig(BaseModel):
    """How detections are measured and classified."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit_half_fwhm: float = Field(2.5, gt=0.5, le=6, description="Half side of the fitted square, in FWHM.")
    max_shift_fwhm: float = Field(
        1.0, gt=0, le=5, description="A centroid farther than this from the peak has failed, in FWHM."
    )
    aperture_radius_px: float = Field(12.0, gt=1, le=40, description="Radius of apFlux in pixels.")
    extended_ratio: float = Field(1.4, gt=1, description="Area over that of the PSF from which a source is extended.")
    dipole_min_snr: float = Field(7.07, gt=0, description="Least significance of a dipole.")
    dipole_max_flux_ratio: float = Field(
        0.65, ge=0.5, lt=1, description="Largest part of a dipole's flux in one of its lobes."
    )
    dipole_max_separation_sigma: float = Field(
        5.0, gt=0, description="Largest distance of the lobes, in Gaussian widths of the PSF."
    )
    trail_min_snr: float = Field(7.0, gt=0, description="Least significance of a detection fitted as a trail.")
    max_trails: int = Field(40, ge=0, description="Trails fitted in one image, the most significant first.")
    star_reach_fwhm: float = Field(
        4.0, gt=0, le=20, description="Reach of the wings of bright stars, in FWHM; see isBrightStarResidual."
    )
    star_fraction: float = Field(
        0.03, ge=0, lt=1, description="A residual within a FWHM has less than this part of its star's flux."
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """What every later step needs: stamps, point fits (absolute y, x) and the local WCS."""

    stamps: PointStamps
    points: Records
    y: F64
    x: F64
    cd: F64  # arcsec per pixel
    sign: F64
    half: int
    fwhm: float


@dataclass(frozen=True, slots=True, eq=False)
class _Direct:
    """Point-source fluxes on the two images that were subtracted, both on the scale of the science image."""

    science: CalExp | CharacterizedExposure
    template: Template
    difference: DifferenceImage
    half: int

    def on_science(self, y: F64, x: F64) -> tuple[PointStamps, Records]:
        stamps = cut_points(self.science.image, self.science.psf, y, x, side=2 * self.half + 1)
        return stamps, stamps.fluxes(y, x, half=self.half)

    def on_template(self, y: F64, x: F64) -> tuple[F64, F64]:
        stamps = cut_points(self.template.image, self.template.psf, y, x, side=2 * self.half + 1)
        fits, scale = stamps.fluxes(y, x, half=self.half), _template_scale(self.difference, y, x)
        return fits["flux"] * scale, fits["flux_err"] * scale

    def __call__(self, y: F64, x: F64) -> tuple[F64, F64, F64, F64]:
        fits = self.on_science(y, x)[1]
        return fits["flux"], fits["flux_err"], *self.on_template(y, x)


def measure(
    detections: Detections,
    difference: DifferenceImage,
    science: CalExp | CharacterizedExposure,
    template: Template,
    config: MeasureConfig,
) -> Records:
    """Measure all detections.

    Parameters
    ----------
    detections
        Result of `detect`; its image (variance rescaled, background flat) is the one measured.
    difference
        The difference image that was searched.
    science, template
        For the direct fluxes; both background-subtracted.

    Returns
    -------
    ndarray
        Rows of `columns.DIA_SOURCE` in the order of the detections (decreasing significance), which gives
        their ids. Fluxes are in the unit of the images. Angles and moments on the sky are NaN without a
        WCS. diaObjectId and timeProcessedMjdTai stay empty.
    """
    rows = DIA_SOURCE.empty(len(detections))
    _fill_identity(rows, difference)
    if len(rows) == 0:
        return rows
    fitted = _fit(detections, config)
    _fill_points(rows, fitted, detections, config)
    direct = _Direct(science, template, detections.difference, fitted.half)
    fitted = _fill_dipoles(rows, fitted, detections, direct, config)
    _fill_direct(rows, fitted, direct)
    _fill_aperture(rows, fitted, config)
    _fill_shapes(rows, fitted, detections.difference, config)
    _fill_positions(rows, fitted, detections.difference)
    _fill_judgement(rows, fitted, detections, (science, template), config)
    return rows


def _fill_identity(rows: Records, difference: DifferenceImage) -> None:
    info = difference.info
    rows["diaSourceId"] = pack_source_ids(info.id.visit, info.id.detector, len(rows))
    rows["visit"], rows["detector"], rows["band"] = info.id.visit, info.id.detector, info.band
    rows["midpointMjdTai"], rows["exposureTime"] = info.mid_mjd_tai, info.exposure_s


def _fit(detections: Detections, config: MeasureConfig) -> _Fitted:
    difference, prints = detections.difference, detections.footprints
    fwhm = difference.psf.fwhm()
    half = min(int(np.ceil(config.fit_half_fwhm * fwhm)), difference.psf.shape[0] // 2)
    reach = max(half, int(np.ceil(config.aperture_radius_px)) + 1)
    y = prints["y"] + float(difference.box.y0)
    x = prints["x"] + float(difference.box.x0)
    stamps = cut_points(
        difference.image,
        difference.psf,
        y,
        x,
        side=2 * reach + 1,
        labels=detections.labels,
        own=prints["label"],
    )
    points = fit_points(
        stamps.data,
        stamps.variance,
        stamps.good,
        stamps.psfs,
        half=half,
        max_shift=config.max_shift_fwhm * fwhm,
    )
    free = points["converged"]
    points["flux"][free] = without_gain(points["flux"][free], points["flux_err"][free])
    y, x = y + points["y"], x + points["x"]
    cd = local_cd(difference.wcs, y, x) * 3600
    return _Fitted(stamps, points, y, x, cd, np.sign(prints["snr"]).astype(float), half, fwhm)


def _fill_points(rows: Records, fitted: _Fitted, detections: Detections, config: MeasureConfig) -> None:
    points, prints = fitted.points, detections.footprints
    rows["snr"], rows["isNegative"] = np.abs(prints["snr"]), prints["snr"] < 0
    rows["psfFlux"], rows["psfFluxErr"] = points["flux"], points["flux_err"]
    rows["psfLnL"], rows["psfChi2"], rows["psfNdata"] = points["log_like"], points["chi2"], points["n_data"]
    rows["centroid_flag"] = ~points["converged"]
    rows["psfFlux_flag_noGoodPixels"] = points["coverage"] < LEAST_COVERAGE
    rows["psfFlux_flag_edge"] = fitted.stamps.touches_edge(fitted.half)
    rows["psfFlux_flag"] = ~np.isfinite(points["flux"]) | rows["psfFlux_flag_noGoodPixels"]
    height = prints["y1"] - prints["y0"]
    rows["bboxSize"] = np.maximum(height, prints["x1"] - prints["x0"])


def _fill_dipoles(
    rows: Records, fitted: _Fitted, detections: Detections, direct: _Direct, config: MeasureConfig
) -> _Fitted:
    """Fit dipoles and move theirs to the middle between the lobes, where psfFlux is the net change."""
    rules = DipoleRules(
        min_snr=config.dipole_min_snr,
        max_flux_ratio=config.dipole_max_flux_ratio,
        max_separation=config.dipole_max_separation_sigma * fitted.fwhm / 2.3548,
    )
    index, centers = fill_dipoles(rows, fitted.stamps, detections, rules, direct, half=fitted.half)
    if len(index) == 0:
        return fitted
    y, x, points = fitted.y.copy(), fitted.x.copy(), fitted.points.copy()
    y[index], x[index] = centers[:, 0], centers[:, 1]
    points["y_err"][index], points["x_err"][index], points["yx_cov"][index] = centers[:, 2], centers[:, 3], 0
    net = fitted.stamps.fluxes(y, x, half=fitted.half)
    for name in ("flux", "flux_err", "chi2", "log_like"):
        points[name][index] = net[name][index]
    rows["centroid_flag"][index] = False
    rows["psfFlux"][index], rows["psfFluxErr"][index] = points["flux"][index], points["flux_err"][index]
    rows["psfChi2"][index], rows["psfLnL"][index] = points["chi2"][index], points["log_like"][index]
    cd = local_cd(detections.difference.wcs, y, x) * 3600
    return replace(fitted, points=points, y=y, x=x, cd=cd)


def _fill_judgement(
    rows: Records,
    fitted: _Fitted,
    detections: Detections,
    images: tuple[CalExp | CharacterizedExposure, Template],
    config: MeasureConfig,
) -> None:
    fill_pixel_flags(rows, detections, images[1])
    fill_bright_stars(
        rows, images[0], fwhm=fitted.fwhm, half=fitted.half,
        reach_fwhm=config.star_reach_fwhm, fraction=config.star_fraction,
    )  # fmt: skip
    fill_trails(rows, detections, fwhm=fitted.fwhm, min_snr=config.trail_min_snr, max_trails=config.max_trails)
    fill_reliability(rows)


def _fill_aperture(rows: Records, fitted: _Fitted, config: MeasureConfig) -> None:
    stamps, radius = fitted.stamps, config.aperture_radius_px
    flux, error, coverage = aperture_fluxes(
        stamps.data, stamps.variance, stamps.good, y=fitted.y - stamps.y, x=fitted.x - stamps.x, radius=radius
    )
    rows["apFlux"], rows["apFluxErr"] = flux, error
    rows["apFlux_flag_apertureTruncated"] = stamps.touches_edge(int(np.ceil(radius)))
    rows["apFlux_flag"] = (coverage < LEAST_COVERAGE) | ~np.isfinite(flux)


def _fill_shapes(rows: Records, fitted: _Fitted, difference: DifferenceImage, config: MeasureConfig) -> None:
    stamps, points = fitted.stamps, fitted.points
    y, x = fitted.y - stamps.y, fitted.x - stamps.x
    start = np.full(len(rows), (fitted.fwhm / 2.3548) ** 2)
    kernels = psf_stamps(difference.psf.basis, *difference.psf.box.normalize(fitted.y, fitted.x))
    zero = np.zeros(len(rows))
    psf = adaptive_moments(kernels, np.ones(kernels.shape, bool), y=zero, x=zero, start=start)
    shape = adaptive_moments(stamps.data, stamps.good, y=y, x=x, sign=fitted.sign, start=start)
    cd = fitted.cd
    scale = np.abs(cd[:, 0, 0] * cd[:, 1, 1] - cd[:, 0, 1] * cd[:, 1, 0])  # arcsec^2 per pixel^2
    for name, source in (("ixx", "ixx"), ("iyy", "iyy"), ("ixy", "iyx")):
        rows[name], rows[f"{name}PSF"] = shape[source] * scale, psf[source] * scale
    gone = np.hypot(shape["y"] - y, shape["x"] - x) > fitted.fwhm
    rows["shape_flag_no_pixels"] = points["n_data"] == 0
    rows["shape_flag_not_contained"] = gone & shape["converged"]
    rows["shape_flag"] = ~shape["converged"] | gone
    area, psf_area = shape["ixx"] + shape["iyy"], psf["ixx"] + psf["iyy"]
    noise = 2 * area / np.maximum(rows["snr"], 1)  # of the trace of a Gaussian source
    wide = area > np.maximum(config.extended_ratio * psf_area, psf_area + 3 * noise)
    rows["extendedness"] = np.where(rows["shape_flag"], np.nan, wide)


def _fill_direct(rows: Records, fitted: _Fitted, direct: _Direct) -> None:
    stamps, fits = direct.on_science(fitted.y, fitted.x)
    rows["scienceFlux"], rows["scienceFluxErr"] = fits["flux"], fits["flux_err"]
    rows["forced_PsfFlux_flag_edge"] = stamps.touches_edge(fitted.half)
    rows["forced_PsfFlux_flag_noGoodPixels"] = fits["coverage"] < LEAST_COVERAGE
    rows["forced_PsfFlux_flag"] = ~np.isfinite(fits["flux"])
    rows["templateFlux"], rows["templateFluxErr"] = direct.on_template(fitted.y, fitted.x)


def _template_scale(difference: DifferenceImage, y: F64, x: F64) -> F64:
    """Return the flux scale of the template to the science image: the sum of the matching kernel there."""
    if difference.convolved != "template":
        return np.ones(len(y))
    return np.array([difference.kernel.at(a, b).sum() for a, b in zip(y, x, strict=True)])


def _fill_positions(rows: Records, fitted: _Fitted, difference: DifferenceImage) -> None:
    points, cd = fitted.points, fitted.cd / 3600
    rows["y"], rows["x"] = fitted.y, fitted.x
    rows["yErr"], rows["xErr"] = points["y_err"], points["x_err"]
    rows["ra"], rows["dec"] = sky_positions(difference.wcs, fitted.y, fitted.x)
    pixel = np.empty((len(rows), 2, 2))
    pixel[:, 0, 0], pixel[:, 1, 1] = points["x_err"] ** 2, points["y_err"] ** 2
    pixel[:, 0, 1] = pixel[:, 1, 0] = points["yx_cov"]
    sky = cd @ pixel @ cd.transpose(0, 2, 1)
    rows["raErr"], rows["decErr"] = np.sqrt(sky[:, 0, 0]), np.sqrt(sky[:, 1, 1])
    rows["ra_dec_Cov"] = sky[:, 0, 1]
