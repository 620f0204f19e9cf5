from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from apstream.errors import NoGoodPixels, SubtractionFailed
from apstream.model.mask import MaskPlane
from apstream.tasks.detect import DetectConfig, detect

CONFIG = DetectConfig()


def grid(sky, gap=30.0):
    rng = np.random.default_rng(4)
    y0, x0, side = sky.box.y0, sky.box.x0, sky.box.shape[0]
    axis = np.arange(25, side - 25, gap)
    y, x = np.meshgrid(axis, axis)
    return y.ravel() + y0 + rng.uniform(-4, 4, y.size), x.ravel() + x0 + rng.uniform(-4, 4, x.size)


def completeness(found, sky, y, x):
    prints = found.footprints
    tree = cKDTree(np.c_[prints["y"] + sky.box.y0, prints["x"] + sky.box.x0])
    return np.mean(tree.query(np.c_[y, x])[0] < 3)


def test_completeness_follows_the_significance(scene):
    # A source of S/N 5.5 passes a threshold of 5 in 69 % of all cases; its highest pixel a little more often.
    sky = scene.empty(900, seed=3)
    y, x = grid(sky)
    error = np.array([sky.error_of(a, b) for a, b in zip(y, x, strict=True)])
    sky.transients(y, x, 5.5 * error * np.resize([1, -1], len(y)))
    found = detect(sky.products()[0], CONFIG)
    assert 0.6 < completeness(found, sky, y, x) < 0.8


def test_bright_sources_are_all_found_once(scene):
    sky = scene.empty(512, seed=3)
    y, x = grid(sky, 40.0)
    sky.transients(y, x, 12 * np.array([sky.error_of(a, b) for a, b in zip(y, x, strict=True)]))
    found = detect(sky.products()[0], CONFIG)
    assert completeness(found, sky, y, x) == 1
    assert len(found) <= len(y) + 1
    assert np.all(np.diff(np.abs(found.footprints["snr"])) <= 0)


def test_wrong_variance_is_recognised_and_mended(scene):
    difference = scene.empty(300, seed=5).products()[0]
    low = replace(difference, image=difference.image.with_variance(difference.image.variance / 2))
    found = detect(low, CONFIG)
    assert abs(found.difference.metrics["detect.variance_scale"] - 2) < 0.1
    np.testing.assert_allclose(found.difference.image.variance, difference.image.variance, rtol=0.06)
    assert abs(found.difference.metrics["detect.sky_snr_std"] - 1) < 0.25
    assert len(found.sky_y) == 100
    asis = detect(low, DetectConfig(rescale_variance=False))
    assert np.array_equal(asis.difference.image.variance, low.image.variance)
    assert len(asis) > len(found)


def test_residual_background_is_removed(scene):
    sky = scene.empty(512, seed=6)
    sky.difference += 30.0
    found = detect(sky.products()[0], CONFIG)
    assert abs(np.median(found.difference.image.image)) < 0.5
    assert len(found) < 5


def test_unusable_pixels_are_not_searched_and_the_planes_are_a_choice(scene):
    sky = scene.empty()
    for y, x, plane in ((100, 150, "BAD"), (160, 150, "NO_DATA"), (220, 150, "SAT")):
        part = (slice(y - 60, y - 40), slice(x - 90, x - 70))
        sky.difference[part] += 1e4
        sky.mask[part] |= MaskPlane[plane]
    sky.difference[60:63, 100] = np.nan
    assert len(detect(sky.products()[0], CONFIG)) == 0
    chosen = CONFIG.model_copy(update={"excluded_planes": ("NO_DATA", "BAD", "EDGE")})
    found = detect(sky.products()[0], chosen)
    assert len(found) == 1
    mask = found.difference.image.mask
    assert mask[220 - 50, 150 - 80] & MaskPlane.DETECTED
    assert not mask[100 - 50, 150 - 80] & MaskPlane.DETECTED


def test_negative_sources_set_their_own_plane(scene):
    sky = scene.empty()
    sky.transients([150.0], [150.0], [-5000.0])
    found = detect(sky.products()[0], CONFIG)
    bits = found.difference.image.mask[100, 70]
    assert bits & MaskPlane.DETECTED_NEGATIVE
    assert not bits & MaskPlane.DETECTED
    assert found.footprints["snr"][0] < 0


def test_nothing_to_search_is_an_error(scene):
    sky = scene.empty(64)
    sky.mask[:] = MaskPlane.NO_DATA
    with pytest.raises(NoGoodPixels):
        detect(sky.products()[0], CONFIG)


def test_a_useless_subtraction_is_an_error(scene):
    sky = scene.empty(300)
    y, x = grid(sky)
    sky.transients(y, x, np.full(len(y), 5e3))
    with pytest.raises(SubtractionFailed):
        detect(sky.products()[0], DetectConfig(max_detections=10))
