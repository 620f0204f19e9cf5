from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from apstream.errors import BadHeader
from apstream.model.columns import DIA_FORCED_SOURCE
from apstream.model.ids import VisitDetector
from apstream.model.products import KnownObjects
from apstream.tasks.forced import ForcedConfig, forced_photometry, forced_source_ids

CONFIG = ForcedConfig()


def known_at(sky, y, x):
    ra, dec = sky.wcs.pixel_to_sky(np.asarray(y, float), np.asarray(x, float))
    return KnownObjects(np.arange(len(ra)) + 1000, ra, dec)


def test_fluxes_are_unbiased_at_known_positions(scene):
    rng = np.random.default_rng(3)
    sky = scene.empty(512)
    grid = np.arange(70, 540, 30.0)
    y, x = (a.ravel() + rng.uniform(-3, 3, a.size) for a in np.meshgrid(grid, grid + 30))
    flux = rng.uniform(-500, 5000, len(y))
    sky.transients(y, x, flux)
    difference, science, _ = sky.products()
    rows = forced_photometry(known_at(sky, y, x), difference, science, CONFIG)
    assert rows.dtype == DIA_FORCED_SOURCE.dtype
    for name in ("psfFlux", "scienceFlux"):
        pull = (rows[name] - flux) / rows[f"{name}Err"]
        assert abs(np.mean(pull)) < 4 / np.sqrt(len(pull))
        assert 0.88 < np.std(pull) < 1.12


def test_only_objects_on_the_image_are_measured(scene):
    sky = scene.empty()
    known = known_at(sky, [100.0, 20.0, 200.0], [150.0, 150.0, 1000.0])
    far = KnownObjects(np.append(known.ids, 9), np.append(known.ra, 330.0), np.append(known.dec, -2.0))
    difference, science, _ = sky.products()
    rows = forced_photometry(far, difference, science, CONFIG)
    assert rows["diaObjectId"].tolist() == [1000]
    assert rows["visit"].tolist() == [7]
    assert rows["ra"][0] == known.ra[0]


def test_masked_objects_have_no_flux(scene):
    sky = scene.empty()
    sky.mask[:60] |= 1 << 8
    difference, science, _ = sky.products()
    rows = forced_photometry(known_at(sky, [80.0], [150.0]), difference, science, CONFIG)
    assert np.isnan(rows["psfFlux"]).all()
    assert np.isnan(rows["psfFluxErr"]).all()


def test_ids_depend_on_exposure_and_object_only():
    objects = np.array([5, 6, -7], np.int64)
    ids = forced_source_ids(VisitDetector("a", 1, 2), objects)
    assert len(set(ids)) == 3
    assert (ids > 0).all()
    assert np.array_equal(forced_source_ids(VisitDetector("a", 1, 2), objects[1:]), ids[1:])
    assert not np.isin(forced_source_ids(VisitDetector("a", 1, 3), objects), ids).any()


def test_no_objects_need_no_wcs_but_objects_do(scene):
    difference, science, _ = scene.empty().products()
    blind = replace(difference, wcs=None)
    assert len(forced_photometry(KnownObjects.none(), blind, science, CONFIG)) == 0
    with pytest.raises(BadHeader):
        forced_photometry(KnownObjects(np.array([1]), np.zeros(1), np.zeros(1)), blind, science, CONFIG)
