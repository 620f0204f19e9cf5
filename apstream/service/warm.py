"""What a new child does before its first job: import the stages and load their compiled kernels.

Without it the first exposure after a start pays: seconds with kernels in numba's cache, a minute without.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from apstream.cameras import load_camera
from apstream.errors import ApstreamError
from apstream.model.calibs import IsrCalibs
from apstream.model.products import KnownObjects
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.pixels import PixelInputs, calibrate_raw, find_dia_sources
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.raw import read_raw
from apstream.service import identify, pixel_job
from apstream.simulate.config import ChipConfig, NightConfig, SkyConfig
from apstream.simulate.night import simulate_night
from apstream.tasks.streaks import StreakConfig, mask_streaks
from apstream.tasks.template import TemplateInput

__all__ = ["JOBS", "warm_up"]

#: The jobs to come; that they are imported is half the work.
JOBS = (identify.identify, pixel_job.pixel_job)

_SKY = SkyConfig(stars_per_arcmin2=150.0, transients_per_arcmin2=8.0)
_NIGHT = NightConfig(
    visits=1,
    template_visits=1,
    size=256,
    transients=12,
    sky=_SKY,
    chip=ChipConfig(cosmic_rays_cm2_min=50.0),
)


def warm_up() -> None:
    """Take a small simulated exposure through all stages; that no source may come of it does not matter."""
    with tempfile.TemporaryDirectory() as folder:
        summary = simulate_night(Path(folder), _NIGHT)
        template, science = (read_raw(path, load_camera("simcam")) for path in summary.raws)
        reference = read_refcat(summary.out / "refcat.parquet")
    config, calibs = PixelConfig(), _calibs(science.detector.shape)
    with suppress(ApstreamError):  # it is the way that counts
        before = calibrate_raw(template, calibs, reference, config)
        inputs = PixelInputs(
            calibs=calibs,
            reference=reference,
            templates=[TemplateInput.from_image(before, "warm-up")],
            known=KnownObjects(np.ones(1, np.int64), np.array([_SKY.ra_deg]), np.array([_SKY.dec_deg])),
        )
        find_dia_sources(science, inputs, config)
    _mask_a_trail()


def _mask_a_trail() -> None:
    """Do what only exposures with a satellite's trail need; the small exposure has none long enough."""
    image = np.random.default_rng(1).normal(0, 1, (512, 512)).astype(np.float32)
    image[250:253] += 5
    mask_streaks(image, np.ones_like(image), np.zeros(image.shape, np.int32), None, StreakConfig())


def _calibs(shape: tuple[int, int]) -> IsrCalibs:
    zero = np.zeros(shape, np.float32)
    return IsrCalibs(bias=zero, dark=zero, flat=zero + 1, defects=zero > 0)
