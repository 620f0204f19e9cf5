"""A small deterministic set of products to make alerts of."""

import numpy as np

from apstream.model.columns import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE
from apstream.model.cutouts import Cutouts, CutoutStack
from apstream.model.exposures import ExposureInfo
from apstream.model.ids import VisitDetector
from apstream.model.products import History


def make_info(visit=11, name="COSMOS"):
    return ExposureInfo(
        id=VisitDetector("simcam", visit, 3),
        band="r",
        physical_filter="r_01",
        mid_mjd_tai=60100.25,
        exposure_s=30.0,
        object_name=name,
        observation_type="science",
    )


def make_sources(n, visit=11, first=1000, mjd=60100.25):
    rng = np.random.default_rng(visit)
    rows = DIA_SOURCE.empty(n)
    rows["diaSourceId"] = first + np.arange(n)
    rows["visit"], rows["detector"], rows["midpointMjdTai"], rows["band"] = visit, 3, mjd, "r"
    rows["ra"], rows["dec"] = 150 + np.arange(n) * 0.01, 2.0
    rows["raErr"] = rows["decErr"] = 1e-5
    rows["psfFlux"], rows["psfFluxErr"], rows["snr"] = rng.normal(900, 300, n), 50, 18
    rows["timeProcessedMjdTai"] = mjd + 0.001
    rows["x"], rows["y"] = rng.uniform(0, 500, (2, n))
    return rows


def make_history(n_objects, n_rows):
    """Objects at the places of `make_sources`, with `n_rows` sources and forced sources each."""
    objects = DIA_OBJECT.empty(n_objects)
    objects["diaObjectId"] = 1 + np.arange(n_objects)
    objects["validityStartMjdTai"] = 60050.0
    objects["ra"], objects["dec"], objects["nDiaSources"] = 150 + np.arange(n_objects) * 0.01, 2.0, n_rows
    sources = np.concatenate(
        [make_sources(n_objects, 100 + k, 10_000 * (k + 1), 60000.0 + k) for k in range(n_rows)]
        or [DIA_SOURCE.empty(0)]
    )
    sources["diaObjectId"] = np.tile(objects["diaObjectId"], n_rows)
    forced = DIA_FORCED_SOURCE.empty(len(sources))
    forced["diaForcedSourceId"] = 5_000_000 + np.arange(len(sources))
    for name in (
        "diaObjectId",
        "ra",
        "dec",
        "visit",
        "detector",
        "psfFlux",
        "psfFluxErr",
        "midpointMjdTai",
        "timeProcessedMjdTai",
        "band",
    ):
        forced[name] = sources[name]
    return History(objects, sources, forced)


def make_cutouts(n, side=31, psf=21, seed=1):
    rng = np.random.default_rng(seed)

    def stack():
        return CutoutStack(
            image=rng.normal(0, 10, (n, side, side)).astype(np.float32),
            mask=rng.choice([0, 1, 32], (n, side, side)).astype(np.int32),
            variance=rng.uniform(80, 120, (n, side, side)).astype(np.float32),
            psf=np.full((n, psf, psf), 1 / psf**2, np.float32),
        )

    x, y = 100.3 + np.arange(n) * 7.0, 200.6 + np.arange(n) * 3.0
    cd = np.broadcast_to(np.array([[-7.2e-5, 1e-7], [1e-7, 7.2e-5]]), (n, 2, 2)).copy()
    return Cutouts(
        science=stack(),
        template=stack(),
        difference=stack(),
        corner_y=np.round(y).astype(np.int64) - side // 2,
        corner_x=np.round(x).astype(np.int64) - side // 2,
        y=y,
        x=x,
        ra=150 + np.arange(n) * 0.01,
        dec=np.full(n, 2.0),
        cd=cd,
        unit="nJy",
    )
