from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import repo_samples as samples

from apstream.errors import (
    BadFile,
    BadSettings,
    BadValidity,
    Conflict,
    DatasetNotFound,
    FileMissing,
    StorageUnavailable,
)
from apstream.model.exposures import CalExp
from apstream.model.products import SkyCircle
from apstream.repo.atomic import atomic_path
from apstream.repo.provenance import why
from apstream.repo.repository import Repository
from apstream.repo.upkeep import check_repository

ID = {"visit": 7, "detector": 3}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "repo", camera="simcam")


def bias(level: float) -> np.ndarray:
    return np.full((4, 5), level, np.float32)


def test_what_was_put_is_found_again_by_a_new_process(repository: Repository, calexp: CalExp):
    location = repository.put(calexp, "calexp", **ID, band="r")
    again = Repository(repository.root)
    np.testing.assert_array_equal(again.get("calexp", **ID).image.image, calexp.image.image)
    assert again.locate("calexp", **ID) == location
    assert again.locate("calexp", visit=7, detector=4) is None


def test_a_second_put_replaces_the_first_and_leaves_nothing_behind(repository: Repository):
    for seed in range(3):
        repository.put(samples.calib(seed), "jointcal_calib", **ID)
    assert len(repository.find("jointcal_calib")) == 1
    assert repository.get("jointcal_calib", **ID) == samples.calib(2)
    report = check_repository(repository, contents=True)
    assert (report.datasets, report.damaged, report.orphans) == (1, [], [])


def test_a_missing_dataset_says_what_to_ingest(repository: Repository):
    with pytest.raises(DatasetNotFound, match="no location for jointcal_calib with visit=5 detector=1") as missing:
        repository.get("jointcal_calib", visit=5, detector=1)
    assert "ingest" in missing.value.remedy


def test_the_cameras_own_words_are_understood(tmp_path: Path):
    repository = Repository.create(tmp_path / "repo", camera="decam")
    repository.put(samples.calib(1), "jointcal_calib", expnum=7, ccdnum="3", filter="g")
    assert repository.get("jointcal_calib", visit=7, detector=3) == samples.calib(1)
    assert [entry.extra["band"] for entry in repository.find("jointcal_calib", ccdnum=3)] == ["g"]
    assert len(repository.find("jointcal_calib", repository.select(["expnum=1..9 filter=g"]))) == 1


def test_conflicting_and_unknown_words_are_refused(repository: Repository):
    repository.put(samples.calib(1), "jointcal_calib", **ID, band="r")
    with pytest.raises(DatasetNotFound, match="conflicting data id: band=r and filter=g"):
        repository.get("jointcal_calib", **ID, band="r", filter="g")
    with pytest.raises(DatasetNotFound, match=r"conflicting data id: .* has band=r, not g"):
        repository.get("jointcal_calib", **ID, band="g")
    with pytest.raises(DatasetNotFound, match="has no key 'detecter'") as refused:
        repository.get("jointcal_calib", visit=7, detecter=3)
    assert "did you mean detector" in refused.value.remedy
    with pytest.raises(DatasetNotFound, match="visit=seven is no whole number"):
        repository.get("jointcal_calib", visit="seven", detector=3)


def test_an_ambiguous_data_id_asks_for_the_rest(repository: Repository):
    repository.put(samples.calib(1), "jointcal_calib", visit=7, detector=3)
    assert repository.get("jointcal_calib", visit=7) == samples.calib(1)  # there is only one
    repository.put(samples.calib(2), "jointcal_calib", visit=7, detector=4)
    with pytest.raises(DatasetNotFound, match="fits 2 datasets") as refused:
        repository.get("jointcal_calib", visit=7)
    assert "give detector too" in refused.value.remedy


def test_a_value_of_another_class_is_refused(repository: Repository):
    with pytest.raises(BadSettings, match="jointcal_calib is stored as photo_calib, which cannot hold a str"):
        repository.put("nonsense", "jointcal_calib", **ID)
    with pytest.raises(BadSettings, match="calexp_wcs cannot be written"):
        repository.put(samples.wcs(), "calexp_wcs", **ID)


def test_sky_search_finds_what_overlaps_nearest_first(repository: Repository, calexp: CalExp):
    repository.put(calexp, "calexp", **ID, band="r")
    ra, dec, radius = calexp.wcs.circle(calexp.box)
    assert repository.overlapping("calexp", SkyCircle(ra, dec + radius, 0.001), band="r")
    assert not repository.overlapping("calexp", SkyCircle(ra, dec + radius + 0.01, 0.001), band="r")
    assert not repository.overlapping("calexp", SkyCircle(ra, dec, 0.001), band="g")


