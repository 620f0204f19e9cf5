from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from apstream.arrays.reliability import Evidence, misfit, near_bright_star, reliability

CLEAN = Evidence(
    strength=np.array([0.3]), misfit=np.zeros(1), wrong_shape=np.zeros(1),
    **{name: np.zeros(1, bool) for name in (
        "dipole", "bright_star", "bad_pixels", "doubtful_pixels", "no_centroid", "below_sky")},
)  # fmt: skip


def test_strength_raises_the_score():
    scores = [reliability(replace(CLEAN, strength=np.array([s])))[0] for s in (0.0, 0.3, 1.0)]
    assert 0.5 < scores[0] < scores[1] < scores[2] < 1


@pytest.mark.parametrize("name", [f.name for f in fields(Evidence) if f.name != "strength"])
def test_every_penalty_lowers_the_score(name):
    value = np.ones(1, getattr(CLEAN, name).dtype)
    assert reliability(replace(CLEAN, **{name: value}))[0] < reliability(CLEAN)[0]


def test_unknown_evidence_counts_as_none():
    assert reliability(replace(CLEAN, misfit=np.array([np.nan])))[0] == reliability(CLEAN)[0]


def test_misfit_is_relative_to_the_signal():
    assert misfit([400.0], [400], [50.0])[0] == 0
    faint, bright = misfit([400 + 60 + 100.0, 400 + 60 + 10_000.0], [400, 400], [50.0, 500.0])
    assert np.isclose(faint, bright, rtol=0.2)


def test_only_bright_stars_nearby_count():
    sources = np.array([[10.0, 10.0], [10.0, 30.0]])
    stars = np.array([[12.0, 10.0], [18.0, 30.0], [90.0, 90.0]])
    contrast = near_bright_star(
        sources, np.array([10.0, 10.0]), stars, np.array([1000.0, 1000.0, 1e9]), core=4.0, reach=np.full(3, 9.0)
    )
    np.testing.assert_allclose(contrast, [100, 25])
    assert near_bright_star(sources, np.ones(2), stars[:0], np.zeros(0), core=4.0, reach=np.zeros(0)).sum() == 0
