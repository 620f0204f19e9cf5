"""Stages that settings replace, and what every stage says of its result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apstream.cameras import load_camera
from apstream.errors import BadSettings
from apstream.model.calibs import IsrCalibs
from apstream.model.exposures import CalExp, RawExposure
from apstream.model.products import KnownObjects
from apstream.model.refcat import RefCat
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.pixels import PixelInputs, PixelResult, calibrate_raw, find_dia_sources
from apstream.pipeline.report import stage_records
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.raw import read_raw
from apstream.service.pixel_job import Stopwatch
from apstream.settings import load_settings
from apstream.simulate.config import NightConfig
from apstream.simulate.night import simulate_night
from apstream.tasks.template import TemplateInput

STAGES = ["isr", "characterize", "calibrate", "template", "subtract", "detect", "measure", "forced", "cutouts"]
Field = tuple[list[RawExposure], RefCat]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    out = tmp_path_factory.mktemp("night")
    simulate_night(out, NightConfig(size=384, visits=1, template_visits=1, seed=4))
    raws = [read_raw(path, load_camera("simcam")) for path in sorted((out / "raw").iterdir())]
    return raws, read_refcat(out / "refcat.parquet", band="r")


@pytest.fixture(scope="module")
def watched(field: Field) -> tuple[PixelResult, Stopwatch]:
    raws, refcat = field
    watch, template = Stopwatch(), calexp(raws[0], refcat, PixelConfig())
    inputs = PixelInputs(
        calibs=IsrCalibs(),
        reference=refcat,
        templates=[TemplateInput.from_image(template, "t")],
        known=KnownObjects(np.array([7]), *(np.array([float(v)]) for v in template.wcs.pixel_to_sky(100.0, 100.0))),
    )
    return find_dia_sources(raws[1], inputs, PixelConfig(), watch), watch


def calexp(raw: RawExposure, refcat: RefCat, config: PixelConfig) -> CalExp:
    return calibrate_raw(raw, IsrCalibs(), refcat, config)


def test_every_stage_reports_its_time_and_its_counts(watched: tuple[PixelResult, Stopwatch]) -> None:
    result, watch = watched
    records = stage_records(result.products.metrics, watch.seconds)
    assert [name for name in records if name in STAGES] == STAGES
    for stage in STAGES:
        assert records[stage]["seconds"] > 0
        assert len(records[stage]) > 1, stage
    assert records["measure"]["n"] == len(result.products.dia_sources)
    assert records["forced"]["n"] == len(result.products.forced) == 1
    assert records["cutouts"]["n"] == len(result.products.cutouts)
    assert records["template"] | {"coverage": 0, "median_variance": 0, "seconds": 0} == {
        "n_inputs": 1,
        "coverage": 0,
        "median_variance": 0,
        "seconds": 0,
    }
    assert 0.5 < records["template"]["coverage"] <= 1
    detected = records["detect"]
    assert detected["n_positive"] + detected["n_negative"] == detected["n_footprints"]
    assert records["characterize"]["n_stars"] > 20
    assert records["isr"]["median_level"] == pytest.approx(records["characterize"]["sky"], rel=0.05)


def test_a_replaced_stage_is_called_and_keeps_its_name(field: Field) -> None:
    raws, refcat = field
    other = PixelConfig.model_validate({"replace": {"characterize": "helpers.other_stages:doubled"}})
    assert PixelConfig.model_validate(other.model_dump(mode="json")) == other  # as it travels to a child
    ours, theirs = calexp(raws[0], refcat, PixelConfig()), calexp(raws[0], refcat, other)
    assert theirs.metrics["characterize.sky"] == pytest.approx(2 * ours.metrics["characterize.sky"], rel=0.01)
    assert theirs.metrics.keys() == ours.metrics.keys()


def test_what_a_replaced_stage_returns_is_checked(field: Field) -> None:
    raws, refcat = field
    wrong = PixelConfig.model_validate({"replace": {"isr": "helpers.other_stages:wrong_type"}})
    with pytest.raises(BadSettings, match=r"replace\.isr: .*wrong_type returned a MaskedImage where isr"):
        calexp(raws[0], refcat, wrong)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("replace.isr=helpers.nowhere:isr", r"-c replace\.isr: .*stage isr: cannot import 'helpers\.nowhere:isr'"),
        ("replace.detect=helpers.other_stages:not_there", "stage detect: cannot import"),
        ("replace.detect=helpers.other_stages:NOTHING", "stage detect: .*is no function"),
        ("replace.detect=helpers.other_stages:one_argument", "with the 2 arguments of detect"),
        ("replace.detct=helpers.other_stages:doubled", "detct"),
    ],
)
def test_a_wrong_replacement_is_refused_when_settings_are_read(override: str, told: str) -> None:
    with pytest.raises(BadSettings, match=told):
        load_settings(PixelConfig, overrides=[override])


def test_the_settings_for_calexp_templates_run(field: Field) -> None:
    raws, refcat = field
    config = load_settings(PixelConfig, files=[Path("@calexp-template")])
    templates = [TemplateInput.from_image(calexp(raws[0], refcat, config), "t")]
    inputs = PixelInputs(calibs=IsrCalibs(), reference=refcat, templates=templates, known=KnownObjects.none())
    result = find_dia_sources(raws[1], inputs, config)
    assert result.products.metrics["template.n_inputs"] == 1
    assert 0.5 < result.products.metrics["detect.sky_snr_std"] < 1.5