def test_two_raws_for_one_id_are_refused(repository: Repository, tmp_path: Path):
    (tmp_path / "a.fits").write_bytes(b"a")
    (tmp_path / "b.fits").write_bytes(b"b")
    words = {"visit": 1, "detector": 0, "band": "r", "day": 20251202}
    repository.ingest(tmp_path / "a.fits", "raw", **words)
    repository.ingest(tmp_path / "a.fits", "raw", **words)
    with pytest.raises(Conflict, match=r"b\.fits"):
        repository.ingest(tmp_path / "b.fits", "raw", **words)
    location = repository.locate("raw", visit=1, detector=0)
    assert location is not None
    assert Path(location).read_bytes() == b"a"
    assert Path(location).is_symlink()
    assert Path(location) == Path(repository.root) / "raw" / "20251202" / "r" / "1_0.fits"


def test_a_chain_reads_through_and_writes_to_the_child_only(tmp_path: Path):
    first = Repository.create(tmp_path / "a", camera="simcam")
    second = Repository.create(tmp_path / "b", parents=[first.root])
    third = Repository.create(tmp_path / "c", parents=[second.root])
    first.put(samples.calib(1), "jointcal_calib", **ID)
    assert third.get("jointcal_calib", **ID) == samples.calib(1)
    third.put(samples.calib(3), "jointcal_calib", **ID)
    second.put(samples.calib(2), "jointcal_calib", **ID)
    values = [repository.get("jointcal_calib", **ID) for repository in (first, second, third)]
    assert values == [samples.calib(seed) for seed in (1, 2, 3)]
    listed = [repository.find("jointcal_calib") for repository in (first, second, third)]
    assert [len(entries) for entries in listed] == [1, 1, 1]
    assert third.get_entry(listed[2][0]) == samples.calib(3)  # the child's hides its parents'
    assert Path(second.location(listed[1][0])).is_relative_to(tmp_path / "b")


def test_what_lies_in_child_and_parents_comes_in_one_order(tmp_path: Path, calexp: CalExp):
    parent = Repository.create(tmp_path / "parent", camera="simcam")
    child = parent.rerun("child")
    for visit in range(1, 5):
        (parent if visit % 2 else child).put(calexp, "calexp", visit=visit, detector=0, band="r")
    assert [entry.data_id["visit"] for entry in child.find("calexp")] == [1, 2, 3, 4]


def test_what_lies_near_in_a_parent_comes_before_what_lies_far_in_the_child(tmp_path: Path, calexp: CalExp):
    parent = Repository.create(tmp_path / "parent", camera="simcam")
    child = parent.rerun("child")
    for visit, repository in ((1, parent), (2, child)):
        repository.put(calexp, "calexp", visit=visit, detector=0)
    (far,) = child.find("calexp", visit=2)
    circle = far.region
    assert circle is not None
    child.own.registry.add([replace(far, region=replace(circle, dec=circle.dec + 0.5 * circle.radius))])
    assert [entry.data_id["visit"] for entry in child.overlapping("calexp", circle)] == [1, 2]


def test_a_dataset_that_is_replaced_after_the_look_up_is_read_as_it_is_now(repository: Repository, calexp: CalExp):
    reader = Repository(repository.root)
    for value in (2.0, 3.0):  # at another path, and at the path of the first again
        repository.put(bias(value - 1), "bias", detector=0)
        (before,) = reader.find("bias")
        repository.put(bias(value), "bias", detector=0)
        with reader.tracking() as read:
            np.testing.assert_array_equal(reader.get_entry(before), bias(value))
        assert [one.checksum for one in read] == [reader.find("bias")[0].checksum]


def test_parents_that_go_round_are_refused(tmp_path: Path):
    first = Repository.create(tmp_path / "a", camera="simcam")
    second = Repository.create(tmp_path / "b", parents=[first.root])
    with (tmp_path / "a" / "repository.yaml").open("a") as file:
        file.write(f"parents: [{second.root}]\n")
    with pytest.raises(BadSettings, match="go round in a circle"):
        Repository(tmp_path / "b")


def test_calibrations_are_found_by_the_time_of_the_exposure(repository: Repository):
    for level, valid in ((1.0, (60000.0, 60100.0)), (2.0, (60100.0, 60200.0)), (3.0, (60300.0, float("inf")))):
        repository.put(bias(level), "bias", detector=5, valid=valid)
    found = [float(repository.get("bias", detector=5, mjd=mjd)[0, 0]) for mjd in (60000.0, 60099.9, 60100.0, 60999.0)]
    assert found == [1.0, 1.0, 2.0, 3.0]
    with pytest.raises(BadValidity, match=r"no bias with detector=5 is valid at 2023.*2023-.*\.\.") as gap:
        repository.get("bias", detector=5, mjd=60250.0)
    assert "ingest a bias of that time" in gap.value.remedy
    with pytest.raises(DatasetNotFound, match="no location for bias with detector=6"):
        repository.get("bias", detector=6, mjd=60000.0)
    with pytest.raises(DatasetNotFound, match="fits 3 datasets"):
        repository.get("bias", detector=5)


