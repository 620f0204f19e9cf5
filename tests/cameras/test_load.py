from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from apstream.cameras import camera_names, load_camera
from apstream.errors import BadCamera

MINIMAL = {
    "name": "mycam",
    "pixel_scale_arcsec": 0.4,
    "amplifiers": [{"gain": 1.5, "read_noise": 3.0, "saturation": 60000.0}],
    "header": {
        "visit": {"keyword": "EXPNUM"},
        "time": {"date": "DATE-OBS"},
        "exposure_s": {"keyword": "EXPTIME"},
        "filter": {"keyword": "FILTER"},
    },
    "filters": [{"match": ".*", "band": "r"}],
}


def write(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "mycam.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return path


def refusal(path: Path | str) -> str:
    with pytest.raises(BadCamera) as caught:
        load_camera(path)
    return str(caught.value)


def test_the_cameras_promised_are_shipped_and_valid() -> None:
    assert {"decam", "generic", "saao-ste3", "simcam"} <= set(camera_names())
    for name in camera_names():
        assert load_camera(name).name == name


def test_a_user_adds_a_camera_by_one_file(tmp_path: Path) -> None:
    camera = load_camera(write(tmp_path))
    header = {"NAXIS1": 30, "NAXIS2": 20, "EXPNUM": 7, "DATE-OBS": "2024-01-02T03:04:05", "EXPTIME": 60, "FILTER": "x"}
    detector, info = camera.detector(header), camera.exposure_info(header, "x.fits")
    assert (detector.shape, detector.gain, detector.amplifiers[0].overscan) == ((20, 30), 1.5, None)
    assert (info.id.instrument, info.id.visit, info.band, info.physical_filter) == ("mycam", 7, "r", "x")


def test_a_camera_file_may_extend_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: decam\nname: mine\nheader: {object_name: fixed}\n")
    camera, parent = load_camera(path), load_camera("decam")
    assert camera.header.object_name == "fixed"
    assert camera.header.visit == parent.header.visit
    assert camera.detectors == parent.detectors


def test_an_unknown_name_gets_the_nearest() -> None:
    assert "did you mean decam" in refusal("decamm")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "nothere.yaml" in refusal(tmp_path / "nothere.yaml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pixel_scale": 0.3}, ["pixel_scale", "did you mean pixel_scale_arcsec"]),
        ({"name": "my cam"}, ["field name"]),
        ({"amplifiers": []}, ["field amplifiers"]),
        ({"amplifiers": [{"gain": "high", "read_noise": 3, "saturation": 6e4}]}, ["amplifiers.0.gain"]),
        (
            {"amplifiers": [{"gain": 1, "read_noise": 3, "saturation": 6e4, "data": "1:2"}]},
            ["amplifiers.0.data", "not a FITS section"],
        ),
        ({"amplifiers": [{"repeat": ["A", "B"], "gain": 1, "read_noise": 3, "saturation": 6e4}]}, ["{n}"]),
        ({"filters": [{"match": "(", "band": "r"}]}, ["filters.0.match", "regular expression"]),
        ({"header": {**MINIMAL["header"], "visit": {}}}, ["header.visit", "keyword, filename or time"]),
        ({"header": {**MINIMAL["header"], "time": {}}}, ["header.time", "date or mjd"]),
        ({"header": {**MINIMAL["header"], "visit": {"filename": "x"}}}, ["one group"]),
        ({"detectors": {"names": {300: "N1"}}}, ["0..255"]),
        ({"keys": {"chip": "ccd"}}, ["keys.chip", "visit", "detector", "band"]),
        ({"keys": {"visit": "detector"}}, ["keys", "'visit' cannot stand for detector"]),
        ({"keys": {"two words": "visit"}}, ["keys", "'two words'"]),
        ({"settings": [1]}, ["settings", "dictionary"]),
        ({"companion": {}}, ["companion", "did you mean companions"]),
        ({"companions": {"mask": {"replace": ["i", "m"], "codes": {1: "BROKEN"}}}}, ["BROKEN", "STREAK"]),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, changes: dict[str, object], words: list[str]) -> None:
    message = refusal(write(tmp_path, **changes))
    for word in ["mycam.yaml", *words]:
        assert word in message


@pytest.mark.parametrize("content", ["a: [", "- just\n- a list\n", "", "\xff"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content.encode("latin-1"))
    assert "broken.yaml" in refusal(path)


def test_data_id_keys_are_the_cameras(tmp_path: Path) -> None:
    assert load_camera("decam").keys["expnum"] == "visit"
    keys = load_camera(write(tmp_path, keys={"frame": "visit", "night": "day", "ccd": "detector"})).keys
    assert keys == {
        "filter": "band", "ccd": "detector", "ccdnum": "detector", "date": "day", "frame": "visit", "night": "day",
    }  # fmt: skip


def test_a_camera_carries_settings(tmp_path: Path) -> None:
    settings = {"characterize": {"psf": {"degree": 1}}, "isr": {"edge_px": 8}}
    path = write(tmp_path, settings=settings)
    assert load_camera(path).settings == settings
    child = tmp_path / "child.yaml"
    child.write_text("extends: decam\nname: child\nsettings: {isr: {edge_px: 2}}\n")
    assert load_camera(child).settings == {"isr": {"edge_px": 2}}
    assert load_camera("generic").settings == {}
