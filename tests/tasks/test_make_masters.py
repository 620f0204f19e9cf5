"""Masters of simulated frames are the truth of the simulated detector, to their noise."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from helpers.calib_frames import biases, darks, flats, gain_map, in_band, make_chip

from apstream.errors import BadFile, MixedFrames, TooFewFrames
from apstream.model.calibs import IsrCalibs
from apstream.model.frames import Master, MemoryFrames
from apstream.tasks.make_bias import BiasConfig, make_bias
from apstream.tasks.make_dark import DarkConfig, make_dark
from apstream.tasks.make_flat import make_flat
from apstream.tasks.stack import CombineConfig

CHIP = make_chip(size=192)


@pytest.fixture(scope="module")
def bias() -> Master:
    return make_bias(biases(CHIP, 16))


@pytest.fixture(scope="module")
def dark(bias: Master) -> Master:
    return make_dark(darks(CHIP, [600.0] * 9), IsrCalibs(bias=bias.image))


def test_the_bias_is_the_truth_to_its_noise(bias: Master) -> None:
    left = bias.image - CHIP.bias
    noise = np.mean([a.read_noise / a.gain for a in CHIP.detector.amplifiers]) / 4
    assert abs(left.mean()) < 0.1
    assert left.std() == pytest.approx(noise, rel=0.1)
    assert bias.report.metrics["noise_adu"] == pytest.approx(noise, rel=0.1)
    assert bias.report.metrics["column_structure_adu"] > 0.5
    assert len(bias.report.used) == 16


def test_the_dark_rate_is_within_two_percent_and_free_of_cosmic_rays(dark: Master) -> None:
    truth, good = CHIP.dark_rate / gain_map(CHIP), ~CHIP.defects
    assert np.median(dark.image[good]) == pytest.approx(np.median(truth[good]), rel=0.02)
    hot = (CHIP.dark_rate > 5) & (CHIP.dark_rate < 50)
    assert np.median(dark.image[hot] / truth[hot]) == pytest.approx(1, abs=0.02)
    pull = ((dark.image - truth) / dark.noise)[good]
    assert np.mean(np.abs(pull) > 6) < 0.003
    assert dark.report.metrics["clipped_fraction"] > 1e-3


def test_the_flat_is_the_truth_to_a_thousandth(bias: Master, dark: Master) -> None:
    levels = [30_000.0, 24_000.0, 36_000.0, 31_000.0] * 5
    made = make_flat(flats(CHIP, levels), IsrCalibs(bias=bias.image, dark=dark.image))
    good = ~CHIP.defects
    ratio = np.where(good, made.image / CHIP.flat, np.nan)
    ratio /= np.nanmean(ratio)
    blocks = np.nanmean(ratio.reshape(6, 32, 6, 32), axis=(1, 3))
    assert np.abs(blocks - 1).max() < 1e-3
    assert np.nanstd(ratio) == pytest.approx(np.median(made.noise), rel=0.1)
    assert made.report.metrics["pixel_response"] == pytest.approx(0.007, rel=0.2)
    assert float(np.mean(made.image)) == pytest.approx(1, abs=5e-3)


def test_flats_that_are_saturated_empty_or_of_other_lamps_are_named(bias: Master) -> None:
    calibs = IsrCalibs(bias=bias.image)
    made = make_flat(flats(CHIP, [30_000.0, 99_000.0, 50.0, 29_000.0]), calibs)
    assert [one.name for one in made.report.rejected] == ["flat_202.fits", "flat_203.fits"]
    assert "saturated" in made.report.rejected[0].reason
    assert "empty" in made.report.rejected[1].reason
    with pytest.raises(TooFewFrames, match=r"flat_203\.fits: empty.*min_frames"):
        make_flat(flats(CHIP, [30_000.0, 99_000.0, 50.0]), calibs)


def test_frames_that_do_not_belong_together_are_refused() -> None:
    two = flats(CHIP, [30_000.0, 30_000.0]).frames
    with pytest.raises(MixedFrames, match=r"g: flat_202\.fits; r: flat_201\.fits"):
        make_flat(MemoryFrames([two[0], in_band(two[1], "g")]))
    other = make_chip(size=128)
    with pytest.raises(MixedFrames, match="detector"):
        make_bias(MemoryFrames([*biases(CHIP, 2).frames, *biases(other, 1).frames]))
    with pytest.raises(TooFewFrames, match="1 usable bias frame, at least 2"):
        make_bias(biases(CHIP, 1))


def test_a_bias_with_light_or_exposure_and_a_file_that_is_broken_are_left_out() -> None:
    good = list(biases(CHIP, 6).frames)
    lit = replace(good[5], pixels=good[5].pixels.copy())
    for amplifier in CHIP.detector.amplifiers:
        lit.pixels[:, amplifier.data.x0 : amplifier.data.x1] += 40
    exposed = replace(good[4], info=replace(good[4].info, exposure_s=300.0))
    made = make_bias(Broken([*good[:4], exposed, lit, good[0]]))
    reasons = {one.name: one.reason for one in made.report.rejected}
    assert reasons["bias_5.fits"] == "exposed for 300 s"
    assert "level" in reasons["bias_6.fits"]
    assert reasons["broken.fits"] == "the file is truncated"
    assert made.report.used == tuple(f"bias_{k}.fits" for k in range(1, 5))


@dataclass(frozen=True, slots=True)
class Broken(MemoryFrames):
    """The last frame cannot be read."""

    def frame(self, index):  # type: ignore[no-untyped-def]
        if index == len(self.frames) - 1:
            raise BadFile("the file is truncated", where="broken.fits")
        return self.frames[index]


def test_a_dead_time_is_found_from_several_exposure_times(bias: Master) -> None:
    warm = make_chip(size=192, dark_e_s=2.0)
    frames = darks(warm, [30.0, 60.0, 120.0, 240.0] * 2)
    late = MemoryFrames(
        [replace(raw, info=replace(raw.info, exposure_s=raw.info.exposure_s - 10.0)) for raw in frames.frames]
    )
    calibs, fitted = IsrCalibs(bias=warm.bias), DarkConfig(exposure="fitted")
    made = make_dark(late, calibs, config=fitted)
    assert made.report.metrics["dead_time_s"] == pytest.approx(10, abs=0.5)
    good = ~warm.defects
    truth = np.median((warm.dark_rate / gain_map(warm))[good])
    assert np.median(made.image[good]) == pytest.approx(truth, rel=0.02)
    with pytest.raises(TooFewFrames, match="exposure=header"):
        make_dark(darks(warm, [60.0, 60.0]), calibs, config=fitted)


@dataclass(frozen=True, slots=True)
class Endless:
    """As many bias frames as one likes; none is kept, and every read is written down."""

    count: int
    reads: list[tuple[int, int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def frame(self, index):  # type: ignore[no-untyped-def]
        raw = SOME.frames[index % len(SOME.frames)]
        return replace(raw, pixels=raw.pixels.copy())

    def rows(self, index, y0, y1):  # type: ignore[no-untyped-def]
        self.reads.append((index, y0, y1))
        return SOME.frames[index % len(SOME.frames)].pixels[y0:y1].copy()


SOME = biases(CHIP, 4)


def test_memory_does_not_grow_with_the_number_of_frames() -> None:
    config = BiasConfig(combine=CombineConfig(memory_mb=1))
    make_bias(Endless(4), config=config)
    peaks = {}
    for count in (15, 60):
        tracemalloc.start()
        frames = Endless(count)
        make_bias(frames, config=config)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        rows = max(y1 - y0 for _, y0, y1 in frames.reads)
        assert rows * count * 256 * 4 <= 1e6
        assert sum(y1 - y0 for index, y0, y1 in frames.reads if index == 0) == 192
    frame = 192 * 256 * 4
    assert (peaks[60] - peaks[15]) / 45 < 0.1 * frame
    assert peaks[60] < 40 * frame
