"""Defects, crosstalk and fringes of simulated frames, and ISR with all that was made of one night."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.calib_frames import (
    bent,
    biases,
    darks,
    flats,
    frame,
    make_chip,
    star_field,
    with_crosstalk,
)

from apstream.arrays.bad_pixels import filled_columns
from apstream.errors import TooFewFrames, WrongSize
from apstream.model.calibs import IsrCalibs
from apstream.model.frames import MemoryFrames, Rejected
from apstream.model.mask import MaskPlane
from apstream.tasks.isr import IsrConfig, isr
from apstream.tasks.isr_fringe import FringeConfig
from apstream.tasks.make_bias import make_bias
from apstream.tasks.make_crosstalk import CrosstalkConfig, make_crosstalk
from apstream.tasks.make_dark import make_dark
from apstream.tasks.make_defects import make_defects
from apstream.tasks.make_flat import make_flat
from apstream.tasks.make_fringe import make_fringe
from apstream.tasks.make_linearity import LinearityConfig
from apstream.tasks.make_ptc import PtcConfig, make_ptc
from apstream.tasks.survey import Survey, require_enough

CHIP = make_chip(seed=7, size=384)


@pytest.fixture(scope="module")
def masters() -> IsrCalibs:
    bias = make_bias(biases(CHIP, 10)).image
    dark = make_dark(darks(CHIP, [300.0] * 7), IsrCalibs(bias=bias)).image
    flat = make_flat(flats(CHIP, [40e3] * 12), IsrCalibs(bias=bias, dark=dark)).image
    return IsrCalibs(bias=bias, dark=dark, flat=flat)


def test_defects_are_found_and_hardly_anything_else(masters: IsrCalibs) -> None:
    assert masters.flat is not None
    made = make_defects(masters.dark, [masters.flat])
    found = made.defects.mask(CHIP.defects.shape)
    assert (found & CHIP.defects).sum() / CHIP.defects.sum() > 0.95
    apart = found & ~CHIP.defects & ~CHIP.defects.any(axis=0)  # a stretch of a column is flagged with its ends
    assert apart.mean() < 1e-4
    assert (found & ~CHIP.defects).mean() < 1e-3
    assert made.report.metrics["hot_pixels"] > 50
    with pytest.raises(WrongSize, match="different sizes"):
        make_defects(masters.dark, [masters.flat[:-1]])
    with pytest.raises(TooFewFrames):
        make_defects(None, [])


def test_a_column_with_gaps_is_filled_but_stray_pixels_do_not_make_one() -> None:
    bad = np.zeros((200, 3), bool)
    bad[50:120:2, 1] = True
    bad[[3, 190], 1] = True
    bad[::40, 2] = True
    filled = filled_columns(bad, density=0.4, least=8)
    assert filled[50:119, 1].all()
    assert filled[:, 1].sum() == 69 + 2
    assert filled[:, 2].sum() == 5


@pytest.fixture(scope="module")
def loud() -> tuple[np.ndarray, MemoryFrames]:
    chip = make_chip(size=384, amplifiers=4)
    matrix = np.array([[0, 8e-4, 0, 0], [1e-3, 0, 0, 9e-4], [0, 0, 0, 8e-4], [-1e-3, 0, 1.2e-3, 0]])
    made = [
        frame(chip, 400 + k, "science", light=star_field(384, k, stars=110), exposure_s=30.0, seed=6) for k in range(8)
    ]
    return matrix, MemoryFrames([with_crosstalk(raw, matrix) for raw in made])


def test_crosstalk_is_measured_to_a_twentieth_and_nothing_invented(loud) -> None:
    matrix, frames = loud
    made = make_crosstalk(frames)
    real = matrix != 0
    assert made.crosstalk.matrix[real] == pytest.approx(matrix[real], rel=0.05)
    assert np.abs(made.crosstalk.matrix[~real]).max() < 6e-5
    assert np.all(np.isnan(np.diagonal(made.error)))


def test_isr_with_the_measured_crosstalk_leaves_no_ghosts(loud) -> None:
    matrix, frames = loud
    crosstalk = make_crosstalk(frames).crosstalk
    raw = frames.frames[0]
    clean = isr(raw, IsrCalibs(crosstalk=crosstalk)).image.image
    noisy = isr(raw).image.image
    added = noisy - isr(raw, IsrCalibs(crosstalk=replace(crosstalk, matrix=matrix))).image.image
    loudest = added > 15
    assert np.abs((noisy - clean - added)[loudest]).max() < 0.05 * added[loudest].max()


def test_crosstalk_needs_bright_stars_and_two_amplifiers() -> None:
    with pytest.raises(TooFewFrames, match="bright"):
        make_crosstalk(flats(CHIP, [20e3]), config=CrosstalkConfig(bright_fraction=0.5))
    with pytest.raises(TooFewFrames, match="one amplifier"):
        make_crosstalk(flats(make_chip(size=128, amplifiers=1), [20e3]))


def fringes(size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return (0.02 * np.sin(0.12 * x + 4 * np.sin(y / 70)) * np.cos(y / 130)).astype(np.float32)


def test_fringes_come_out_of_skies_with_stars_and_go_out_of_images(masters: IsrCalibs) -> None:
    pattern = fringes(384)
    rng = np.random.default_rng(8)
    skies = []
    for k in range(12):
        level = float(rng.uniform(3000, 6000))
        stars = star_field(384, 50 + k, stars=60, sky=0.0)
        light = level * (1 + pattern) + stars
        skies.append(frame(CHIP, 600 + k, "science", light=light, exposure_s=60.0, seed=9))
    made = make_fringe(MemoryFrames(skies[:11]), masters)
    inside = np.s_[10:-10, 10:-10]
    good = ~CHIP.defects[inside] & (made.image[inside] != 0)
    left = (made.image - pattern)[inside][good]
    assert np.corrcoef(made.image[inside][good], pattern[inside][good])[0, 1] > 0.95
    assert left.std() < 0.35 * pattern.std()
    assert abs(np.median(made.image)) < 1e-4
    fringed = replace(masters, fringe=made.image)
    image = isr(skies[11], fringed, IsrConfig(fringe=FringeConfig(bands=("r",)))).image.image
    plain = isr(skies[11], masters).image.image
    for picture, share in ((plain, (0.8, 1.2)), (image, (-0.05, 0.05))):
        sky = np.clip(picture[inside], None, np.percentile(picture, 80))
        use = good & (picture[inside] < np.percentile(picture, 70))
        slope = np.polyfit(pattern[inside][use], sky[use] / np.median(sky[use]), 1)[0]
        if share[0] > 0:
            assert slope > 0.5
        else:
            assert abs(slope) < 0.05


def test_from_raw_calibration_frames_to_a_flat_image() -> None:
    """Bias, dark, crosstalk, bent response, gains and flat, all measured, take the instrument out."""
    chip = make_chip(seed=11, size=384, dark_e_s=0.3)
    bend = 0.02
    bias = make_bias(biases(chip, 12)).image
    levels = np.repeat(np.linspace(4000, 72_000, 8), 2)
    pairs = [
        bent(frame(chip, 300 + k, "flat", light=level, exposure_s=level / 1000, seed=4, cosmic=False), bend)
        for k, level in enumerate(levels)
    ]
    measured = make_ptc(
        MemoryFrames(pairs), IsrCalibs(bias=bias), config=PtcConfig(model="linear", linearity=LinearityConfig(order=2))
    )
    first = IsrCalibs(bias=bias, linearity=measured.linearity, transfer=measured.transfer)
    dark = make_dark(darks(chip, [300.0] * 7), first).image
    lamps = MemoryFrames([bent(raw, bend) for raw in flats(chip, [40e3] * 16).frames])
    flat = make_flat(lamps, replace(first, dark=dark)).image
    defects = make_defects(dark, [flat]).defects.mask(chip.defects.shape)
    calibs = replace(first, dark=dark, flat=flat, defects=defects)
    raw = bent(frame(chip, 900, "science", light=20_000.0, exposure_s=60.0, seed=3, cosmic=False), bend)
    image = isr(raw, calibs).image
    good = (image.mask & (MaskPlane.BAD | MaskPlane.EDGE | MaskPlane.SAT)) == 0
    values = np.where(good, image.image, np.nan)
    noise = np.sqrt(np.nanmedian(image.variance) + 20_000.0**2 / (16 * 40e3))
    assert np.nanmedian(values) == pytest.approx(20_000, rel=0.015)
    assert np.nanstd(values) == pytest.approx(noise, rel=0.05)
    blocks = np.nanmean(values.reshape(12, 32, 12, 32), axis=(1, 3))
    assert blocks.std() / blocks.mean() < 1e-3
    untouched = isr(raw).image.image[good]
    assert untouched.std() > 3 * noise


def test_of_many_frames_left_out_the_first_are_named() -> None:
    rejected = tuple(Rejected(f"f{n}.fits", "saturated") for n in range(40))
    found = Survey(detector=make_chip().detector, looks=(), rejected=rejected)
    with pytest.raises(
        TooFewFrames, match=r"0 usable darks.*f0\.fits.*f2\.fits: saturated; and 37 more \(give"
    ) as failed:
        require_enough(found, 3, "dark")
    assert "f3.fits" not in str(failed.value)
