"""Versions of calexps by stage, updated in parts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from helpers import repo_samples as samples

from apstream.model.geometry import Box
from apstream.repo.repository import Repository

ID = {"visit": 1, "detector": 0}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository.create(tmp_path / "repo", camera="simcam")
    repository.put(samples.calexp(0), "calexp", **ID)
    return repository


def state(repository: Repository) -> dict[str, tuple[str, int]]:
    """Every FITS file with its checksum and the time of its last writing."""
    found = sorted(Path(repository.root).rglob("*.fits"))
    return {p.name + str(p.parent): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in found}


def test_a_new_mask_or_wcs_leaves_the_pixels_where_they_are(repository: Repository):
    before = state(repository)
    mask = np.zeros(samples.BOX.shape, np.int32)
    mask[3:5, :] = 1 << 10
    repository.put(mask, "jointcal_mask", **ID)
    repository.put(samples.wcs(2), "jointcal_wcs", **ID)
    after = state(repository)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    updated = repository.get("jointcalexp", **ID)
    np.testing.assert_array_equal(updated.image.mask, mask)
    np.testing.assert_array_equal(updated.image.image, samples.calexp(0).image.image)
    part = repository.get("jointcalexp", **ID, box=Box(2, 5, 9, 20))
    np.testing.assert_array_equal(part.image.mask, mask[2:9, 5:20])


def test_each_stage_of_a_calexp_has_its_own_type_and_says_what_is_in_it(repository: Repository):
    repository.put(samples.calib(3), "jointcal_calib", **ID)
    first, last = repository.get("calexp", **ID), repository.get("jointcalexp", **ID)
    assert first.photo_calib == samples.calib(0)
    assert last.photo_calib == samples.calib(3)
    np.testing.assert_array_equal(first.image.mask, last.image.mask)  # there is no later mask
    rerun = Repository.create(Path(repository.root) / "rerun" / "again", parents=[repository.root])
    rerun.put(samples.calexp(1), "calexp", **ID)
    entries = [r.entry("calexp", **ID) for r in (repository, rerun)]
    assert [entry.root for entry in entries if entry] == [repository.root, rerun.root]
    assert repository.get("calexp", **ID).photo_calib != rerun.get("calexp", **ID).photo_calib
