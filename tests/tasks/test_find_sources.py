"""Sources found before calibration."""

from __future__ import annotations

import numpy as np
from helpers.nouns import SAMPLES

from apstream.tasks.find_sources import find_sources


def test_without_detection_the_stars_of_characterization_stay():
    char = SAMPLES["characterized"](np.random.default_rng(1))
    assert find_sources(char, None) is char
