from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.time import Time

from apstream.cameras import camera_names, load_camera
from apstream.cameras.curation import load_curated
from apstream.errors import BadCamera
from apstream.model.crosstalk import Crosstalk
from apstream.model.defects import Defects

ENTRY = {"detector": 3, "valid_from": "2020-01-01", "valid_to": 59000, "boxes": ["[11:12,1:20]"]}
DEFECTS = {"type": "defects", "source": "a test", "entries": [ENTRY]}
CROSSTALK = {
    "type": "crosstalk", "source": "a test",
    "entries": [{"detector": [1, 2], "names": ["A", "B"], "matrix": [[0, 1e-3], [2e-3, 0]]}],
}  # fmt: skip


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def mjd(date: str) -> float:
    return float(Time(date, scale="utc").tai.mjd)


def valid_numbers(name: str, date: str) -> set[int]:
    """Detectors that the shipped curated calibrations call defective at a time."""
    now = mjd(date)
    return {c.detector for c in load_camera(name).curated() if c.valid[0] <= now < c.valid[1]}


def test_shipped_ones_are_valid_and_say_where_they_are_known_from() -> None:
    for name in camera_names():
        assert all(calib.source for calib in load_camera(name).curated())


@pytest.mark.parametrize(
    ("date", "dead"),
    [("2012-11-07T10:00", set()), ("2012-11-08", {61}), ("2015-06-01", {2, 61}), ("2018-01-01", {61})],
)
def test_decams_dead_ccds_at_a_time(date: str, dead: set[int]) -> None:
    assert valid_numbers("decam", date) == dead


def test_a_dead_ccd_is_bad_all_over() -> None:
    dead = load_camera("decam").curated()[0].value
    assert isinstance(dead, Defects)
    assert dead.mask((4096, 2048)).all()


def test_ste3_hot_pixels_are_hot_in_the_real_frames(shared_data: Path) -> None:
    (calib,) = load_camera("saao-ste3").curated()
    assert isinstance(calib.value, Defects)
    hot = calib.value.mask((512, 512))
    excess, infos = [], []
    for path in sorted((shared_data / "saao_bulge").glob("*.fits"))[::10]:
        image = fits.getdata(path).astype("f4")
        infos.append(load_camera("saao-ste3").exposure_info(fits.getheader(path), str(path)))
        around = np.median([np.roll(image, step, axis=0) for step in (-3, -2, 2, 3)], axis=0)
        excess.append((image - around)[hot] / np.sqrt(np.maximum(around[hot], 1) / 1.9 + 7))
    assert np.all(np.median(excess, axis=0) > 3)
    assert all(calib.valid[0] <= info.mid_mjd_tai < calib.valid[1] for info in infos)


def test_cameras_of_another_frame_do_not_inherit_them() -> None:
    assert load_camera("saao-ste3-raw").curated() == ()
    assert load_camera("decam-instcal").curated() == ()


def test_a_users_camera_names_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path / "known", defects=DEFECTS, crosstalk=CROSSTALK)
    (tmp_path / "mine.yaml").write_text("extends: decam\nname: mine\ncurated: known\n")
    first, second, defects = load_camera(tmp_path / "mine.yaml").curated()
    assert isinstance(first.value, Crosstalk)
    assert (first.type, first.detector, second.detector) == ("crosstalk", 1, 2)
    assert first.valid == (-math.inf, math.inf)
    assert first.value.between("A", "B") == 2e-3
    assert isinstance(defects.value, Defects)
    assert defects.valid == (mjd("2020-01-01"), 59000)
    assert np.argwhere(defects.value.mask((20, 30))).tolist() == [[y, x] for y in range(20) for x in (10, 11)]


def test_what_extends_a_shipped_camera_has_its_calibrations(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: decam\nname: mine\n")
    assert load_camera(tmp_path / "mine.yaml").curated() == load_camera("decam").curated()


def test_two_at_one_time_are_refused(tmp_path: Path) -> None:
    later = {**ENTRY, "valid_from": 58998, "valid_to": None}
    folder = write(tmp_path / "twice", one=DEFECTS, two={**DEFECTS, "entries": [later]})
    with pytest.raises(BadCamera, match=r"twice.*detector 3.*58998"):
        load_curated(folder)
    shutil.rmtree(folder)
    after = {**ENTRY, "valid_from": 59000, "valid_to": None}
    assert len(load_curated(write(tmp_path / "after", one=DEFECTS, two={**DEFECTS, "entries": [after]}))) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**DEFECTS, "source": ""}, "source"),
        ({**DEFECTS, "type": "bias"}, "type"),
        ({**DEFECTS, "entries": [{**ENTRY, "valid_from": "soon"}]}, "entries.0.valid_from.*soon"),
        ({**DEFECTS, "entries": [{**ENTRY, "valid_from": 60000}]}, "valid_from must come before"),
        ({**DEFECTS, "entries": [{**ENTRY, "boxes": ["[1:2]"]}]}, "not a FITS section"),
        ({**DEFECTS, "entries": [{**ENTRY, "colour": 1}]}, "colour"),
        ({**CROSSTALK, "entries": [{"detector": 1, "names": ["A", "B"], "matrix": [[0, 1], [0, 0]]}]}, "below one"),
        ({**CROSSTALK, "entries": [ENTRY]}, "names and matrix"),
        ({**DEFECTS, "entries": CROSSTALK["entries"]}, "has boxes"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_field(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(BadCamera, match=f"(?s)broken.yaml.*{words}"):
        load_curated(write(tmp_path / "wrong", broken=content))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: decam\nname: mine\ncurated: nowhere\n")
    with pytest.raises(BadCamera, match="nowhere"):
        load_camera(tmp_path / "mine.yaml").curated()
