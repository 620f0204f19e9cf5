"""Telescope, atmosphere and pointing: where a source falls and how its light spreads, visit by visit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from apstream.arrays.types import F32, F64, FloatArray
from apstream.model.wcs import SkyWcs
from apstream.simulate.config import BANDS, OpticsConfig

__all__ = ["Conditions", "FocalPlane", "draw_conditions", "header_wcs", "psf_parameters", "sky_level", "true_wcs"]

#: Moffat index of the core is 3; FWHM = 2 alpha sqrt(2^(1/3) - 1).
FWHM_PER_ALPHA = 2 * math.sqrt(2 ** (1 / 3) - 1)


@dataclass(frozen=True, slots=True)
class FocalPlane:
    """Square detectors on a grid, `gap` pixels apart, the optical axis in the middle."""

    size: int
    count: int
    gap: int = 40

    @property
    def columns(self) -> int:
        """Number of detectors along x."""
        return math.ceil(math.sqrt(self.count))

    @property
    def half_extent(self) -> tuple[float, float]:
        """Half the height and width of the whole plane, pixels."""
        rows = math.ceil(self.count / self.columns)
        pitch = self.size + self.gap
        return (rows * pitch - self.gap) / 2, (self.columns * pitch - self.gap) / 2

    def axis(self, detector: int) -> tuple[float, float]:
        """Return the pixel (y, x) of the optical axis in a detector's own frame, 0-based."""
        row, column = divmod(detector, self.columns)
        pitch, (half_y, half_x) = self.size + self.gap, self.half_extent
        return half_y - row * pitch - 0.5, half_x - column * pitch - 0.5

    def normalize(self, detector: int, y: FloatArray, x: FloatArray) -> tuple[F64, F64]:
        """Map detector pixels to the field, -1 to 1 along each side of the plane."""
        (axis_y, axis_x), (half_y, half_x) = self.axis(detector), self.half_extent
        return (np.asarray(y, float) - axis_y) / half_y, (np.asarray(x, float) - axis_x) / half_x


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """All that differs from one visit to the next."""

    visit: int
    role: str  # template or science
    band: str
    mjd_start_utc: float
    exposure_s: float
    seeing_arcsec: float
    extinction_mag: float
    sky_factor: float
    sky_slope: tuple[float, float]  # relative change over the half field, y and x
    ra: float
    dec: float
    rotation_deg: float
    header_offset_arcsec: tuple[float, float]  # ra cos dec, dec
    header_rotation_deg: float
    psf_terms: tuple[float, ...]

    @property
    def zero_point(self) -> float:
        """AB magnitude that gives one electron in the whole exposure."""
        return BANDS[self.band][0] - self.extinction_mag + 2.5 * math.log10(self.exposure_s)

    @property
    def mjd_mid_utc(self) -> float:
        """MJD UTC of the middle of the exposure."""
        return self.mjd_start_utc + self.exposure_s / 172800

    def electrons(self, flux_njy: FloatArray) -> F64:
        """Return the electrons that fluxes in nJy give in this exposure."""
        return np.asarray(flux_njy, float) * 10 ** (0.4 * (self.zero_point - 31.4))


def draw_conditions(
    rng: np.random.Generator, config: OpticsConfig, *, centre: tuple[float, float], **fixed: Any
) -> Conditions:
    """Draw a visit's seeing, pointing, transparency and sky; `fixed` holds the planned fields."""
    dither = rng.normal(0, config.dither_px, 2) * config.pixel_scale_arcsec / 3600
    angle = rng.uniform(0, 2 * np.pi)
    error = config.header_error_arcsec * rng.uniform(0.5, 1.0)
    low, high = config.seeing_arcsec
    return Conditions(
        seeing_arcsec=float(low + (high - low) * rng.beta(1.6, 2.2)),
        extinction_mag=float(config.transparency_mag * rng.beta(1, 3)),
        sky_factor=float(rng.uniform(0.9, 1.3)),
        sky_slope=tuple(config.sky_gradient * rng.normal(0, 1, 2)),
        ra=float(centre[0] + dither[0] / math.cos(math.radians(centre[1]))),
        dec=float(centre[1] + dither[1]),
        rotation_deg=float(rng.normal(0, config.rotation_deg)),
        header_offset_arcsec=(float(error * np.cos(angle)), float(error * np.sin(angle))),
        header_rotation_deg=float(rng.normal(0, 0.02 if config.header_error_arcsec else 0)),
        psf_terms=_draw_psf_terms(rng, config),
        **fixed,
    )


