"""ISR by command: with files, in a repository, with a camera's own function, for one detector alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from helpers.calib_frames import frame, make_chip, write_frames
from typer.testing import CliRunner

from apstream.cameras import load_camera
from apstream.cli.main import app, register
from apstream.errors import ApstreamError, BadFile, BadSettings, WrongSize
from apstream.model.calibs import IsrCalibs
from apstream.model.crosstalk import Crosstalk
from apstream.model.defects import Defects
from apstream.model.exposures import CalExp, CharacterizedExposure, Exposure
from apstream.model.frames import MemoryFrames
from apstream.model.geometry import Box
from apstream.model.linearity import Linearity
from apstream.model.transfer import PhotonTransfer
from apstream.repo.formats.fits import read_exposure
from apstream.repo.formats.raw import read_raw
from apstream.repo.formats.registry import FORMATS
from apstream.repo.repository import Repository
from apstream.simulate.config import NightConfig
from apstream.simulate.night import simulate_night
from apstream.tasks.isr import IsrConfig, isr

SIZE = 192
CHIP = make_chip(size=SIZE)
STAGES = ("isr", "characterize", "calibrate")
NAMES = tuple(a.name for a in CHIP.detector.amplifiers)
STRANGE = Linearity(names=("X",), kind="polynomial", coefficients=(np.array([1e-6]),), max_adu=(2e4,))


def apstream(*words: object) -> str:
    register()
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, ApstreamError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def fringes() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.sin(x / 7 + np.sin(y / 30)).astype(np.float32)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    light = 2000 + 60 * fringes() + 5e4 * (np.hypot(*np.mgrid[-40 : SIZE - 40, -60 : SIZE - 60]) < 4)
    frames = MemoryFrames([frame(CHIP, 7, "science", light=light, exposure_s=30.0)])
    return write_frames(tmp_path_factory.mktemp("raw"), frames)[0]


@pytest.fixture(scope="module")
def calibs() -> IsrCalibs:
    kernel = np.zeros((5, 5))
    kernel[2, 2], kernel[2, 1:4:2], kernel[1:4:2, 2] = -1e-6, -3e-7, -3e-7
    return IsrCalibs(
        defects=Defects((Box(3, 4, 9, 6),)).mask((SIZE, SIZE)),
        crosstalk=Crosstalk(NAMES, 1e-3 * (1 - np.eye(len(NAMES)))),
        linearity=Linearity(
            names=NAMES, kind="polynomial", coefficients=(np.array([1e-6]),) * len(NAMES), max_adu=(2e4,) * len(NAMES)
        ),
        fringe=fringes(),
        brighter_fatter=kernel.astype(np.float32).astype(np.float64),
        transfer=PhotonTransfer(
            names=NAMES, **{key: (1.7,) * len(NAMES) for key in ("gain", "gain_err", "read_noise", "a00")},
            turnoff_adu=(np.nan,) * len(NAMES),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def files(calibs: IsrCalibs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night") / "calib"
    folder.mkdir()
    for name, kept, value in (
        ("defects_0.yaml", "defects", Defects((Box(3, 4, 9, 6),))),
        ("crosstalk_0.yaml", "crosstalk", calibs.crosstalk),
        ("linearity_0.yaml", "linearity", calibs.linearity),
        ("ptc_0.yaml", "photon_transfer", calibs.transfer),
        ("fringe_r_0.fits", "array", calibs.fringe),
        ("bfKernel_0.fits", "array", calibs.brighter_fatter),
    ):
        FORMATS[kept].write(folder / name, value)
    return folder


@pytest.fixture(scope="module")
def expected(raw: Path, calibs: IsrCalibs) -> Exposure:
    config = IsrConfig.model_validate({"fringe": {"bands": ["r"]}, "brighter_fatter": {}})
    return isr(read_raw(raw, load_camera("simcam")), calibs, config)


def assert_same(found: Exposure | CharacterizedExposure | CalExp, expected: Any) -> None:
    for plane in ("image", "mask", "variance"):
        np.testing.assert_array_equal(getattr(found.image, plane), getattr(expected.image, plane))


def test_a_file_of_another_calibration_is_refused_by_name(raw: Path, tmp_path: Path) -> None:
    FORMATS["defects"].write(tmp_path / "defects.yaml", Defects(()))
    words = ("isr", raw, "--camera", "simcam", "--out", tmp_path / "isr.fits")
    with pytest.raises(BadFile, match=r"this crosstalk file: it lacks 'amplifiers' \(give a crosstalk file"):
        apstream(*words, "--crosstalk", tmp_path / "defects.yaml")
    with pytest.raises(BadFile, match=r"this crosstalk file: .*\(give a crosstalk file"):
        apstream(*words, "--crosstalk", raw)


def test_calibrations_are_given_as_files(raw: Path, files: Path, expected: Exposure, tmp_path: Path) -> None:
    options = {
        "--defects": "defects_0.yaml",
        "--crosstalk": "crosstalk_0.yaml",
        "--linearity": "linearity_0.yaml",
        "--ptc": "ptc_0.yaml",
        "--fringe": "fringe_r_0.fits",
        "--bf-kernel": "bfKernel_0.fits",
    }
    words = [word for name, file in options.items() for word in (name, files / file)]
    said = apstream("isr", raw, "--camera", "simcam", "--out", tmp_path / "isr.fits", *words).splitlines()
    assert f"  fringe_amplitude {expected.metrics['isr.fringe_amplitude']:.6g}" in said
    for name in NAMES:
        line = next(line for line in said if line.startswith(f"  {name}: "))
        for key in ("noise_electron", "noise_ratio", "overscan_adu"):
            assert f"{key} {expected.metrics[f'isr.{name}.{key}']:.6g}" in line.split(": ")[1].split(", ")
    found = read_exposure(tmp_path / "isr.fits")
    assert_same(found, expected)
    apstream("isr", raw, "--camera", "simcam", "--out", tmp_path / "plain.fits")
    plain = read_exposure(tmp_path / "plain.fits").image.image
    assert np.median(np.abs(plain - found.image.image)) > 20
    assert expected.metrics["isr.fringe_amplitude"] > 40


def test_a_repository_finds_them_by_itself(raw: Path, files: Path, expected: Exposure, tmp_path: Path) -> None:
    root = tmp_path / "repo"
    apstream("repo", "create", root, "--camera", "simcam")
    apstream("repo", "ingest", root, raw)
    said = apstream("repo", "ingest", root, files)
    for kind in ("defects", "crosstalk", "linearity", "ptc", "fringe", "bfKernel"):
        assert f"1 {kind}" in said
    (tmp_path / "own.yaml").write_text("isr: {fringe: {bands: [r]}, brighter_fatter: {}}\n")
    apstream("isr", root, "--id", "visit=7", "-C", tmp_path / "own.yaml")
    repository = Repository(root)
    assert_same(repository.get("postISRCCD", visit=7, detector=0), expected)
    made_of = {one.type for one in repository.precursors("postISRCCD", visit=7, detector=0)}
    assert made_of >= {"raw", "defects", "crosstalk", "linearity", "ptc", "fringe", "bfKernel"}
    apstream("isr", root, "--id", "visit=7", "--rerun", "plain", "-c", "isr.crosstalk=false")
    plain = Repository(root / "rerun" / "plain")
    made_of = {one.type for one in plain.precursors("postISRCCD", visit=7, detector=0)}
    assert made_of == {"raw", "defects", "linearity", "ptc"}  # what is not applied is not read
    plain.close()
    repository.close()


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("night")
    simulate_night(out, NightConfig(size=400, visits=1, template_visits=0, detectors=2, seed=4))
    return out


def make_calexps(
    root: Path, night: Path, camera: object, *, only: str = "", stages: tuple[str, ...] = STAGES
) -> Repository:
    """Take a night in, or one detector of it, and run the stages one by one."""
    apstream("repo", "create", root, "--camera", camera)
    taken = root.parent / f"{root.name}-night"
    shutil.copytree(night, taken, ignore=lambda _, names: [n for n in names if only and n.endswith(only)])
    apstream("repo", "ingest", root, taken)
    for stage in stages:
        apstream(stage, root)
    return Repository(root)


def test_a_camera_brings_its_own_isr_and_the_rest_works(night: Path, tmp_path: Path) -> None:
    camera = tmp_path / "own.yaml"
    camera.write_text("extends: simcam\nname: simcam\nsettings: {replace: {isr: 'helpers.other_stages:plain_isr'}}\n")
    repository = make_calexps(tmp_path / "own", night, camera, only="d01.fits")
    exposure = repository.get("postISRCCD", visit=1001, detector=0)
    assert exposure.metrics["isr.mine"] == 1
    assert not any(key.endswith("overscan_adu") for key in exposure.metrics)
    calexp = repository.get("calexp", visit=1001, detector=0)
    assert calexp.image.unit == "nJy"
    assert calexp.metrics["calibrate.astrometry_rms_arcsec"] < 0.1
    repository.close()


def test_a_camera_whose_isr_cannot_be_imported_is_refused(raw: Path, tmp_path: Path) -> None:
    camera = tmp_path / "own.yaml"
    camera.write_text("extends: simcam\nname: simcam\nsettings: {replace: {isr: 'nowhere.at_all:isr'}}\n")
    with pytest.raises(BadSettings, match=r"own\.yaml.*stage isr: cannot import 'nowhere\.at_all:isr'"):
        apstream("isr", raw, "--camera", camera, "--out", tmp_path / "isr.fits")


def test_a_detector_needs_no_other(night: Path, tmp_path: Path) -> None:
    both = make_calexps(tmp_path / "both", night, "simcam")
    alone = make_calexps(tmp_path / "alone", night, "simcam", only="d01.fits")
    for kind in ("postISRCCD", "icExp", "calexp"):
        assert (len(both.find(kind)), len(alone.find(kind))) == (2, 1)
        assert_same(*(one.get(kind, visit=1001, detector=0) for one in (both, alone)))
    assert len({one.get("src", visit=1001, detector=0).tobytes() for one in (both, alone)}) == 1
    wcs, other = (one.get("calexp_wcs", visit=1001, detector=0) for one in (both, alone))
    assert wcs.pixel_to_sky(10.0, 20.0) == other.pixel_to_sky(10.0, 20.0)
    both.close()
    alone.close()


def test_frames_of_a_repository_take_a_psf_that_is_supplied(night: Path, tmp_path: Path) -> None:
    repository = make_calexps(tmp_path / "repo", night, "simcam", only="d01.fits", stages=("isr",))
    y, x = np.mgrid[-20:21, -20:21]
    fits.writeto(tmp_path / "psf.fits", np.exp(-(y**2 + x**2) / (2 * 1.6**2)))
    apstream("characterize", repository.root, "--psf", tmp_path / "psf.fits")
    assert repository.get("icExp", visit=1001, detector=0).psf.fwhm() == pytest.approx(2.3548 * 1.6, rel=0.01)
    assert "psf" in {one.type for one in repository.precursors("icExp", visit=1001, detector=0)}
    apstream("calibrate", repository.root)
    assert repository.get("calexp", visit=1001, detector=0).psf.fwhm() == pytest.approx(2.3548 * 1.6, rel=0.01)
    with pytest.raises(BadSettings, match="apstream characterize"):
        apstream("calibrate", repository.root, "--psf", tmp_path / "psf.fits")
    repository.close()


@pytest.mark.parametrize("words", [("--id", "visit=3"), ("--rerun", "one"), ("--output", "there"), ("--replace-run",)])
def test_what_is_for_a_repository_is_not_ignored_for_a_file(raw: Path, words: tuple[str, ...], tmp_path: Path) -> None:
    for stage in STAGES:
        with pytest.raises(BadSettings, match=f"{words[0]}.*for a repository only"):
            apstream(stage, raw, "--out", tmp_path / "x", *words)
    assert not (tmp_path / "x").exists()


def test_a_wrong_kind_of_file_is_named(raw: Path, tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "x.fits")
    with pytest.raises(ApstreamError, match=r"x\.fits"):
        apstream("isr", raw, "--camera", "simcam", "--out", tmp_path / "o.fits", "--linearity", tmp_path / "x.fits")


def test_options_of_a_file_are_refused_where_a_repository_is_named(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    apstream("repo", "create", root, "--camera", "simcam")
    for words in (
        ("isr", "--bias", "bias.fits"),
        ("isr", "--bf-kernel", "kernel.fits"),
        ("isr", "--camera", "decam"),
        ("characterize", "--out", "folder"),
        ("calibrate", "--photometry-refcat", "ps1.csv"),
    ):
        with pytest.raises(BadSettings, match=f"{words[1]}: for a file only"):
            apstream(words[0], root, *words[1:])


@pytest.mark.parametrize(
    ("flat", "fault"),
    [
        (np.full((SIZE, SIZE), 21000, np.float32), r"the median of this flat is 2\.1e\+04"),
        (np.repeat(np.where(np.arange(SIZE) < SIZE // 3, -1, 1), SIZE).reshape(SIZE, SIZE), "33 % of this flat"),
    ],
)
def test_a_flat_that_is_no_relative_response_is_named(raw: Path, tmp_path: Path, flat: np.ndarray, fault: str) -> None:
    fits.writeto(tmp_path / "flat.fits", flat.astype(np.float32))
    with pytest.raises(BadFile, match=rf"flat\.fits: {fault}.*divided by its median"):
        apstream("isr", raw, "--camera", "simcam", "--out", tmp_path / "isr.fits", "--flat", tmp_path / "flat.fits")


@pytest.mark.parametrize(
    ("kind", "value", "fault"),
    [
        ("flat", np.full((SIZE, SIZE), 21000, np.float32), "the median of this flat is 2.1e+04"),
        ("dark", np.zeros((9, 9), np.float32), "master dark is (9, 9), detector"),
        ("defects", Defects((Box(0, 0, 2, 4 * SIZE),)), "defects: "),
        ("linearity", STRANGE, "linearity is of amplifiers X"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_named_with_the_frame(
    raw: Path, tmp_path: Path, kind: str, value: Any, fault: str
) -> None:
    repository = Repository.create(tmp_path / "repo", camera="simcam")
    apstream("repo", "ingest", repository.root, raw)
    keys = {"band": "any"} if kind == "flat" else {}
    suffix = ".yaml" if kind in ("defects", "linearity") else ".fits"
    location = repository.put(value, kind, detector=0, suffix=suffix, **keys)
    result = CliRunner().invoke(app, ["isr", repository.root])
    repository.close()
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert f"{raw.name} with {location}: {fault}" in said


def test_a_master_of_another_size_is_named_with_the_frame(raw: Path, tmp_path: Path) -> None:
    fits.writeto(tmp_path / "dark.fits", np.zeros((9, 9), np.float32))
    with pytest.raises(WrongSize, match=rf"{raw.name} with .*dark\.fits: master dark is \(9, 9\)"):
        apstream("isr", raw, "--camera", "simcam", "--out", tmp_path / "isr.fits", "--dark", tmp_path / "dark.fits")


def test_what_goes_before_is_named_where_it_is_not_there(raw: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "repo")
    apstream("repo", "create", root, "--camera", "simcam")
    apstream("repo", "ingest", root, raw)
    said = CliRunner().invoke(app, ["calibrate", root, "--rerun", "one"]).output
    assert "no location for icExp" in said
    assert "(apstream isr and apstream characterize go before, into the same rerun; apstream coadd" in said
    apstream("isr", root, "--rerun", "one")
    said = CliRunner().invoke(app, ["calibrate", root, "--rerun", "one"]).output
    assert "(make it with apstream characterize, into the same rerun)" in said
    said = CliRunner().invoke(app, ["characterize", root, "--rerun", "two"]).output
    assert "(make it with apstream isr, into the same rerun)" in said


@pytest.mark.parametrize("camera", ["saao-ste3", "decam"])
def test_the_camera_that_a_frame_fits_is_named(raw: Path, tmp_path: Path, camera: str) -> None:
    with pytest.raises(ApstreamError, match=rf"{raw.name}: .*\(it fits the camera simcam"):
        apstream("isr", raw, "--camera", camera, "--out", tmp_path / "isr.fits")
