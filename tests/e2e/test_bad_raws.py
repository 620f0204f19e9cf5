"""What bad raw frames get from ``apstream run``: the ledger says why, the good frame after them is processed."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from helpers.commands import here

from apstream.repo.repository import Repository

Spoil = Callable[[Path], None]


def apstream(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apstream", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def with_pixels(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(path: Path) -> None:
        with fits.open(path, memmap=False) as hdus:
            image = next(h for h in hdus if h.header.get("NAXIS") == 2)
            image.data = change(image.data)
            hdus.writeto(path, overwrite=True)

    return spoil


def without_time(path: Path) -> None:
    with fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            for key in ("EXPTIME", "DATE-OBS", "MJD-OBS"):
                hdu.header.remove(key, ignore_missing=True)
        hdus.writeto(path, overwrite=True)


def exposed(pixels: np.ndarray) -> np.ndarray:
    """Tell the columns that saw light: a seventh of each amplifier's is overscan."""
    levels = np.median(pixels, axis=0).reshape(2, -1)
    return (levels > np.quantile(levels, 1 / 7, axis=1, keepdims=True) + 20).ravel()


def saturated(pixels: np.ndarray) -> np.ndarray:
    return np.where(exposed(pixels), 65535, pixels).astype(pixels.dtype)


def star_free(pixels: np.ndarray) -> np.ndarray:
    sky = np.median(pixels, axis=0) + np.random.default_rng(1).normal(0, 12, pixels.shape)
    return np.where(exposed(pixels), sky, pixels).astype(np.float32)


SPOILED: list[tuple[Spoil, str]] = [
    (lambda path: path.write_bytes(path.read_bytes()[:100_000]), "BadFile"),
    (lambda path: path.write_bytes(b""), "BadFile"),
    (lambda path: path.unlink(), "FileMissing"),
    (without_time, "BadHeader"),
    (with_pixels(lambda p: p[:200]), "WrongSize"),
    (with_pixels(saturated), "NoGoodPixels"),
    (with_pixels(lambda p: np.full(p.shape, np.nan, np.float32)), "NoGoodPixels"),
    (with_pixels(lambda p: np.full_like(p, 65535)), "unfit"),
    (with_pixels(star_free), "TooFewStars"),
]
N_VISITS = len(SPOILED) + 1


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A repository with templates, and its science frames in order of visit."""
    folder = tmp_path_factory.mktemp("night")
    night, root = folder / "night", folder / "repo"
    words = ("--visits", N_VISITS, "--template-visits", 2, "--size", 384, "--seed", 5)
    here("simulate", night, *words)
    here("repo", "create", root, "--camera", "simcam")
    here("repo", "ingest", root, night)
    raws = sorted((night / "raw").rglob("*.fits*"))
    here("coadd", root, "--id", f"visit={'^'.join(map(str, visits(root)[:2]))}")
    return root, raws[2:]


def visits(root: Path) -> list[int]:
    return sorted(entry.data_id["visit"] for entry in Repository(root).find("raw"))


def test_bad_frames_are_recorded_and_the_good_one_is_processed(
    repository: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    root, raws = repository
    assert len(raws) == N_VISITS
    for (spoil, _), raw in zip(SPOILED, raws, strict=False):
        shutil.copy(raw, tmp_path / raw.name)
        spoil(raw)
    chosen = f"visit={'^'.join(map(str, visits(root)[2:]))}"
    alerts, apdb = tmp_path / "alerts", tmp_path / "apdb.sqlite"
    done = apstream("run", root, "--id", chosen, "--apdb", f"sqlite:///{apdb}", "--alerts", alerts)
    with sqlite3.connect(apdb) as rows:
        ledger = {row[0]: row[1:] for row in rows.execute('SELECT visit, outcome, reason FROM "Ledger"')}
    assert done.returncode == len(SPOILED)
    *bad, good = visits(root)[2:]
    assert ledger[good][0] == "processed"
    for visit, (_, kind), raw in zip(bad, SPOILED, raws, strict=False):
        outcome, reason = ledger[visit]
        assert outcome == ("skipped" if kind == "FileMissing" else "unfit")
        assert kind in f"{outcome}: {reason}"
        assert raw.name in reason
        assert reason.endswith(")"), f"no remedy: {reason}"
    assert "Traceback" not in done.stderr