def _draw_psf_terms(rng: np.random.Generator, config: OpticsConfig) -> tuple[float, ...]:
    """Draw FWHM terms (y, x, r2) and ellipticity terms (1, y, x, xy or x2-y2) for e1 and e2."""
    size = config.psf_variation * np.array([0.5, 0.5, 1.0]) * rng.normal(0, 1, 3)
    size[2] = abs(size[2])
    shape = config.ellipticity * np.array([0.6, 0.4, 0.4, 0.6] * 2) * rng.normal(0, 1, 8)
    return tuple(float(term) for term in (*size, *shape))


def psf_parameters(
    conditions: Conditions, pixel_scale_arcsec: float, ty: FloatArray, tx: FloatArray
) -> tuple[F32, F32, F32]:
    """Return Moffat alpha in pixels and the shear components g1, g2 at normalised field positions."""
    t = conditions.psf_terms
    r2 = (ty**2 + tx**2) / 2
    fwhm = conditions.seeing_arcsec / pixel_scale_arcsec * (1 + t[0] * ty + t[1] * tx + t[2] * r2)
    g1 = t[3] + t[4] * ty + t[5] * tx + t[6] * (tx**2 - ty**2)
    g2 = t[7] + t[8] * ty + t[9] * tx + t[10] * 2 * tx * ty
    alpha = np.maximum(fwhm, 1.2) / FWHM_PER_ALPHA
    return alpha.astype(np.float32), g1.astype(np.float32), g2.astype(np.float32)


def sky_level(conditions: Conditions, pixel_scale_arcsec: float) -> float:
    """Return the sky in electrons per pixel at the field's centre."""
    zero_point, sky_mag = BANDS[conditions.band]
    per_s = 10 ** (0.4 * (zero_point - sky_mag)) * pixel_scale_arcsec**2
    return float(per_s * conditions.exposure_s * conditions.sky_factor)


def true_wcs(conditions: Conditions, plane: FocalPlane, detector: int, config: OpticsConfig) -> SkyWcs:
    """Return where the pixels of a detector really look: TAN with a radial SIP distortion."""
    cards = _tan_cards(conditions, plane, detector, config, rotation=conditions.rotation_deg)
    k = config.distortion / (plane.half_extent[0] ** 2 + plane.half_extent[1] ** 2)
    cards |= {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 3, "B_ORDER": 3}
    cards |= {"A_3_0": k, "A_1_2": k, "B_0_3": k, "B_2_1": k}
    return _from_cards(cards)


def header_wcs(conditions: Conditions, plane: FocalPlane, detector: int, config: OpticsConfig) -> SkyWcs:
    """Return what the telescope believes: no distortion, pointing and rotation slightly wrong."""
    angle = conditions.rotation_deg + conditions.header_rotation_deg
    cards = _tan_cards(conditions, plane, detector, config, rotation=angle)
    east, north = (offset / 3600 for offset in conditions.header_offset_arcsec)
    cards["CRVAL1"] += east / math.cos(math.radians(conditions.dec))
    cards["CRVAL2"] += north
    return _from_cards(cards)


def _tan_cards(
    conditions: Conditions, plane: FocalPlane, detector: int, config: OpticsConfig, *, rotation: float
) -> dict[str, Any]:
    y, x = plane.axis(detector)
    scale, angle = config.pixel_scale_arcsec / 3600, math.radians(rotation)
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": conditions.ra,
        "CRVAL2": conditions.dec,
        "CRPIX1": x + 1,
        "CRPIX2": y + 1,
        "CD1_1": -scale * math.cos(angle),
        "CD1_2": -scale * math.sin(angle),
        "CD2_1": -scale * math.sin(angle),
        "CD2_2": scale * math.cos(angle),
        "RADESYS": "ICRS",
    }


def _from_cards(cards: dict[str, Any]) -> SkyWcs:
    wcs = SkyWcs.from_header(cards)
    assert wcs is not None
    return wcs
