"""From sky to light on a detector: the expected electrons of one visit, before the detector does anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.types import F32, F64, FloatArray, Records
from apstream.model.wcs import SkyWcs
from apstream.simulate.config import OpticsConfig
from apstream.simulate.optics import Conditions, FocalPlane, psf_parameters, sky_level, true_wcs
from apstream.simulate.render import add_points, galaxy_points
from apstream.simulate.sky import magnitude_flux, positions_at

__all__ = ["View", "paint_objects", "paint_sky"]

#: Galaxy points lie closer than this, well below the sharpest seeing.
_POINT_SPACING_ARCSEC = 0.4


@dataclass(frozen=True, slots=True)
class View:
    """One detector in one visit."""

    conditions: Conditions
    plane: FocalPlane
    detector: int
    optics: OpticsConfig
    wcs: SkyWcs

    @classmethod
    def of(cls, conditions: Conditions, plane: FocalPlane, detector: int, optics: OpticsConfig) -> View:
        """Make the view with its true WCS."""
        return cls(conditions, plane, detector, optics, true_wcs(conditions, plane, detector, optics))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the assembled detector."""
        return self.plane.size, self.plane.size

    def psf(self, y: FloatArray, x: FloatArray) -> tuple[F32, F32, F32]:
        """Return the PSF parameters at pixel positions."""
        ty, tx = self.plane.normalize(self.detector, y, x)
        return psf_parameters(self.conditions, self.optics.pixel_scale_arcsec, ty, tx)

    def add_points(
        self, image: F32, ra: FloatArray, dec: FloatArray, flux_njy: FloatArray, threshold: float = 0.001
    ) -> None:
        """Add point sources given on the sky, nJy, to an image in electrons."""
        y, x = self.wcs.sky_to_pixel(ra, dec)
        add_points(image, y, x, self.conditions.electrons(flux_njy), self.psf(y, x), threshold=threshold)


def paint_sky(view: View) -> F32:
    """Return the sky background in electrons, with its gradient."""
    ny, nx = view.shape
    ty, tx = view.plane.normalize(view.detector, np.arange(float(ny)), np.arange(float(nx)))
    slope_y, slope_x = view.conditions.sky_slope
    level = sky_level(view.conditions, view.optics.pixel_scale_arcsec)
    tilt = 1 + slope_y * ty[:, None] + slope_x * tx[None, :]
    return (level * np.maximum(tilt, 0.2)).astype(np.float32)


def paint_objects(image: F32, view: View, objects: Records) -> None:
    """Add stars and galaxies to `image` (electrons), in place."""
    ra, dec = positions_at(objects, view.conditions.mjd_mid_utc)
    flux = magnitude_flux(objects[f"mag_{view.conditions.band}"])
    star = objects["is_star"]
    view.add_points(image, ra[star], dec[star], flux[star], threshold=0.02)
    _paint_galaxies(image, view, objects[~star], ra[~star], dec[~star], view.conditions.electrons(flux[~star]))


def _paint_galaxies(image: F32, view: View, rows: Records, ra: F64, dec: F64, electrons: F64) -> None:
    y, x = view.wcs.sky_to_pixel(ra, dec)
    margin = 60.0
    inside = (y > -margin) & (y < view.shape[0] + margin) & (x > -margin) & (x < view.shape[1] + margin)
    index = np.flatnonzero(inside)
    if len(index) == 0:
        return
    jacobian = _sky_to_pixel_jacobian(view, y[index], x[index], dec[index])
    clouds = [_cloud(rows[i], jacobian[k]) for k, i in enumerate(index)]
    counts = np.array([len(c[2]) for c in clouds])
    py = np.repeat(y[index], counts) + np.concatenate([c[0] for c in clouds])
    px = np.repeat(x[index], counts) + np.concatenate([c[1] for c in clouds])
    flux = np.repeat(electrons[index], counts) * np.concatenate([c[2] for c in clouds])
    add_points(image, py, px, flux, view.psf(py, px), threshold=0.01)


def _cloud(row: np.void, jacobian: F64) -> tuple[F64, F64, F64]:
    """Return pixel offsets (dy, dx) and weights of a galaxy's points."""
    minor, major, weight = galaxy_points(row["radius_arcsec"], row["sersic"], _POINT_SPACING_ARCSEC)
    minor = minor * row["axis_ratio"]
    angle = np.deg2rad(row["angle_deg"])
    north = major * np.cos(angle) - minor * np.sin(angle)
    east = major * np.sin(angle) + minor * np.cos(angle)
    return (
        jacobian[0, 0] * east + jacobian[0, 1] * north,
        jacobian[1, 0] * east + jacobian[1, 1] * north,
        weight,
    )


def _sky_to_pixel_jacobian(view: View, y: F64, x: F64, dec: F64) -> F64:
    """Return d(y, x) / d(east, north) in pixels per arcsec, shape (n, 2, 2)."""
    step = 0.5
    scale = 3600 * np.stack([np.cos(np.deg2rad(dec)), np.ones(len(dec))])
    up, down = (np.stack(view.wcs.pixel_to_sky(y + s, x)) for s in (step, -step))
    right, left = (np.stack(view.wcs.pixel_to_sky(y, x + s)) for s in (step, -step))
    d_y, d_x = ((a - b + 180) % 360 - 180 for a, b in ((up, down), (right, left)))
    forward = np.stack([d_y * scale, d_x * scale], axis=-1)  # (2 sky, n, 2 pixel)
    return np.linalg.inv(np.moveaxis(forward, 0, 1))