def test_an_open_end_lasts_until_the_next_begins_and_closed_ends_must_not_overlap(repository: Repository):
    repository.put(bias(1.0), "bias", detector=5)
    repository.put(bias(2.0), "bias", detector=5, valid=(60100.0, float("inf")))
    assert float(repository.get("bias", detector=5, mjd=60000.0)[0, 0]) == 1.0
    assert float(repository.get("bias", detector=5, mjd=60100.0)[0, 0]) == 2.0
    repository.put(bias(3.0), "bias", detector=5, valid=(60050.0, 60070.0))
    assert float(repository.get("bias", detector=5, mjd=60060.0)[0, 0]) == 3.0
    with pytest.raises(Conflict, match="overlaps"):
        repository.put(bias(4.0), "bias", detector=5, valid=(60060.0, 60080.0))
    with pytest.raises(BadSettings, match="is empty"):
        repository.put(bias(4.0), "bias", detector=5, valid=(60060.0, 60060.0))


def test_overlapping_spans_that_came_in_are_an_error_of_the_exposure(repository: Repository):
    repository.put(bias(1.0), "bias", detector=5, valid=(60000.0, 60100.0))
    repository.put(bias(2.0), "bias", detector=5, valid=(60200.0, 60300.0))
    from dataclasses import replace

    entry = repository.find("bias")[1]
    repository.own.registry.add([replace(entry, valid=(60050.0, 60300.0))])
    with pytest.raises(BadValidity, match="2 bias with detector=5 are valid"):
        repository.get("bias", detector=5, mjd=60060.0)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove"])
def test_a_damaged_file_is_named_with_its_checksum(repository: Repository, calexp: CalExp, damage: str):
    path = Path(repository.put(calexp, "calexp", **ID))
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes({"truncate": content[:-5000], "empty": b""}.get(damage, bytes(content)))
    if damage == "remove":
        path.unlink()
        with pytest.raises(FileMissing, match=r"calexp/7/3\.fits \(calexp visit=7 detector=3"):
            repository.get("calexp", **ID)
        return
    with pytest.raises(BadFile, match=r"calexp/7/3\.fits \(calexp visit=7 detector=3.*sha256 is .*stored was"):
        repository.get("calexp", **ID)
    assert len(check_repository(repository, contents=True).damaged) == 1


def test_every_dataset_knows_what_it_was_made_from(repository: Repository, tmp_path: Path):
    (tmp_path / "raw.fits").write_bytes(b"raw")
    repository.ingest(tmp_path / "raw.fits", "raw", **ID, band="r", day=20251202)
    repository.put(bias(1.0), "bias", detector=3)
    with repository.tracking() as read:
        repository.get("bias", detector=3, mjd=60000.0)
        repository.note(repository.entry("raw", **ID))
    repository.own.registry.add_run("abc", {"settings": {"isr": 1}})
    repository.put(samples.calexp(0), "calexp", inputs=read, run="abc", **ID)
    child = repository.rerun("one")
    calexp = child.input(child.entry("calexp", **ID))
    child.put(samples.sources(), "src", inputs=[calexp], run="abc", **ID)

    tree = why(child, "src", **ID)
    assert [leaf.used.type for leaf in tree.leaves()] == ["bias", "raw"]
    lines = list(tree.lines())
    assert lines[0].startswith("src  visit=7 detector=3  sha256 ")
    assert lines[1].startswith("  calexp  visit=7 detector=3  sha256 ")
    assert "run abc" in lines[1]
    assert tree.made_from[0].record == {"settings": {"isr": 1}}
    assert {one.type for one in repository.get("calexp.inputs", **ID)} == {"bias", "raw"}
    assert repository.precursors("calexp", **ID) == tuple(read)

    repository.put(samples.calexp(1), "calexp", **ID)
    assert "[replaced]" in list(why(child, "src", **ID).lines())[1]


def test_the_same_content_and_history_again_changes_nothing(repository: Repository):
    path = Path(repository.put(samples.calib(1), "jointcal_calib", run="a", **ID))
    before = path.stat().st_mtime_ns
    assert repository.put(samples.calib(1), "jointcal_calib", run="a", **ID) == str(path)
    assert path.stat().st_mtime_ns == before
    repository.put(samples.calib(1), "jointcal_calib", run="b", **ID)
    entry = repository.entry("jointcal_calib", **ID)
    assert entry is not None
    assert entry.run == "b"


