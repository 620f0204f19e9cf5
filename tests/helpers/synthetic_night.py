"""A night for the daemon whose pixel work is trivial: a raw file is a line of JSON, sources come from a rule.

The functions `identify` and `pixel_job` stand in for the real ones at the seam that the settings offer.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from apstream.errors import BadFile, NoTemplateOverlap
from apstream.model.columns import DIA_FORCED_SOURCE, DIA_SOURCE
from apstream.model.events import ExposureEvent
from apstream.model.exposures import ExposureInfo
from apstream.model.ids import VisitDetector, pack_source_ids
from apstream.model.products import CutoutTriplet, KnownObjects, PixelProducts, SkyCircle
from apstream.service.request import HeaderRequest, Identity, PixelRequest

IDENTIFY, PIXEL_JOB = "helpers.synthetic_night:identify", "helpers.synthetic_night:pixel_job"
WARM_UP = "helpers.synthetic_night:warm_up"
REGION = SkyCircle(150.0, 2.0, 0.15)
N_STARS = 12
FIRST_MJD = 60100.0


def warm_up() -> None:
    """Nothing to do: that a child imports this module is all it needs."""


def write_exposure(folder: Path, visit: int, detector: int = 1, **extra: Any) -> ExposureEvent:
    """Write a raw file and return its event."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"raw-{visit:04d}-{detector}.fits"
    path.write_text(json.dumps({"visit": visit, "detector": detector, **extra}))
    return ExposureEvent(
        instrument="simcam",
        visit=visit,
        detector=detector,
        uris=(str(path),),
        ra=REGION.ra,
        dec=REGION.dec,
        exposure_s=30.0,
        mid_mjd_tai=mjd_of(visit),
    )


def mjd_of(visit: int) -> float:
    return FIRST_MJD + visit / 1440


def identify(request: HeaderRequest) -> Identity:
    header = _read(request.path)
    return Identity(VisitDetector("simcam", header["visit"], header["detector"]), REGION)


def pixel_job(request: PixelRequest) -> PixelProducts:
    header = _read(request.path)
    _misbehave(header)
    visit, detector = header["visit"], header["detector"]
    sources = _sources(visit, detector, header.get("n", N_STARS))
    return PixelProducts(
        info=ExposureInfo(
            id=VisitDetector("simcam", visit, detector),
            band="r",
            physical_filter="r_01",
            mid_mjd_tai=mjd_of(visit),
            exposure_s=30.0,
            origin=request.path,
        ),
        dia_sources=sources,
        forced=_forced(visit, detector, request.known),
        cutouts=tuple(CutoutTriplet(b"science", b"template", b"difference") for _ in sources),
        region=REGION,
        metrics={"calibrate.depth_mag": 24.5, "calibrate.zero_point": float("nan"), "isr.overscan_level": 1000.0},
        timings_s={"measure": 0.001},
    )


def _read(path: str) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(Path(path).read_text())
    except ValueError as error:
        raise BadFile("not an exposure", where=path) from error
    return header


def _misbehave(header: dict[str, Any]) -> None:
    match header.get("behave"):
        case "hang":
            time.sleep(600)
        case "vanish":
            os._exit(9)
        case "no template":
            raise NoTemplateOverlap("no template")
        case "stumble":
            raise ZeroDivisionError("a defect")
        case "die once":
            marker = Path(header["marker"])
            if not marker.exists():
                marker.touch()
                os._exit(9)
    time.sleep(header.get("seconds", 0.0))


def _sources(visit: int, detector: int, n: int) -> Any:
    """A star shows up in two visits of three; positions jitter by a tenth of an arcsecond."""
    stars = np.array([k for k in range(n) if (visit * 7 + k * 5 + detector) % 3], int)
    random = np.random.default_rng([visit, detector])
    rows = DIA_SOURCE.empty(len(stars))
    rows["diaSourceId"] = pack_source_ids(visit, detector, len(stars))
    rows["visit"], rows["detector"], rows["midpointMjdTai"], rows["band"] = (
        visit,
        detector,
        mjd_of(visit),
        "r",
    )
    rows["ra"] = REGION.ra + 0.01 * (stars % 4) + random.normal(0, 0.1, len(stars)) / 3600
    rows["dec"] = REGION.dec + 0.01 * (stars // 4) + 0.002 * detector + random.normal(0, 0.1, len(stars)) / 3600
    rows["raErr"] = rows["decErr"] = 0.1 / 3600
    rows["psfFlux"], rows["psfFluxErr"], rows["snr"] = 1000.0 + stars, 50.0, 20.0
    rows["x"], rows["y"] = 10.0 + stars, 20.0 + stars
    return rows


def _forced(visit: int, detector: int, known: KnownObjects) -> Any:
    rows = DIA_FORCED_SOURCE.empty(len(known.ids))
    rows["diaForcedSourceId"] = pack_source_ids(visit, detector, len(known.ids))
    rows["diaObjectId"], rows["ra"], rows["dec"] = known.ids, known.ra, known.dec
    rows["visit"], rows["detector"], rows["midpointMjdTai"], rows["band"] = (
        visit,
        detector,
        mjd_of(visit),
        "r",
    )
    rows["psfFlux"], rows["psfFluxErr"] = 900.0, 50.0
    return rows
