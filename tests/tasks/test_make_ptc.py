"""Gain, noise and linearity of simulated and real flats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.calib_frames import bent, biases, flats, frame, make_chip

from apstream.arrays.linearity import linearize
from apstream.arrays.transfer_curve import TransferPoints, fit_curve, pair_points, turnoff
from apstream.cameras import load_camera
from apstream.errors import CalibrationFailed, TooFewFrames
from apstream.model.frames import MemoryFrames
from apstream.repo.formats.rawrows import open_frames
from apstream.tasks.make_kernel import KernelConfig
from apstream.tasks.make_linearity import LinearityConfig
from apstream.tasks.make_ptc import PtcConfig, TransferResult, make_ptc

CHIP = make_chip(size=384, dark_e_s=0.0, vignetting=0.02, full_well_e=110_000.0)


def ramp(bend: float = 0.0, top: float = 80_000.0) -> MemoryFrames:
    """Pairs of flats of a steady lamp, 1000 electrons per second."""
    levels = np.repeat(np.linspace(4000, top, 8), 2)
    made = [
        frame(CHIP, 300 + k, "flat", light=level, exposure_s=level / 1000, seed=4, cosmic=False)
        for k, level in enumerate(levels)
    ]
    return MemoryFrames([bent(raw, bend) for raw in made] if bend else made)


@pytest.fixture(scope="module")
def plain() -> TransferResult:
    return make_ptc(ramp(), config=PtcConfig(model="linear"))


def test_gain_is_within_a_percent_and_noise_within_two(plain: TransferResult) -> None:
    for amplifier, gain, error, noise in zip(
        CHIP.detector.amplifiers, plain.transfer.gain, plain.transfer.gain_err, plain.transfer.read_noise, strict=True
    ):
        assert gain == pytest.approx(amplifier.gain, rel=0.01)
        assert abs(gain - amplifier.gain) < 4 * error
        digit = amplifier.gain / np.sqrt(12)
        assert noise == pytest.approx(np.hypot(amplifier.read_noise, digit), rel=0.03)
    assert plain.report.metrics["pairs"] == 8
    assert np.all(np.isnan(plain.transfer.turnoff_adu))


def test_what_does_not_bend_gets_no_bend() -> None:
    made = make_ptc(ramp())
    assert np.all(np.abs(made.transfer.a00) < 4e-7)
    assert made.transfer.gain[0] == pytest.approx(CHIP.detector.amplifiers[0].gain, rel=0.02)


def test_bias_pairs_give_the_noise_where_there_are_some() -> None:
    frames = MemoryFrames([*ramp().frames, *biases(CHIP, 4).frames])
    made = make_ptc(frames)
    assert made.report.metrics["bias_pairs"] == 2
    amplifier = CHIP.detector.amplifiers[0]
    noise = np.hypot(amplifier.read_noise, amplifier.gain / np.sqrt(12))
    assert made.transfer.read_noise[0] == pytest.approx(noise, rel=0.03)


@pytest.mark.parametrize("kind", ["polynomial", "table"])
def test_non_linearity_is_found_to_a_twentieth_of_its_size(kind) -> None:
    bend = 0.03
    made = make_ptc(ramp(bend), config=PtcConfig(model="linear", linearity=LinearityConfig(kind=kind, order=2)))
    assert made.linearity is not None
    true = np.linspace(5_000, 38_000, 12)
    measured = (true - bend / 40_000 * true**2).astype(np.float32)[None]
    for values in made.linearity.coefficients:
        straight = measured.copy()
        linearize(straight, values)
        size = bend / 40_000 * true**2
        assert np.abs(straight[0] - true).max() < 0.05 * size.max()
    assert made.transfer.gain[0] == pytest.approx(CHIP.detector.amplifiers[0].gain, rel=0.015)


def test_frames_without_partner_and_pairs_that_differ_are_named() -> None:
    made = make_ptc(flats(CHIP, [20e3, 20e3, 30e3, 20e3, 20e3]))
    assert {one.name: one.reason.split(":")[0] for one in made.report.rejected} == {
        "flat_203.fits": "levels of the pair differ",
        "flat_204.fits": "levels of the pair differ",
        "flat_205.fits": "no partner of 5 s in r",
    }
    with pytest.raises(TooFewFrames, match=r"flat_201\.fits: no partner"):
        make_ptc(flats(CHIP, [20e3]))
    with pytest.raises(TooFewFrames, match="exposure times"):
        make_ptc(flats(CHIP, [20e3, 20e3]), config=PtcConfig(linearity=LinearityConfig()))
    with pytest.raises(CalibrationFailed, match="amplifier C1"):
        make_ptc(flats(CHIP, [20e3, 20e3]), config=PtcConfig(model="brighter_fatter"))


def test_a_gain_that_is_worth_nothing_is_refused_with_its_amplifier() -> None:
    twin = flats(CHIP, [20e3, 20e3]).frames[0]
    second = replace(twin, info=replace(twin.info, id=replace(twin.info.id, visit=299)))
    with pytest.raises(CalibrationFailed, match="amplifier C1: the two frames of a pair are equal") as refused:
        make_ptc(MemoryFrames([twin, second]), config=PtcConfig(model="linear"))
    assert "different frames" in refused.value.remedy
    twins = [replace(twin, info=replace(twin.info, id=replace(twin.info.id, visit=visit))) for visit in range(300, 308)]
    with pytest.raises(CalibrationFailed, match="amplifier C1"):
        make_ptc(MemoryFrames(twins))
    with pytest.raises(CalibrationFailed, match=r"amplifier C1: the light of .* ADU varies less than the read noise"):
        make_ptc(flats(CHIP, [3.0, 3.0]), config=PtcConfig(model="linear"))
    steady = flats(CHIP, [5e3, 5e3, 10e3, 10e3]).frames
    noise = np.random.default_rng(3).normal(0, 300, steady[3].pixels.shape).astype(np.float32)
    lit = steady[3].pixels > np.median(steady[3].pixels) - 1000  # not the overscan
    restless = [*steady[:3], replace(steady[3], pixels=steady[3].pixels + noise * lit)]
    longer = [replace(raw, info=replace(raw.info, exposure_s=10.0)) for raw in restless[2:]]
    with pytest.raises(CalibrationFailed, match=r"amplifier C1: the gain is .* with an error of"):
        make_ptc(MemoryFrames([*restless[:2], *longer]), config=PtcConfig(model="linear"))


def test_the_curve_of_astier_gives_back_its_numbers() -> None:
    rng = np.random.default_rng(2)
    mean, gain, noise, a00 = np.geomspace(300, 60_000, 30), 1.4, 4.0, -2.5e-6
    variance = np.expm1(2 * a00 * gain * mean) / (2 * gain**2 * a00) + noise**2
    error = variance * 1e-3
    points = TransferPoints(mean, variance + error * rng.standard_normal(30), error)
    fit = fit_curve(points, noise=None, bend=True)
    assert fit.gain == pytest.approx(gain, rel=2e-3)
    assert fit.a00 == pytest.approx(a00, rel=0.03)
    assert fit.noise == pytest.approx(noise, rel=0.05)
    assert fit_curve(points, noise=None, bend=False).gain > 1.02 * gain


def test_the_turnoff_is_where_pixels_are_full() -> None:
    mean = np.linspace(2000, 60_000, 30)
    variance = np.where(mean < 50_000, mean / 2, 3000.0)
    points = TransferPoints(mean, variance, variance / 500)
    assert turnoff(points) == pytest.approx(50_000, abs=2500)
    assert np.isnan(turnoff(points[mean < 49_000]))


def test_uneven_light_becomes_levels_that_lie_on_the_line() -> None:
    rng = np.random.default_rng(1)
    light = np.linspace(100, 20_000, 300)[None, :] * np.ones((200, 1))
    first, second = ((rng.poisson(light) + rng.normal(0, 6, light.shape)) / 2 for _ in range(2))
    points = pair_points(first.astype("f4"), second.astype("f4") * np.float32(1.01), bins=20, pixels=1000)
    assert len(points.mean) == 20
    assert fit_curve(points, noise=3.0, bend=False).gain == pytest.approx(2, rel=0.01)


def test_real_flats_of_the_kast_spectrograph_give_the_known_gains_and_noises(shared_data: Path) -> None:
    paths = [shared_data / "kast_blue" / f"b{number}.fits" for number in range(1020, 1031)]
    with open_frames(paths, load_camera("kast-blue")) as frames:
        made = make_ptc(frames)
    noise_adu = [noise / gain for noise, gain in zip(made.transfer.read_noise, made.transfer.gain, strict=True)]
    assert made.transfer.gain == pytest.approx((1.22, 1.28), rel=0.03)
    assert noise_adu == pytest.approx((2.94, 2.82), rel=0.03)


def test_a_kernel_is_made_of_bright_pairs_and_is_nothing_where_there_is_no_effect() -> None:
    made = make_ptc(ramp(), config=PtcConfig(model="linear", kernel=KernelConfig(lags=2)))
    assert made.kernel is not None
    assert made.kernel.shape == (5, 5)
    assert np.abs(made.kernel).max() * 80_000 < 0.01
    with pytest.raises(TooFewFrames, match="1000000 electrons"):
        make_ptc(ramp(), config=PtcConfig(model="linear", kernel=KernelConfig(min_electron=1e6)))
