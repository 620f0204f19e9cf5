"""The founding cases of composite datasets, as docs/composites.md shows them, with its own policy and module."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import repo_samples as samples

from apstream.errors import BadSettings, Conflict, DatasetNotFound
from apstream.model.exposures import CalExp
from apstream.repo.repository import Repository
from apstream.repo.upkeep import check_repository

DOCS = Path(__file__).parent.parent.parent / "docs" / "composites"
ID = {"visit": 1, "detector": 0}


@pytest.fixture
def survey(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(DOCS))
    import survey

    yield survey
    sys.modules.pop("survey", None)


@pytest.fixture
def repository(tmp_path: Path, survey: Any) -> Repository:
    Repository.create(tmp_path / "repo", camera="simcam").close()
    shutil.copy(DOCS / "policy.yaml", tmp_path / "repo" / "policy.yaml")
    return Repository(tmp_path / "repo")


def files(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.suffix in (".fits", ".parquet")}


def with_policy(tmp_path: Path, text: str) -> Repository:
    Repository.create(tmp_path / "other", camera="simcam").close()
    (tmp_path / "other" / "policy.yaml").write_text(text)
    return Repository(tmp_path / "other")


def sky(wcs: Any) -> tuple[float, float]:
    ra, dec = wcs.pixel_to_sky(np.array([3.0]), np.array([4.0]))
    return float(ra[0]), float(dec[0])


def test_jointcalexp_takes_pixels_from_the_calexp_and_wcs_and_calib_from_the_joint_fit(repository: Repository):
    repository.put(samples.calexp(0), "calexp", **ID)
    before = repository.get("jointcalexp", **ID)
    assert sky(before.wcs) == pytest.approx(sky(samples.wcs(0)))  # no joint fit yet: the earlier stage's
    repository.put(samples.wcs(2), "jointcal_wcs", **ID)
    repository.put(samples.calib(2), "jointcal_calib", **ID)
    joint = repository.get("jointcalexp", **ID)
    assert sky(joint.wcs) == pytest.approx(sky(samples.wcs(2)))
    assert joint.photo_calib == samples.calib(2)
    np.testing.assert_allclose(joint.image.image, samples.calexp(0).image.image * 2, rtol=1e-6)  # 4 nJy for 2
    np.testing.assert_allclose(joint.image.variance, 4.0)
    np.testing.assert_allclose(joint.stars["flux"], samples.stars(0)["flux"] * 2)
    np.testing.assert_array_equal(joint.psf.basis, repository.get("calexp.psf", **ID).basis)
    assert not (Path(repository.root) / "jointcalexp").exists()


def test_a_component_comes_through_its_own_type(repository: Repository):
    repository.put(samples.calexp(1), "calexp", **ID)
    assert sky(repository.get("calexp_wcs", **ID)) == pytest.approx(sky(samples.wcs(1)))
    assert repository.get("calexp.calib", **ID) == samples.calib(1)
    np.testing.assert_array_equal(repository.get("calexp.psf", **ID).basis, samples.psf(1).basis)
    repository.put(samples.wcs(3), "jointcal_wcs", **ID)
    assert sky(repository.get("jointcalexp.wcs", **ID)) == pytest.approx(sky(samples.wcs(3)))


def test_an_unknown_component_lists_what_exists(repository: Repository):
    with pytest.raises(DatasetNotFound, match="calexp has no component 'psff'") as refused:
        repository.get("calexp.psff", **ID)
    assert "psf" in refused.value.remedy
    assert "wcs" in refused.value.remedy
    with pytest.raises(DatasetNotFound, match="bluegreen_src has no component 'red'") as refused:
        repository.get("bluegreen_src.red", visit=1)
    assert "blue, green" in refused.value.remedy


def test_separate_psf_and_calib_replace_the_stored_ones(repository: Repository):
    repository.put(samples.calexp(0), "calexp", **ID)
    repository.put(samples.psf(1), "final_psf", **ID)
    repository.put(samples.calib(1), "final_calib", **ID)
    final = repository.get("finalexp", **ID)
    assert final.psf.fwhm() == pytest.approx(samples.psf(1).fwhm(), rel=1e-3)
    assert final.photo_calib == samples.calib(1)


@pytest.mark.parametrize("name", ["extended_icSrc", "extended_icSrc_attributes"])
def test_extended_sources_by_construction_and_by_attributes(repository: Repository, name: str):
    repository.put(samples.calexp(0), "calexp", **ID)
    repository.put(samples.sources(4), "icSrc", **ID)
    extended = repository.get(name, **ID)
    np.testing.assert_array_equal(extended.sources["flux"], 500.0)
    assert extended.calib == samples.calib(0)
    assert sky(extended.wcs) == pytest.approx(sky(samples.wcs(0)))


def test_extended_sources_by_setters_are_written_without_the_input_only_parts(repository: Repository, survey: Any):
    repository.put(samples.calexp(0), "calexp", **ID)
    value = survey.SourcesWithSetters()
    value.set_sources(samples.sources(5))
    value.set_wcs(samples.wcs(9))
    value.set_calib(samples.calib(9))
    repository.put(value, "extended_icSrc_setters", **ID)
    again = repository.get("extended_icSrc_setters", **ID)
    np.testing.assert_array_equal(again.get_sources()["flux"], 600.0)
    assert again.get_calib() == samples.calib(0)  # input only: what was given is not written


def test_before_detection_both_are_written_after_it_only_the_background(repository: Repository, survey: Any):
    both = survey.ExposureWithBackground(samples.exposure(0), samples.background(0))
    repository.put(both, "predetection", **ID)
    root = Path(repository.root)
    exposure_file = root / "skyexp" / "1" / "0.fits"
    assert {"skyexp/1/0.fits", "sky/1/0.fits"} <= files(root)
    before = exposure_file.stat().st_mtime_ns
    repository.put(survey.ExposureWithBackground(samples.exposure(7), samples.background(3)), "postdetection", **ID)
    again = repository.get("postdetection", **ID)
    assert float(again.background.mesh[0, 0]) == 13.0
    np.testing.assert_array_equal(again.exposure.image.image, samples.exposure(0).image.image)
    assert exposure_file.stat().st_mtime_ns == before


def test_none_means_do_not_write_and_a_missing_part_is_refused(repository: Repository, survey: Any):
    repository.put(survey.ExposureWithBackground(samples.exposure(0), None), "predetection", **ID)
    assert repository.locate("sky_background", **ID) is None
    assert repository.locate("sky_exposure", **ID)

    class Half:
        exposure = samples.exposure(0)

    with pytest.raises(BadSettings, match="leaves out background"):
        repository.put(Half(), "predetection", **ID)


def test_missing_parts_may_be_ignored_by_policy(tmp_path: Path, survey: Any):
    text = (DOCS / "policy.yaml").read_text().replace("predetection:\n", "predetection:\n  missing: ignore\n")
    repository = with_policy(tmp_path, text)

    class Half:
        exposure = samples.exposure(0)

    repository.put(Half(), "predetection", **ID)
    assert repository.locate("sky_exposure", **ID)


def test_blue_and_green_are_one_table_by_a_users_function(repository: Repository):
    repository.put(samples.table(0), "blue_src", visit=1)
    repository.put(samples.table(1, rows=2), "green_src", visit=1)
    both = repository.get("bluegreen_src", visit=1)
    assert both["colour"].to_pylist() == ["blue"] * 3 + ["green"] * 2
    assert both["id"].to_pylist() == [0, 1, 2, 10, 11]
    with pytest.raises(BadSettings, match="bluegreen_src is read only"):
        repository.put(both, "bluegreen_src", visit=1)


def test_an_aggregate_is_everything_that_matches_and_is_stored_only_when_asked(repository: Repository):
    for band, tract, patch in (("g", 0, 1), ("r", 0, 1), ("r", 0, 2), ("r", 1, 1)):
        repository.put(samples.table(patch), "deepCoadd_src", band=band, tract=tract, patch=patch)
    everything = repository.get("deepCoadd_src_aggregate", band="r")
    assert len(everything) == 9
    assert sorted(set(zip(everything["tract"].to_pylist(), everything["patch"].to_pylist(), strict=True))) == [
        (0, 1), (0, 2), (1, 1)
    ]  # fmt: skip
    assert len(repository.get("deepCoadd_src_aggregate", band="r", tract=0)) == 6
    assert len(repository.get("deepCoadd_src_aggregate")) == 12
    assert repository.locate("deepCoadd_src_aggregate", band="r") is None
    repository.put(everything, "deepCoadd_src_aggregate", band="r")
    repository.put(samples.table(5), "deepCoadd_src", band="r", tract=9, patch=9)
    assert len(repository.get("deepCoadd_src_aggregate", band="r")) == 9  # the stored one, until it is made again
    with pytest.raises(DatasetNotFound, match="no location for deepCoadd_src with band=z"):
        repository.get("deepCoadd_src_aggregate", band="z")


def test_a_shared_component_is_written_once_and_never_changed(repository: Repository, survey: Any):
    for visit in (1, 2, 3):
        value = survey.PointedExposure(samples.exposure(visit), samples.wcs(0))
        repository.put(value, "pointed_exposure", visit=visit, detector=0, pointing="north")
    assert len(repository.find("pointing_wcs")) == 1
    other = survey.PointedExposure(samples.exposure(4), samples.wcs(1))
    with pytest.raises(Conflict, match="pointing=north"):
        repository.put(other, "pointed_exposure", visit=4, detector=0, pointing="north")
    assert repository.locate("sky_exposure", visit=4, detector=0) is None  # all or nothing
    assert check_repository(repository).orphans == []
    assert sky(repository.get("pointing_wcs", pointing="north")) == pytest.approx(sky(samples.wcs(0)))


def test_only_changed_components_go_to_the_child(repository: Repository, survey: Any, tmp_path: Path):
    both = survey.ExposureWithBackground(samples.exposure(0), samples.background(0))
    repository.put(both, "predetection", **ID)
    child = repository.rerun("sky")
    child.put(survey.ExposureWithBackground(both.exposure, samples.background(5)), "predetection", **ID)
    assert files(Path(child.root)) == {"sky/1/0.fits"}
    merged = child.get("predetection", **ID)
    assert float(merged.background.mesh[0, 0]) == 15.0
    np.testing.assert_array_equal(merged.exposure.image.image, both.exposure.image.image)
    assert float(repository.get("predetection", **ID).background.mesh[0, 0]) == 10.0


def test_composites_of_composites_are_taken_apart_to_the_last_file(tmp_path: Path, survey: Any):
    nested = """
