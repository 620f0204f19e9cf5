from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apstream.cameras import load_camera
from apstream.model.detector import Detector
from apstream.simulate.config import ChipConfig
from apstream.simulate.raw import Chip, amplifier_cards, bleed, cosmic_rays, draw_chip, expose, masters, read_out

WELL = 100.0


def chip(seed: int = 1, size: int = 192, **config: float) -> Chip:
    return draw_chip(np.random.default_rng(seed), ChipConfig(**config), number=0, size=size, scale_arcsec=0.25)


@given(arrays(np.float32, (12, 3), elements=st.floats(0, 150, width=32)))
def test_bleeding_fills_columns_and_makes_no_charge(charge: np.ndarray) -> None:
    before = charge.sum(axis=0, dtype=float)
    bleed(charge, WELL)
    assert charge.max(initial=0) <= WELL * (1 + 1e-6)
    assert np.all(charge.sum(axis=0, dtype=float) <= before * (1 + 1e-5) + 1e-3)


def test_bleeding_keeps_all_charge_inside_the_column() -> None:
    charge = np.zeros((101, 3), np.float32)
    charge[50, 1] = 20 * WELL
    bleed(charge, WELL)
    assert charge[:, 1].sum() == pytest.approx(20 * WELL)
    assert charge[:, [0, 2]].sum() == 0
    assert np.ptp(np.flatnonzero(charge[:, 1] == WELL)) in (18, 19, 20)


@pytest.mark.parametrize("amplifiers", [1, 2, 3, 4])
def test_the_camera_reads_what_the_chip_wrote(amplifiers: int) -> None:
    made = chip(amplifiers=amplifiers)
    raw = read_out(np.random.default_rng(0), np.full((192, 192), 4000, np.float32), made)
    header = {"NAXIS1": raw.shape[1], "NAXIS2": raw.shape[0], "DETECTOR": 0, "PIXSCALE": 0.25}
    detector: Detector = load_camera("simcam").detector(header | amplifier_cards(made.detector))
    assert detector == Detector(
        number=0, name="0", shape=(192, 192), pixel_scale_arcsec=0.25, amplifiers=made.detector.amplifiers
    )
    for amplifier in detector.amplifiers:
        assert amplifier.overscan is not None
        over = raw[:, amplifier.overscan.x0 : amplifier.overscan.x1].astype(float)
        data = raw[:, amplifier.data.x0 : amplifier.data.x1].astype(float)
        assert (np.median(data) - np.median(over)) * amplifier.gain == pytest.approx(4000, abs=25)
        noise = (over - np.median(over, axis=1, keepdims=True)).std() * amplifier.gain
        assert noise == pytest.approx(np.hypot(amplifier.read_noise, 0.29 * amplifier.gain), rel=0.05)


def test_photon_noise_is_the_root_of_the_signal() -> None:
    made = chip(pixel_response=0, vignetting=0, dark_e_s=0)
    light = np.full((192, 192), 900, np.float32)
    charge = expose(np.random.default_rng(2), light, made, 30.0, cosmic=False)[~made.defects]
    assert np.std(charge / made.flat[~made.defects]) == pytest.approx(30, rel=0.03)


def test_masters_undo_the_chip() -> None:
    made = chip()
    bias, dark, flat = masters(np.random.default_rng(3), made)
    gain = made.detector.gain
    assert np.abs(bias - made.bias).std() < 1.0
    assert np.median(dark * gain / made.dark_rate) == pytest.approx(1.0, abs=0.05)
    assert np.std(flat / made.flat) < 0.002


def test_saturation_is_seen_below_the_full_well() -> None:
    made = chip()
    light = np.full((192, 192), 1000, np.float32)
    light[90:100, 60] = 5e5
    raw = read_out(np.random.default_rng(4), expose(np.random.default_rng(4), light, made, 30, cosmic=False), made)
    amplifier = made.detector.amplifiers[0]
    column = raw[:, amplifier.data.x0 + 60].astype(float) - np.median(raw[:, :32])
    assert (column > amplifier.saturation).sum() >= 30
    assert raw.max() < 65535


def test_cosmic_rays_are_as_many_as_asked_for() -> None:
    rng = np.random.default_rng(5)
    image = np.zeros((1024, 1024), np.float32)
    count = cosmic_rays(rng, image, ChipConfig(), 300.0)
    assert count == pytest.approx(13 * 2.36 * 5, rel=0.25)
    assert 2 * count < np.count_nonzero(image) < 40 * count
