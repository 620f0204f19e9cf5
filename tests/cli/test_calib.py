"""Calibration products by command, of files and in a repository, and what the next command makes of them."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from helpers.calib_frames import biases, darks, flats, frame, make_chip, star_field, write_frames
from typer.testing import CliRunner

from apstream.cli.main import app, register
from apstream.errors import ApstreamError, BadFile, BadSettings, Conflict, TooFewFrames
from apstream.model.frames import MemoryFrames
from apstream.repo.repository import Repository
from apstream.service.calib_files import read_calibs

CHIP = make_chip(size=128)
SCIENCE = 900


@pytest.fixture(scope="module")
def raws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night") / "raw"
    for frames in (biases(CHIP, 6), darks(CHIP, [300.0] * 5), flats(CHIP, [30e3, 28e3, 99e3, 31e3])):
        write_frames(folder, frames)
    write_frames(folder, MemoryFrames([frame(CHIP, SCIENCE, "science", light=2000.0, exposure_s=30.0, cosmic=False)]))
    return folder


@pytest.fixture
def repository(raws: Path, tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    apstream("repo", "create", root, "--camera", "simcam")
    apstream("repo", "ingest", root, raws)
    return root


def apstream(*words: object) -> str:
    register()
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, ApstreamError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def good_noise(image: np.ndarray) -> float:
    return float(np.std(image[8:-8, 8:-8][~CHIP.defects[8:-8, 8:-8]]))


def test_a_night_of_files_flattens_an_exposure(raws: Path, tmp_path: Path) -> None:
    made = {name: tmp_path / f"{name}.fits" for name in ("bias", "dark", "flat", "isr")}
    common = ("--camera", "simcam", "--out")
    apstream("calib", "bias", *sorted(raws.glob("bias*")), *common, made["bias"])
    apstream("calib", "dark", *sorted(raws.glob("dark*")), *common, made["dark"], "--bias", made["bias"])
    options = ("--bias", made["bias"], "--dark", made["dark"])
    shown = apstream("calib", "flat", *sorted(raws.glob("flat*")), *common, made["flat"], *options)
    assert "flat_203.fits: saturated" in shown
    apstream("isr", raws / f"science_{SCIENCE}.fits", *common, made["isr"], *options, "--flat", made["flat"])
    with fits.open(made["isr"]) as hdus:
        image = next(hdu.data for hdu in hdus if hdu.data is not None)
    photons = np.sqrt(2000.0 + 25 + 0.6 + 2000**2 / (3 * 30e3))
    assert good_noise(image) == pytest.approx(photons, rel=0.06)
    with fits.open(made["flat"]) as hdus:
        assert hdus[0].header["FRAMES"] == 3
        assert np.median(hdus["NOISE"].data) == pytest.approx(1 / np.sqrt(3 * 30e3), rel=0.1)
        assert "flat_201.fits" in str(hdus[0].header["HISTORY"])


def test_a_repository_makes_its_own_and_uses_them_from_then_on(repository: Path) -> None:
    for kind in ("bias", "dark", "flat"):
        apstream("calib", kind, repository, "--since", "2025-01-01", "--until", "2027-01-01")
    apstream("isr", repository, "--id", f"visit={SCIENCE}")
    repo = Repository(str(repository))
    exposure = repo.get("postISRCCD", visit=SCIENCE, detector=0)
    assert good_noise(exposure.image.image) == pytest.approx(np.sqrt(2000 + 25 + 0.6 + 2000**2 / 90e3), rel=0.06)
    made_from = {one.type for one in repo.precursors("postISRCCD", visit=SCIENCE, detector=0)}
    assert made_from == {"raw", "bias", "dark", "flat"}
    of_flat = repo.precursors("flat", detector=0, band="r")
    assert [one.data_id["visit"] for one in of_flat if one.type == "raw"] == [201, 202, 204]
    assert {one.type for one in of_flat} == {"raw", "bias", "dark"}
    report = repo.get("calib_report", name="flat_r", detector=0)
    assert report["rejected"][0]["reason"].startswith("saturated")
    assert "visit=1 " not in apstream("run", repository, "--show", "data")
    with pytest.raises(Conflict):
        apstream("calib", "bias", repository, "-c", "bias.combine.n_sigma=6")
    repo.close()


def test_a_selection_narrows_the_frames(repository: Path) -> None:
    shown = apstream("calib", "bias", repository, "--id", "visit=1..4")
    assert "bias of 4 frames" in shown
    shown = apstream("calib", "bias", repository, "--id", "observation_type=bias visit=2..6")
    assert "bias of 5 frames" in shown
    one = ("-c", "bias.combine.min_frames=1", "--replace-run", "--since", "2026-01-01")
    assert "bias of 1 frame ->" in apstream("calib", "bias", repository, "--id", "visit=1", *one)


def test_compressed_frames_give_the_same(raws: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for path in raws.glob("bias*"):
        with path.open("rb") as source, gzip.open(packed / f"{path.name}.gz", "wb", 1) as target:
            shutil.copyfileobj(source, target)
    for name, folder in (("plain", raws), ("packed", packed)):
        out = tmp_path / f"{name}.fits"
        apstream("calib", "bias", *sorted(folder.glob("bias*")), "--camera", "simcam", "--out", out)
    assert np.array_equal(fits.getdata(tmp_path / "plain.fits"), fits.getdata(tmp_path / "packed.fits"))


def test_what_is_missing_is_named(raws: Path, repository: Path, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="--camera"):
        apstream("calib", "bias", raws / "bias_1.fits", "--out", tmp_path / "b.fits")
    with pytest.raises(TooFewFrames, match="at least 2"):
        apstream("calib", "bias", raws / "bias_1.fits", "--camera", "simcam", "--out", tmp_path / "b.fits")
    result = CliRunner().invoke(app, ["calib", "bias", str(repository), "--id", "visit=1"])
    assert result.exit_code == 1
    assert "at least 2 are needed" in result.output


def test_gains_linearity_defects_and_crosstalk_of_a_repository_are_what_isr_uses_next(
    repository: Path, tmp_path: Path
) -> None:
    lamps = [
        frame(CHIP, 500 + k, "flat", light=level, exposure_s=level / 1000, seed=4, cosmic=False)
        for k, level in enumerate(np.repeat(np.linspace(5e3, 70e3, 6), 2))
    ]
    stars = [frame(CHIP, 950 + k, "science", light=star_field(128, k, stars=30), exposure_s=30.0) for k in range(3)]
    write_frames(tmp_path / "raw", MemoryFrames([*lamps, *stars]))
    apstream("repo", "ingest", repository, tmp_path / "raw")
    for words in (
        ("bias",),
        ("ptc", "--id", "visit=500..511", "--linearity", "polynomial", "--kernel", "-c", "ptc.model=linear"),
        ("dark",),
        ("flat", "--id", "visit=201..204"),
        ("defects",),
        ("crosstalk", "--id", "visit=950..959"),
        ("fringe", "--id", "visit=950..959", "-c", "fringe.min_sky_electron=20"),
    ):
        shown = apstream("calib", words[0], repository, *words[1:], "--since", "2025-01-01")
        assert "2025-01-01" in shown
    repo = Repository(str(repository))
    assert [entry.type for entry in repo.find("linearity")] == ["linearity"]
    transfer = repo.get("ptc", detector=0)
    assert transfer.gain == pytest.approx([a.gain for a in CHIP.detector.amplifiers], rel=0.03)
    bad = repo.get("defects", detector=0).mask(CHIP.defects.shape)
    assert (bad & CHIP.defects).sum() > 0.95 * CHIP.defects.sum()
    apstream("isr", repository, "--id", f"visit={SCIENCE}")
    exposure = repo.get("postISRCCD", visit=SCIENCE, detector=0)
    made_from = {one.type for one in repo.precursors("postISRCCD", visit=SCIENCE, detector=0)}
    kinds = {"bias", "dark", "flat", "ptc", "linearity", "defects", "crosstalk"}
    assert made_from - {"fringe", "bfKernel"} == {"raw", *kinds}
    assert np.median(exposure.image.image) == pytest.approx(2000, rel=0.03)
    reports = {entry.identity["name"] for entry in repo.find("calib_report")}
    assert reports == {*(kinds - {"flat"}), "flat_r", "fringe_r", "bfKernel"}
    assert repo.get("bfKernel", detector=0).shape == (11, 11)
    repo.close()


def test_gains_and_defects_of_files(raws: Path, tmp_path: Path) -> None:
    lamps = MemoryFrames(list(flats(CHIP, [30e3, 30e3, 15e3, 15e3, 15e3, 15e3]).frames))
    paths = write_frames(tmp_path, lamps)
    shown = apstream("calib", "ptc", *paths, "--camera", "simcam", "--out", tmp_path / "ptc.yaml")
    assert "C1.gain_electron_adu" in shown
    assert read_calibs({"ptc": tmp_path / "ptc.yaml"})["ptc"].names == ("C1", "C2")
    out = tmp_path / "bias.fits"
    apstream("calib", "bias", *sorted(raws.glob("bias*")), "--camera", "simcam", "--out", out)
    dark = tmp_path / "dark.fits"
    darks_of = sorted(raws.glob("dark*"))
    apstream("calib", "dark", *darks_of, "--camera", "simcam", "--bias", out, "--out", dark)
    apstream("calib", "defects", "--dark", dark, "--out", tmp_path / "defects.yaml")
    defects = read_calibs({"defects": tmp_path / "defects.yaml"})["defects"]
    hot = CHIP.dark_rate > 5
    assert (defects.mask(hot.shape) & hot).sum() > 0.95 * hot.sum()
    with pytest.raises(BadSettings, match="--out"):
        apstream("calib", "defects", "--dark", dark)


def test_a_master_is_not_taken_for_one_of_another_kind(raws: Path, repository: Path, tmp_path: Path) -> None:
    made, common = tmp_path / "bias.fits", ("--camera", "simcam", "--out")
    apstream("calib", "bias", *sorted(raws.glob("bias*")), *common, made)
    science = raws / f"science_{SCIENCE}.fits"
    for words in (
        ("isr", science, *common, tmp_path / "isr.fits", "--dark", made),
        ("isr", science, *common, tmp_path / "isr.fits", "--defects", made),
        ("calib", "flat", *sorted(raws.glob("flat*")), *common, tmp_path / "flat.fits", "--dark", made),
        ("calib", "defects", "--flat", made, "--out", tmp_path / "defects.yaml"),
    ):
        with pytest.raises(BadFile, match=r"bias\.fits: its header says that it is bias, and (dark|flat|defects) is"):
            apstream(*words)
    folder = tmp_path / "calib"
    folder.mkdir()
    for kind in ("dark", "bias"):
        shutil.copy(made, folder / f"{kind}_0.fits")
    taken = CliRunner().invoke(app, ["repo", "ingest", str(repository), str(folder)])
    assert taken.exit_code == 1
    assert "dark_0.fits: its header says that it is bias, and dark is wanted" in taken.output
    assert "ingested 1 bias" in taken.output
    fits.writeto(tmp_path / "others.fits", fits.getdata(made))
    apstream("isr", science, *common, tmp_path / "isr.fits", "--dark", tmp_path / "others.fits")


def test_a_master_of_a_repository_keeps_its_kind_when_it_is_copied(raws: Path, tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "repo", camera="simcam")
    size = fits.getval(raws / f"science_{SCIENCE}.fits", "NAXIS2")
    repository.put(np.ones((size, size), np.float32), "flat", band="r", detector=0, valid=(59000.0, 60000.0))
    shutil.copy(str(repository.locate("flat", band="r", detector=0, mjd=59500.0)), tmp_path / "copied.fits")
    words = ("flat", "band=r", "detector=0", "mjd=59500")
    apstream("repo", "get", repository.root, *words, "--out", tmp_path / "written.fits")
    for name in ("copied", "written"):
        given = ("--bias", tmp_path / f"{name}.fits", "--camera", "simcam", "--out", tmp_path / "isr.fits")
        with pytest.raises(BadFile, match=rf"{name}\.fits: its header says that it is flat, and bias is wanted"):
            apstream("isr", raws / f"science_{SCIENCE}.fits", *given)
    assert (repository.get("flat", band="r", detector=0, mjd=59500.0) == 1).all()


def test_real_frames_of_a_cmos_camera_make_masters(shared_data: Path, tmp_path: Path) -> None:
    """The one bias is a constant 32; one dark and one flat of 300 s, so nothing can be rejected."""
    common = ("--camera", "generic", "--out")
    made = {name: tmp_path / f"{name}.fits" for name in ("bias", "dark", "flat", "isr")}
    apstream(
        "calib",
        "bias",
        shared_data / "huntsman" / "bias_0.fits",
        *common,
        made["bias"],
        "-c",
        "bias.combine.min_frames=1",
    )
    options = ("-c", "dark.combine.min_frames=1", "--bias", made["bias"])
    apstream("calib", "dark", shared_data / "huntsman" / "dark_0.fits", *common, made["dark"], *options)
    options = ("-c", "flat.combine.min_frames=1", "--bias", made["bias"], "--dark", made["dark"])
    apstream("calib", "flat", shared_data / "huntsman" / "flat_0.fits", *common, made["flat"], *options)
    assert np.all(fits.getdata(made["bias"]) == 32)
    assert np.median(fits.getdata(made["dark"])) == pytest.approx((37.5 - 32) / 300, rel=0.2)
    flat = fits.getdata(made["flat"])
    assert flat.mean() == pytest.approx(1, abs=1e-3)
    files = ("--bias", made["bias"], "--dark", made["dark"])
    apstream("isr", shared_data / "huntsman" / "flat_0.fits", *common, made["isr"], *files, "--flat", made["flat"])
    with fits.open(made["isr"]) as hdus:
        image = next(hdu.data for hdu in hdus if hdu.data is not None)
    assert np.std(image[8:-8, 8:-8]) / np.mean(image) < 1e-3  # the flat divided by itself


def test_the_kast_flats_give_known_gains_by_command(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "kast_blue").glob("b102*.fits"))
    apstream("calib", "ptc", *paths, "--camera", "kast-blue", "--out", tmp_path / "ptc.yaml")
    transfer = read_calibs({"ptc": tmp_path / "ptc.yaml"})["ptc"]
    assert transfer.gain == pytest.approx((1.22, 1.28), rel=0.03)
    noise = [noise / gain for noise, gain in zip(transfer.read_noise, transfer.gain, strict=True)]
    assert noise == pytest.approx((2.94, 2.82), rel=0.03)