outer:
  disassembler: apstream.repo.assembly:attributes
  class: types:SimpleNamespace
  components: {inner: predetection, note: remark}
remark: {template: "remark/{visit}.txt", format: text}
"""
    repository = with_policy(tmp_path, (DOCS / "policy.yaml").read_text() + nested)
    from types import SimpleNamespace

    inner = survey.ExposureWithBackground(samples.exposure(0), samples.background(2))
    repository.put(SimpleNamespace(inner=inner, note="clear night"), "outer", **ID)
    again = repository.get("outer", **ID)
    assert again.note == "clear night"
    assert float(again.inner.background.mesh[0, 0]) == 12.0
    assert float(repository.get("predetection", **ID).background.mesh[0, 0]) == 12.0


def test_the_assembler_sees_data_id_components_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "watcher.py").write_text("def watch(data_id, components, cls):\n    return data_id, components, cls\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    repository = with_policy(
        tmp_path,
        "remark: {template: 'remark/{visit}.txt', format: text}\n"
        "seen: {assembler: 'watcher:watch', class: 'fractions:Fraction', components: {word: remark}}\n",
    )
    repository.put("clear", "remark", visit=3)
    data_id, components, cls = repository.get("seen", visit=3)
    assert (data_id, components, cls.__name__) == ({"visit": 3}, {"word": "clear"}, "Fraction")


def test_a_missing_component_names_itself_unless_it_is_optional(tmp_path: Path):
    text = """
remark: {template: 'remark/{visit}.txt', format: text}
weather: {template: 'weather/{visit}.yaml', format: yaml}
night: {components: {remark: remark, weather: {type: weather, optional: true}}}
strict: {components: {remark: remark, weather: weather}}
"""
    repository = with_policy(tmp_path, text)
    repository.put("clear", "remark", visit=3)
    assert repository.get("night", visit=3) == {"remark": "clear", "weather": None}
    with pytest.raises(DatasetNotFound, match="strict lacks its component weather: no location for weather"):
        repository.get("strict", visit=3)


def test_a_calexp_put_whole_is_got_whole_through_the_composite(repository: Repository):
    repository.put(samples.calexp(0), "calexp", **ID)
    repository.put(samples.calexp(1), "finalexp", **ID)  # psf and calib only; the calexp is input only
    final: CalExp = repository.get("finalexp", **ID)
    assert final.photo_calib == samples.calib(1)
    np.testing.assert_allclose(final.image.image, samples.calexp(0).image.image * 1.5, rtol=1e-6)
