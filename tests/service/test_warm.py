"""What a new child of the pool does before its first exposure.

The first test of a run: what it compiles, in one process, the other files find in numba's cache.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.kernels import load, load_more

from apstream.model.products import KnownObjects
from apstream.service.demo import prepare_night
from apstream.simulate.config import ChipConfig, NightConfig


@pytest.mark.timeout(1200)
def test_no_exposure_waits_for_a_compiler(tmp_path: Path) -> None:
    config = NightConfig(visits=2, size=384, seed=11, chip=ChipConfig(satellite_rate=1.0))
    known = KnownObjects(np.ones(1, np.int64), np.array([config.sky.ra_deg]), np.array([config.sky.dec_deg]))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        warm = child.submit(load).result()
        jobs = prepare_night(tmp_path, config, lambda *_: None)
        after = child.submit(load_more, jobs, tmp_path / "repo", known).result()
    assert len(warm) > 50
    assert "\n".join(sorted(after - warm)) == ""
