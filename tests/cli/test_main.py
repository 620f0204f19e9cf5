from __future__ import annotations

import subprocess
import sys

import pytest


def apstream(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "apstream", *words], capture_output=True, text=True, check=False)


def test_help_names_every_command():
    shown = apstream("--help").stdout
    for command in ("subtract", "simulate", "coadd", "run", "serve", "send", "demo", "repo", "apdb", "alerts"):
        assert command in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("subtract", "nowhere.fits", "t.fits", "--out", "o"), "FileMissing: nowhere.fits"),
        (("repo", "ls", "nowhere"), "apstream repo create"),
        (("alerts", "show", "nowhere.avro"), "FileMissing: nowhere.avro"),
        (("repo", "create", "r", "--camera", "decamm"), "did you mean decam"),
        (("subtract", "a.fits", "b.fits", "--out", "o", "-c", "detect.treshold=5"), "did you mean detect.threshold"),
    ],
)
def test_an_error_is_one_line_with_a_remedy(words: tuple[str, ...], told: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = apstream(*words)
    assert done.returncode == 1
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
