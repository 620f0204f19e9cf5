"""What the simulator can be told; every default makes a plausible 8-m class survey camera."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["BANDS", "Band", "ChipConfig", "NightConfig", "OpticsConfig", "PairConfig", "SkyConfig"]

#: (zero point: AB magnitude that gives one electron per second, dark-sky AB magnitude per square arcsec)
BANDS: dict[str, tuple[float, float]] = {
    "u": (27.0, 22.9),
    "g": (28.4, 22.2),
    "r": (28.2, 21.2),
    "i": (27.9, 20.5),
    "z": (27.5, 19.6),
    "y": (26.7, 18.6),
}
Band = Literal["u", "g", "r", "i", "z", "y"]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SkyConfig(_Config):
    """The sky: how much of everything there is."""

    ra_deg: float = Field(150.1, ge=0, lt=360, description="Right ascension of the field's centre.")
    dec_deg: float = Field(2.2, ge=-85, le=85, description="Declination of the field's centre.")
    stars_per_arcmin2: float = Field(62.0, ge=0, description="Stars between the magnitude limits.")
    star_mag_limits: tuple[float, float] = Field((14.5, 24.5), description="r magnitudes.")
    star_count_slope: float = Field(0.22, description="d log10 N / d mag of the stars.")
    galaxies_per_arcmin2: float = Field(20.6, ge=0, description="Galaxies between the magnitude limits.")
    galaxy_mag_limits: tuple[float, float] = Field((17.0, 25.0), description="r magnitudes.")
    galaxy_count_slope: float = Field(0.36, description="d log10 N / d mag of the galaxies.")
    proper_motion_mas_yr: float = Field(6.0, ge=0, description="Scatter of proper motions per axis.")
    transients_per_arcmin2: float = Field(1.4, ge=0, description="Used where no number of transients is given.")
    variables_per_arcmin2: float = Field(0.7, ge=0, description="Periodic variable stars.")
    asteroids_per_arcmin2: float = Field(0.2, ge=0, description="Asteroids per night.")


class OpticsConfig(_Config):
    """Telescope and atmosphere."""

    pixel_scale_arcsec: float = Field(0.25, gt=0, description="Arcsec per pixel.")
    seeing_arcsec: tuple[float, float] = Field((0.7, 1.3), description="Range of the seeing FWHM.")
    psf_variation: float = Field(0.05, ge=0, description="Relative change of the FWHM over the field.")
    ellipticity: float = Field(0.04, ge=0, lt=0.5, description="Typical ellipticity of the PSF.")
    distortion: float = Field(1e-3, description="Relative radial distortion at the corner of the field.")
    dither_px: float = Field(12.0, ge=0, description="Pointing scatter from visit to visit.")
    rotation_deg: float = Field(0.05, ge=0, description="Rotation scatter from visit to visit.")
    header_error_arcsec: float = Field(2.0, ge=0, description="Error of the pointing in the header.")
    transparency_mag: float = Field(0.15, ge=0, description="Largest loss by thin cloud.")
    sky_gradient: float = Field(0.03, ge=0, description="Relative gradient of the sky over the field.")


class ChipConfig(_Config):
    """The detectors."""

    amplifiers: int = Field(2, ge=1, le=16, description="Read-out channels side by side.")
    overscan_px: int = Field(32, ge=4, description="Overscan columns per amplifier.")
    gain: float = Field(2.0, gt=0, description="Mean gain, electrons per ADU; channels scatter by 5 %.")
    read_noise_e: float = Field(5.0, ge=0, description="Mean read noise, electrons.")
    full_well_e: float = Field(100_000.0, gt=0, description="Electrons at which a pixel bleeds.")
    bias_adu: float = Field(1000.0, ge=0, description="Mean bias level.")
    dark_e_s: float = Field(0.02, ge=0, description="Dark current, electrons per second and pixel.")
    vignetting: float = Field(0.08, ge=0, lt=0.9, description="Loss of light at the corner.")
    pixel_response: float = Field(0.007, ge=0, description="Scatter of the pixels' sensitivity.")
    cosmic_rays_cm2_min: float = Field(13.0, ge=0, description="Tracks per minute and square cm (15 um pixels).")
    satellite_rate: float = Field(0.1, ge=0, le=1, description="Chance of a satellite trail per exposure.")


class NightConfig(_Config):
    """A simulated season: template visits, then science visits in pairs half an hour apart."""

    visits: int = Field(5, ge=1, le=9000, description="Number of science visits.")
    template_visits: int = Field(4, ge=0, le=900, description="Number of earlier, quiet visits per band.")
    size: int = Field(1024, ge=128, le=16384, description="Side of a detector in pixels.")
    seed: int = Field(1, ge=0, description="The same seed gives the same bytes.")
    detectors: int = Field(1, ge=1, le=64, description="Number of detectors.")
    bands: Annotated[tuple[Band, ...], Field(min_length=1)] = Field(("r",), description="Bands, in turn.")
    transients: int | None = Field(None, ge=0, description="Number of transients; None: from the density.")
    exposure_s: float = Field(30.0, gt=0, description="Exposure time.")
    start_mjd: float = Field(61100.05, description="MJD UTC of the first science visit.")
    sky: SkyConfig = SkyConfig()
    optics: OpticsConfig = OpticsConfig()
    chip: ChipConfig = ChipConfig()


class PairConfig(_Config):
    """A calibrated science image and a coadd-like template of the same sky."""

    size: int = Field(1024, ge=128, le=16384, description="Side of the images in pixels.")
    seed: int = Field(1, ge=0, description="The same seed gives the same bytes.")
    transients: int | None = Field(None, ge=0, description="Number of transients; None: from the density.")
    snr_range: tuple[float, float] = Field((3.0, 100.0), description="Expected S/N, evenly in its logarithm.")
    band: Band = Field("r", description="Band of both images.")
    seeing_arcsec: tuple[float, float] = Field((1.0, 0.8), description="FWHM of science and template.")
    template_exposures: int = Field(5, ge=1, description="Exposures that the template stands for.")
    identical: bool = Field(False, description="Same grid, PSF, depth; no transients; noise apart.")
    cosmic_rays: bool = Field(True, description="Whether the science image has cosmic rays.")
    exposure_s: float = Field(30.0, gt=0, description="Exposure time of the science image.")
    sky: SkyConfig = SkyConfig()
    optics: OpticsConfig = OpticsConfig()
    chip: ChipConfig = ChipConfig()
