from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from apstream.errors import BadSettings, Conflict, DatasetNotFound, FileMissing, StorageUnavailable
from apstream.model.exposures import CalExp
from apstream.model.products import SkyCircle
from apstream.repo.atomic import atomic_path
from apstream.repo.repository import FileRepository
from apstream.repo.types import Policy


@pytest.fixture
def repository(tmp_path: Path) -> FileRepository:
    return FileRepository.create(tmp_path / "repo", camera="simcam")


def test_what_was_put_is_found_again_by_a_new_process(repository: FileRepository, calexp: CalExp):
    repository.put(calexp, "calexp", visit=7, detector=3, band="r")
    again = FileRepository(repository.root)
    np.testing.assert_array_equal(again.get("calexp", visit=7, detector=3).image.image, calexp.image.image)
    assert again.locate("calexp", visit=7, detector=4) is None


def test_a_second_put_replaces_the_first(repository: FileRepository, calexp: CalExp):
    for _ in range(2):
        repository.put(calexp, "calexp", visit=7, detector=3, band="r")
    assert len(repository.find("calexp")) == 1


def test_a_missing_dataset_says_what_to_ingest(repository: FileRepository):
    with pytest.raises(DatasetNotFound, match="no location for bias with detector=5") as missing:
        repository.get("bias", detector=5)
    assert "ingest" in missing.value.remedy


def test_an_unknown_type_names_its_neighbours(repository: FileRepository):
    with pytest.raises(DatasetNotFound, match="calexp"):
        repository.get("calexps", visit=1, detector=1)


def test_sky_search_finds_what_overlaps_nearest_first(repository: FileRepository, calexp: CalExp):
    repository.put(calexp, "calexp", visit=7, detector=3, band="r")
    ra, dec, radius = calexp.wcs.circle(calexp.box)
    assert repository.overlapping("calexp", SkyCircle(ra, dec + radius, 0.001), band="r")
    assert not repository.overlapping("calexp", SkyCircle(ra, dec + radius + 0.01, 0.001), band="r")
    assert not repository.overlapping("calexp", SkyCircle(ra, dec, 0.001), band="g")


def test_two_raws_for_one_id_are_refused(repository: FileRepository, tmp_path: Path):
    (tmp_path / "a.fits").write_bytes(b"a")
    (tmp_path / "b.fits").write_bytes(b"b")
    repository.ingest(tmp_path / "a.fits", "raw", visit=1, detector=0, band="r")
    repository.ingest(tmp_path / "a.fits", "raw", visit=1, detector=0, band="r")
    with pytest.raises(Conflict, match=r"b\.fits"):
        repository.ingest(tmp_path / "b.fits", "raw", visit=1, detector=0, band="r")
    location = repository.locate("raw", visit=1, detector=0)
    assert location is not None
    assert Path(location).read_bytes() == b"a"


def test_a_folder_that_is_no_repository_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(FileMissing, match="apstream repo create"):
        FileRepository(tmp_path)


def test_a_repository_keeps_its_camera(repository: FileRepository):
    with pytest.raises(Conflict, match="simcam"):
        FileRepository.create(repository.root, camera="decam")


def test_a_full_disk_leaves_the_old_file_and_no_new_one(tmp_path: Path):
    target = tmp_path / "x.fits"
    target.write_text("old")
    with pytest.raises(StorageUnavailable, match=r"x\.fits"), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.fits"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_really_full_device_is_a_typed_error(tmp_path: Path):
    with pytest.raises(StorageUnavailable), atomic_path(tmp_path / "y"), open("/dev/full", "w") as full:
        full.write("x")


@pytest.mark.parametrize(
    "text", ["- a list", "raw: 3", "raw: {template: x}", "raw: {template: x, format: raw, colour: 1}"]
)
def test_a_bad_policy_is_refused_by_name(tmp_path: Path, text: str):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(BadSettings, match=r"policy\.yaml"):
        Policy.load(tmp_path / "policy.yaml")
