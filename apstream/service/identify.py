"""A look at a file's header: which unit of work it is, and where on the sky."""

from __future__ import annotations

import numpy as np

from apstream.cameras import load_camera
from apstream.errors import ApstreamError
from apstream.model.exposures import ExposureInfo
from apstream.model.products import SkyCircle
from apstream.repo.formats.raw import read_raw_info
from apstream.service.pixel_job import open_repository
from apstream.service.pixel_settings import PixelSettings
from apstream.service.request import HeaderRequest, Identity
from apstream.service.roots import local_file

__all__ = ["identify"]

#: Degrees; more than half a detector's diagonal plus the pointing error of any header.
_RADIUS = 0.5


def identify(request: HeaderRequest) -> Identity:
    """Read the header of the file that an event names.

    Raises
    ------
    ApstreamError
        Whatever is wrong with the file; names it.
    """
    settings = PixelSettings.model_validate(request.settings)
    camera = load_camera(open_repository(settings.repository.root).camera)
    try:
        with local_file(request.path) as path:
            info = read_raw_info(path, camera, detector=request.event.detector)
    except ApstreamError as error:
        raise error.at(request.path) from error
    return Identity(info.id, _region(info))


def _region(info: ExposureInfo) -> SkyCircle | None:
    return SkyCircle(info.ra, info.dec, _RADIUS) if np.isfinite(info.ra) and np.isfinite(info.dec) else None
