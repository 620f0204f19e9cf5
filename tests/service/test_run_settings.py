"""Where the stages' settings come from, in the service's children and in the batch commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from apstream.errors import BadSettings
from apstream.pipeline.config import PixelConfig
from apstream.service.coadd_settings import CoaddSettings
from apstream.service.pixel_job import stages_for
from apstream.service.pixel_settings import PixelSettings
from apstream.service.run_settings import load_coadd, load_run
from apstream.service.settings import load_daemon


@pytest.fixture
def camera(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: simcam\nname: mine\nsettings: {detect: {threshold_sigma: 4.5, sky_sources: 7}}\n")
    return str(path)


def test_a_child_of_the_service_puts_the_cameras_settings_below_its_own(camera: str) -> None:
    service = load_daemon(["pixels.stages.detect.threshold_sigma=6"], {}).pixels
    stages = stages_for(camera, PixelSettings.model_validate(service).stages)
    assert (stages.detect.threshold_sigma, stages.detect.sky_sources) == (6.0, 7)
    assert stages_for("simcam", service.stages) is service.stages


def test_what_a_batch_run_has_settled_is_not_changed_by_a_child(camera: str) -> None:
    chosen = load_run(camera, overrides=["detect.sky_sources=100"], environment={}).stages
    assert chosen.detect.threshold_sigma == 4.5
    sent = PixelSettings.model_validate({"stages": chosen.model_dump(mode="json")}).stages
    assert stages_for(camera, sent) == chosen  # sky_sources is the default's value, and not the camera's


def test_a_wrong_setting_of_a_camera_names_the_camera(camera: str) -> None:
    Path(camera).with_name("bad.yaml").write_text("extends: simcam\nname: bad\nsettings: {detect: {treshold: 1}}\n")
    with pytest.raises(BadSettings, match=r"bad\.yaml.*detect\.treshold"):
        stages_for(str(Path(camera).with_name("bad.yaml")), PixelConfig())


def test_one_shell_holds_the_settings_of_service_and_batch() -> None:
    environment = {
        "APSTREAM__PIXELS__STAGES__SUBTRACT__WHITEN": "null",
        "APSTREAM__APDB__HISTORY_DAYS": "30",
        "APSTREAM__TRANSPORT__KIND": "kafka",
        "APSTREAM__PIXELS__REPOSITORY__ROOT": "/data/repo",
    }
    run, service = load_run("simcam", environment=environment), load_daemon([], environment)
    assert run.subtract.whiten is service.pixels.stages.subtract.whiten is None
    assert run.apdb.history_days == service.apdb.history_days == 30
    assert service.pixels.repository.root == "/data/repo"
    with pytest.raises(BadSettings, match=r"variable APSTREAM__APDB__HISTORY: no setting .apdb\.history."):
        load_daemon([], {"APSTREAM__APDB__HISTORY": "3"})


def test_calexps_of_coadds_are_made_with_the_same_settings(camera: str, tmp_path: Path) -> None:
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "APSTREAM__PIXELS__STAGES__DETECT__SKY_SOURCES": "9"}
    (tmp_path / "apstream").mkdir()
    personal = tmp_path / "apstream" / "settings.yaml"
    personal.write_text("isr: {max_noise_factor: 3}\npatch_size_pixel: 512\n")
    chosen = load_coadd(CoaddSettings, camera, environment=environment)
    assert (chosen.stages.detect.threshold_sigma, chosen.stages.detect.sky_sources) == (4.5, 9)
    assert (chosen.stages.isr.max_noise_factor, chosen.patch_size_pixel) == (3.0, 512)
    personal.write_text("isr:\n  max_noise_facto: 3\n")
    with pytest.raises(BadSettings, match=r"settings\.yaml:2: no setting .stages\.isr\.max_noise_facto. \(did"):
        load_coadd(CoaddSettings, camera, environment=environment)
