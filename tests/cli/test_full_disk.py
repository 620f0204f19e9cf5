"""A disk that is full: one line, and nothing half-made under the name of a product."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from apstream.cli.main import app, register
from apstream.errors import StorageUnavailable
from apstream.repo.repository import Repository


@contextmanager
def no_file_above(n_bytes: int) -> Iterator[None]:
    """Let every write beyond so many bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def apstream(*words: object) -> Result:
    register()
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("night")
    assert apstream("simulate", out, "--size", 256, "--visits", 1, "--template-visits", 1).exit_code == 0
    return out


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("pair", [(), ("--pair",)])
def test_a_simulation_leaves_no_part_of_a_file(tmp_path: Path, pair: tuple[str, ...]) -> None:
    with no_file_above(100_000):
        result = apstream("simulate", tmp_path, "--size", 256, "--visits", 1, "--template-visits", 1, *pair)
    assert isinstance(result.exception, StorageUnavailable)
    assert ".fits: cannot write" in str(result.exception)
    assert files(tmp_path) == []


def test_a_copy_into_a_repository_is_there_or_named(night: Path, tmp_path: Path) -> None:
    root = tmp_path / "repo"
    apstream("repo", "create", root, "--camera", "simcam")
    with no_file_above(131_072):
        failed = apstream("repo", "ingest", root, night / "raw", "--copy")
    assert failed.exit_code == 2
    assert failed.output.count("cannot write: File too large (free disk space, then try again)") == 2
    assert files(root / "raw") == [] if (root / "raw").exists() else True
    assert "ingested 2 raw" in apstream("repo", "ingest", root, night / "raw", "--copy").output


def test_a_dataset_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "repo", camera="simcam")
    flat = np.ones((300, 300), np.float32)
    with no_file_above(100_000), pytest.raises(StorageUnavailable, match=r"repo/calib/flat/.*free disk space"):
        repository.put(flat, "flat", detector=0, band="r")
    assert repository.find("flat") == []
    assert not list(Path(repository.root).rglob("*.fits"))
    repository.put(flat, "flat", detector=0, band="r")
    assert repository.get("flat", detector=0, band="r").sum() == flat.size
    repository.close()


def test_a_catalogue_in_a_repository_is_not_taken_for_damaged(night: Path, tmp_path: Path) -> None:
    root = tmp_path / "repo"
    apstream("repo", "create", root, "--camera", "simcam")
    apstream("repo", "ingest", root, night / "refcat.parquet")
    for words in ((), ("--contents",)):
        assert "0 damaged" in apstream("repo", "check", root, *words).output
    part = next((root / "refcat").rglob("Npix=*.parquet"))
    part.write_bytes(part.read_bytes() + b"more")
    assert "the content has changed" in " ".join(apstream("repo", "check", root, "--contents").output.split())
    for path in sorted((root / "refcat" / "main").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert "1 damaged" in apstream("repo", "check", root).output


def test_image_and_sources_are_written_both_or_neither(night: Path, tmp_path: Path) -> None:
    isr, disk = tmp_path / "isr.fits", tmp_path / "disk"
    raw = next((night / "raw").glob("sim_v01001*.fits"))
    assert apstream("isr", raw, "--camera", "simcam", "--out", isr).exit_code == 0
    assert apstream("characterize", isr, "--out", tmp_path / "whole").exit_code == 0
    pages = -(-(tmp_path / "whole" / "characterized.fits").stat().st_size // 4096)
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4 * (pages + 2)}k", "none", disk], check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        result = apstream("characterize", isr, "--out", disk / "out")
        assert isinstance(result.exception, StorageUnavailable)
        assert "sources.parquet: cannot write" in str(result.exception)
        assert files(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)