def test_orphans_of_a_killed_writer_are_found_and_removed(repository: Repository):
    repository.put(samples.calib(1), "jointcal_calib", **ID)
    orphan = Path(repository.root) / "jointcal" / "calib" / "8" / "0.yaml"
    orphan.parent.mkdir()
    orphan.write_text("half")
    assert repository.locate("jointcal_calib", visit=8, detector=0) is None
    assert check_repository(repository).orphans == ["jointcal/calib/8/0.yaml"]
    repository.put(samples.calib(2), "jointcal_calib", visit=8, detector=0)  # takes a path beside it
    assert repository.get("jointcal_calib", visit=8, detector=0) == samples.calib(2)
    check_repository(repository, remove_orphans=True)
    assert not orphan.exists()
    assert repository.get("jointcal_calib", visit=8, detector=0) == samples.calib(2)


def test_datasets_whose_type_is_not_declared_and_repositories_inside_are_no_orphans(repository: Repository):
    (Path(repository.root) / "policy.yaml").write_text("weather: {template: 'weather/{visit}.json', format: json}\n")
    Repository(repository.root).put({"wind": 3}, "weather", visit=1)
    (Path(repository.root) / "policy.yaml").unlink()
    inside = Repository.create(Path(repository.root) / "out", parents=[repository.root])
    inside.put(bias(1), "bias", detector=0)
    report = check_repository(Repository(repository.root), contents=True, remove_orphans=True)
    assert (report.datasets, report.damaged, report.orphans) == (1, [], [])
    np.testing.assert_array_equal(inside.get("bias", detector=0), bias(1))


def test_a_dataset_made_from_that_of_its_parent_has_a_tree(repository: Repository):
    repository.put(samples.calib(1), "jointcal_calib", **ID)
    child = repository.rerun("child")
    with child.tracking() as inputs:
        child.get("jointcal_calib", **ID)
    child.put(samples.calib(2), "jointcal_calib", inputs=inputs, **ID)
    (below,) = why(child, "jointcal_calib", **ID).made_from
    assert (below.state, below.location) == ("", repository.locate("jointcal_calib", **ID))


def test_a_folder_that_is_no_repository_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(FileMissing, match="apstream repo create"):
        Repository(tmp_path)


def test_a_repository_keeps_its_camera(repository: Repository):
    with pytest.raises(Conflict, match="simcam"):
        Repository.create(repository.root, camera="decam")


@pytest.mark.parametrize("name", ["", "../x", "/x", ".hidden", "a/../../b"])
def test_reruns_stay_inside_the_repository(repository: Repository, name: str):
    with pytest.raises(BadSettings, match="rerun"):
        repository.rerun(name)


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


def test_a_filter_by_its_own_name_selects_its_band(tmp_path: Path):
    repository = Repository.create(tmp_path / "ste3", camera="saao-ste3")
    repository.put(samples.calib(1), "jointcal_calib", visit=1, detector=0, band="i")
    for words in ("filter=I", "filter=i", "band=I^V"):
        assert len(repository.find("jointcal_calib", repository.select([words]))) == 1
    assert not repository.find("jointcal_calib", repository.select(["filter=R"]))


def test_files_of_a_users_own_are_no_orphans(repository: Repository):
    for name in ("apdb.sqlite", "alerts/a.avro", "jointcal/notes.txt"):
        path = Path(repository.root) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    orphan = Path(repository.root) / "jointcal" / "calib" / "8" / "0~12ab34cd.yaml"
    orphan.parent.mkdir(parents=True)
    orphan.write_text("half")
    assert check_repository(repository, remove_orphans=True).orphans == ["jointcal/calib/8/0~12ab34cd.yaml"]
    assert (Path(repository.root) / "apdb.sqlite").exists()


def test_a_repository_may_be_moved_with_its_reruns(repository: Repository, tmp_path: Path):
    repository.put(samples.calib(1), "jointcal_calib", **ID)
    repository.rerun("one").put(samples.calib(2), "jointcal_calib", visit=8, detector=0)
    repository.close()
    Path(repository.root).rename(tmp_path / "moved")
    moved = Repository(tmp_path / "moved" / "rerun" / "one")
    assert moved.get("jointcal_calib", **ID) == samples.calib(1)
    assert moved.get("jointcal_calib", visit=8, detector=0) == samples.calib(2)


def test_an_existing_repository_keeps_its_registry_and_the_order_of_its_parents(tmp_path: Path):
    first, second = (Repository.create(tmp_path / name, camera="simcam").root for name in "ab")
    Repository.create(tmp_path / "c", parents=[first, second])
    with pytest.raises(Conflict, match="other parents"):
        Repository.create(tmp_path / "c", parents=[second, first])
    with pytest.raises(Conflict, match="another registry"):
        Repository.create(tmp_path / "c", parents=[first, second], registry=f"sqlite:///{tmp_path}/other.sqlite3")
