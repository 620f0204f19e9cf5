"""Full-size difference images against simulated truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apstream.repo.formats.fits import read_difference
from apstream.service.pair import PairSettings, run_pair
from apstream.simulate.config import PairConfig
from apstream.simulate.pair import simulate_pair
from benchmarks.quality import Quality, count_sources, evaluate, noise_detections_expected

SIZE = 4096

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def subtracted(out: Path, config: PairConfig) -> Path:
    simulate_pair(out, config)
    run_pair(out / "science.fits", out / "template.fits", out / "diff", out / "refcat.parquet", PairSettings())
    return out / "diff"


@pytest.fixture(scope="module")
def quality(tmp_path_factory: pytest.TempPathFactory) -> Quality:
    out = tmp_path_factory.mktemp("pair")
    return evaluate(subtracted(out, PairConfig(size=SIZE, transients=400, seed=31)), out / "truth.parquet")


def test_bright_transients_are_complete(quality: Quality):
    assert quality.completeness(10, np.inf) >= 0.95
    assert quality.count(10, 1e9) > 200


def test_faint_transients_are_found_half_the_time(quality: Quality):
    assert quality.completeness(5.0, 6.0) >= 0.5


def test_few_detections_are_spurious(quality: Quality):
    assert quality.spurious <= 300
    assert quality.spurious_plain <= 100


def test_flux_errors_are_true(quality: Quality):
    assert abs(quality.pull_median) <= 0.15
    assert 0.9 <= quality.pull_width <= 1.15


def test_images_alike_but_for_noise_show_noise_peaks_and_nothing_else(tmp_path: Path):
    found, expected = 0, 0.0
    for seed in (32, 33, 34):  # one image has four or five noise peaks, too few to judge by
        folder = subtracted(tmp_path / str(seed), PairConfig(size=SIZE, identical=True, cosmic_rays=False, seed=seed))
        expected += noise_detections_expected(read_difference(folder / "difference.fits"))
        found += count_sources(folder)
    assert expected / 2 <= found <= 2 * expected
