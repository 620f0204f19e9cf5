"""Taking files in: raws by night and band, calibrations with their spans, what ships with a camera, catalogues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from apstream.cameras import load_camera
from apstream.cli.main import app, register
from apstream.errors import BadValidity, Conflict
from apstream.repo.formats.raw import read_raw
from apstream.repo.ingest import ingest_curated, ingest_sources
from apstream.repo.repository import Repository
from apstream.simulate.config import NightConfig
from apstream.simulate.night import simulate_night

register()


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("night")
    simulate_night(out, NightConfig(visits=2, template_visits=1, size=128, seed=3, detectors=2, bands=("g", "r")))
    return out


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "repo", camera="simcam")


def cli(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


def save(path: Path, level: float, **cards: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    hdu = fits.PrimaryHDU(np.full((4, 5), level, np.float32))
    hdu.header.update(cards)
    hdu.writeto(path)
    return path


def test_a_night_goes_in_by_link_and_lies_by_date_and_band(repository: Repository, night: Path):
    report = ingest_sources(repository, [night])
    assert not report.problems
    assert report.counts["raw"] == len(list((night / "raw").rglob("*.fits*")))
    assert report.counts["refcat"] == 1
    for entry in repository.find("raw", repository.select(["filter=g ccd=1"])):
        assert entry.extra["band"] == "g"
        path = Path(repository.location(entry))
        assert path.parent.relative_to(repository.root) == Path("raw") / str(entry.extra["day"]) / "g"
        assert path.is_symlink()
        raw = read_raw(path, load_camera("simcam"), detector=1)
        assert raw.info.id.visit == entry.identity["visit"]
    days = {entry.extra["day"] for entry in repository.find("raw")}
    assert repository.find("raw", repository.select([f"date={min(days)}..{max(days)}"])) == repository.find("raw")
    assert ingest_sources(repository, [night]).counts == report.counts  # twice is once
    assert len(repository.find("raw")) == report.counts["raw"]


def test_copies_stand_alone(repository: Repository, night: Path):
    ingest_sources(repository, [night / "raw"], copy=True)
    assert not any(Path(repository.location(entry)).is_symlink() for entry in repository.find("raw"))


def test_calibrations_come_in_with_their_spans(repository: Repository, tmp_path: Path):
    for year, level in ((2023, 1.0), (2024, 2.0)):
        bias = save(tmp_path / f"calib{year}" / "bias_0.fits", level)
        words = ("--valid-from", f"{year}-01-01", "--valid-to", f"{year + 1}-01-01")
        assert cli("repo", "ingest", repository.root, bias, *words) == (0, "ingested 1 bias\n")
    flat = save(tmp_path / "calib" / "flat_r_0.fits", 1.0, VALIDBEG="2024-03-01", VALIDEND="2024-04-01")
    assert ingest_sources(repository, [flat]).counts == {"flat": 1}
    levels = [float(repository.get("bias", detector=0, mjd=mjd)[0, 0]) for mjd in (60000.0, 60400.0)]
    assert levels == [1.0, 2.0]  # 2023-02-25 and 2024-03-31
    assert repository.get("flat", detector=0, band="r", mjd=60380.0).shape == (4, 5)
    with pytest.raises(BadValidity, match="no flat"):
        repository.get("flat", detector=0, band="r", mjd=60000.0)
    overlapping = save(tmp_path / "calib" / "bias_0.fits", 5.0)
    words = ("--valid-from", "2024-06-01", "--valid-to", "2026-01-01")
    status, output = cli("repo", "ingest", repository.root, overlapping, *words)
    assert status == 1
    assert "overlaps the one valid 2024-01-01..2025-01-01" in output


def test_what_ships_with_a_camera_is_there_from_the_start(tmp_path: Path):
    status, output = cli("repo", "create", tmp_path / "decam", "--camera", "decam")
    assert status == 0
    assert "with the camera's own" in output
    repository = Repository(tmp_path / "decam")
    dead = repository.get("defects", ccdnum=61, mjd=57000.0).mask((4096, 2048))
    assert dead.all()
    assert ingest_curated(repository).problems == []  # once more changes nothing
    assert cli("repo", "ls", tmp_path / "decam", "defects")[1].count("detector=61") == 1


def test_bad_files_are_named_and_the_rest_goes_on(repository: Repository, night: Path, tmp_path: Path):
    good = sorted((night / "raw").rglob("*.fits*"))[0]
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a_good.fits").symlink_to(good)
    (folder / "broken.fits").write_bytes(good.read_bytes()[:5000])
    (folder / "empty.fits").write_bytes(b"")
    save(folder / "table.fits", 1.0)
    status, output = cli("repo", "ingest", repository.root, folder, tmp_path / "nowhere")
    assert status == 4
    for name in ("broken.fits", "empty.fits", "table.fits", "nowhere"):
        assert name in output
    assert "ingested 1 raw" in output


@pytest.mark.parametrize("name", ["gaia.csv", "stars.parquet", "crosstalk_0.yaml"])
def test_a_table_whose_name_says_nothing_is_told_how_to_be_called(repository: Repository, tmp_path: Path, name: str):
    (tmp_path / name).write_text("ra,dec,r\n150.1,2.2,17\n")
    (problem,) = ingest_sources(repository, [tmp_path / name]).problems
    assert "its name does not say what it is" in str(problem)
    assert "--refcat main" in problem.remedy
    assert "a folder called calib" in problem.remedy


def test_two_raws_for_one_id_are_refused_by_name(repository: Repository, night: Path, tmp_path: Path):
    first = sorted((night / "raw").rglob("*.fits*"))[0]
    other = tmp_path / "other.fits"
    with fits.open(first) as hdus:
        hdus[0].data = hdus[0].data + 1
        hdus.writeto(other)
    assert not ingest_sources(repository, [first]).problems
    (problem,) = ingest_sources(repository, [other]).problems
    assert isinstance(problem, Conflict)
    assert "other.fits" in str(problem)
    assert first.name in str(Path(repository.location(repository.find("raw")[0])).resolve())


def test_products_are_found_again_from_the_shell(repository: Repository, night: Path, tmp_path: Path):
    ingest_sources(repository, [night])
    entry = repository.find("raw")[0]
    visit, detector = entry.identity["visit"], entry.identity["detector"]
    words = (f"visit={visit}", f"detector={detector}")
    assert cli("repo", "locate", repository.root, "raw", *words) == (0, repository.location(entry) + "\n")
    assert cli("repo", "locate", repository.root, "raw", "visit=1234567", "detector=0") == (1, "")
    status, output = cli("repo", "ls", repository.root, "raw", "--id", f"visit={visit} ccd={detector}")
    assert output.split("\t")[0] == "raw"
    assert output.strip().endswith(repository.location(entry))
    repository.put({"seeing": 0.8}, "processing_metadata", **entry.identity)
    assert "seeing: 0.8" in cli("repo", "get", repository.root, "processing_metadata", *words)[1]
    status, output = cli("repo", "get", repository.root, "processing_metadata", *words, "--out", tmp_path / "m.yaml")
    assert status == 0
    assert (tmp_path / "m.yaml").read_text() == "seeing: 0.8\n"
    assert "no dataset names" not in cli("repo", "check", repository.root, "--contents")[1]
