"""The inputs of coadds: calibrated exposures known by what they say without their pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np

from apstream.errors import BadSettings
from apstream.model.exposures import CalExp, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.products import SkyCircle
from apstream.model.psf import Psf
from apstream.model.skymap import SkyMap
from apstream.model.summary import CalExpSummary
from apstream.model.wcs import SkyWcs, separation
from apstream.tasks.match_warp import widest_fwhm
from apstream.tasks.select_inputs import InputQuality, psf_ellipticity
from apstream.tasks.warped_input import mean_variance

__all__ = ["CoaddInput", "covering_skymap", "under_patches", "values_of"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CoaddInput:
    """A calexp that is opened when its pixels are needed.

    Parameters
    ----------
    about
        What it says without its pixels.
    read
        Returns at least the pixels of a box.
    weigh
        Returns 1 / mean variance; NoGoodPixels if no pixel has a positive one.
    fwhm_arcsec, widest_arcsec
        Width of its PSF in the middle, and the largest.
    """

    about: CalExpSummary
    read: Callable[[Box], MaskedImage]
    weigh: Callable[[], float]
    fwhm_arcsec: float
    widest_arcsec: float

    @classmethod
    def of(cls, calexp: CalExp, read: Callable[[Box], MaskedImage] | None = None) -> CoaddInput:
        """Take an exposure that is in memory; its pixels are kept only if there is no way to read them again."""
        image = calexp.image
        weight = cache(lambda: 1 / mean_variance(image))
        return cls.deferred(CalExpSummary.of(calexp), read or (lambda box: image), weight)

    @classmethod
    def deferred(
        cls, about: CalExpSummary, read: Callable[[Box], MaskedImage], weigh: Callable[[], float]
    ) -> CoaddInput:
        """Refer to an exposure whose pixels `read` and `weigh` will open."""
        scale = about.wcs.pixel_scale_arcsec
        return cls(
            about=about,
            read=read,
            weigh=weigh,
            fwhm_arcsec=about.psf.fwhm() * scale,
            widest_arcsec=widest_fwhm(about.psf) * scale,
        )

    @property
    def info(self) -> ExposureInfo:
        """Time, band and ids."""
        return self.about.info

    @property
    def psf(self) -> Psf:
        """Its PSF."""
        return self.about.psf

    @property
    def wcs(self) -> SkyWcs:
        """Its WCS."""
        return self.about.wcs

    @property
    def box(self) -> Box:
        """Box of its pixels."""
        return self.about.box

    @property
    def relative(self) -> bool:
        """Whether its fluxes are on the scale of an image instead of nJy."""
        return self.about.photo_calib.relative

    @property
    def order(self) -> tuple[str, int, int]:
        """What breaks ties."""
        return self.info.id.instrument, self.info.id.visit, self.info.id.detector

    def quality(self) -> InputQuality:
        """Return what its selection goes by."""
        return InputQuality(
            id=self.info.id,
            band=self.info.band,
            fwhm_arcsec=self.fwhm_arcsec,
            ellipticity=psf_ellipticity(self.psf),
        )


def covering_skymap(
    inputs: Sequence[CoaddInput], *, patch_size: int, border: int, pixel_scale_arcsec: float | None = None
) -> SkyMap:
    """Return a sky map around all inputs, with pixels of their median size unless told otherwise."""
    ra, dec, radius = _circle_around([SkyCircle(*item.wcs.circle(item.box)) for item in inputs])
    scale = pixel_scale_arcsec or float(np.median([item.wcs.pixel_scale_arcsec for item in inputs]))
    return SkyMap.covering(ra, dec, radius, pixel_scale_arcsec=scale, patch_size=patch_size, border=border)


def under_patches(inputs: Sequence[CoaddInput], skymap: SkyMap) -> dict[tuple[int, int], list[CoaddInput]]:
    """Return, by tract and patch in order, the inputs that lie on it by their outlines, in their order."""
    found: dict[tuple[int, int], list[CoaddInput]] = {}
    for item in inputs:
        for place in skymap.patches_under(item.wcs, item.box):
            found.setdefault(place, []).append(item)
    return {place: found[place] for place in sorted(found)}


def values_of(names: Sequence[str], about: Sequence[CalExpSummary]) -> dict[str, list[Any]]:
    """Return, by name, what is known of every exposure: of its info, or a metric by its name or the last word of it.

    Raises
    ------
    BadSettings
        If an exposure lacks one; the message names those there are.
    """
    return {name: [_value(name, one) for one in about] for name in names}


def _value(name: str, about: CalExpSummary) -> Any:
    known = {key.rsplit(".", 1)[-1]: value for key, value in about.metrics.items()}
    known |= {field.name: getattr(about.info, field.name) for field in fields(about.info)} | about.metrics
    if name not in known:
        raise BadSettings(
            f"nothing called {name} is known of {about.info.id}; there are {', '.join(sorted(known))}",
            where="assemble.statistic.inputs",
            remedy="name one of these, or give the exposure's metrics one of that name",
        )
    return known[name]


def _circle_around(circles: Sequence[SkyCircle]) -> tuple[float, float, float]:
    ra, dec = (np.array([getattr(c, name) for c in circles]) for name in ("ra", "dec"))
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    x, y, z = (np.cos(d) * np.cos(a)).mean(), (np.cos(d) * np.sin(a)).mean(), np.sin(d).mean()
    centre_ra, centre_dec = np.rad2deg(np.arctan2(y, x)) % 360, np.rad2deg(np.arctan2(z, np.hypot(x, y)))
    reach = separation(np.full(len(ra), centre_ra), np.full(len(ra), centre_dec), ra, dec)
    return float(centre_ra), float(centre_dec), float(np.max(reach + [c.radius for c in circles]))
