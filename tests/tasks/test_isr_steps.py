"""ISR on frames with injected effects: what is left of each, and what is said of dead amplifiers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from apstream.cameras import load_camera
from apstream.errors import NoGoodPixels, WrongSize
from apstream.model.calibs import IsrCalibs
from apstream.model.crosstalk import Crosstalk
from apstream.model.detector import Amplifier, Detector
from apstream.model.exposures import Exposure, ExposureInfo, RawExposure
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.linearity import Linearity
from apstream.model.mask import MaskPlane
from apstream.model.transfer import PhotonTransfer
from apstream.repo.formats.raw import read_raw
from apstream.tasks.isr import IsrConfig, isr

INFO = ExposureInfo(id=VisitDetector("test", 1, 0), band="z", physical_filter="z", mid_mjd_tai=60000.0, exposure_s=30.0)
N, OVER = 256, 24  # side of one amplifier, width of its overscans
GAINS, NOISE = (1.5, 2.0, 1.8, 1.6), 6.0
NAMES = tuple("ABCD")


def detector() -> Detector:
    """Four amplifiers, two by two, each read from its own corner of the detector; overscans in the middle."""
    amplifiers = []
    for k, name in enumerate(NAMES):
        top, right = divmod(k, 2)
        x0, y0 = (N + 2 * OVER, 0)[1 - right], (N + 2 * OVER, 0)[1 - top]
        over, target = N + OVER if right else N, Box(N * top, N * right, N * (top + 1), N * (right + 1))
        below = N + OVER if top else N
        amplifiers.append(
            Amplifier(
                name=name, data=Box(y0, x0, y0 + N, x0 + N), target=target,
                overscan=Box(y0, over, y0 + N, over + OVER), parallel_overscan=Box(below, x0, below + OVER, x0 + N),
                gain=GAINS[k], read_noise=NOISE, saturation=55000, backward_x=bool(right), backward_y=bool(top),
            )
        )  # fmt: skip
    return Detector(number=0, name="four", shape=(2 * N, 2 * N), pixel_scale_arcsec=0.3, amplifiers=tuple(amplifiers))


@dataclass(frozen=True)
class Readout:
    """What the electronics do to ADU above the bias level."""

    bend: float = 0.0  # measured = x - bend x^2
    heard: np.ndarray | None = None
    columns: float = 0.0  # rms of column levels
    seed: int = 5


def read_out(light: np.ndarray, how: Readout = Readout()) -> RawExposure:
    """Turn electrons into a raw frame: response, crosstalk, column and row levels, read noise."""
    rng, d = np.random.default_rng(how.seed), detector()
    adu = [light[a.target.slices(d.box)] / a.gain for a in d.amplifiers]
    adu = [x - how.bend * x**2 for x in adu]
    turned = [turn(x, a) for x, a in zip(adu, d.amplifiers, strict=True)]
    if how.heard is not None:
        turned = list(np.stack(turned) + np.einsum("ij,jyx->iyx", how.heard, np.stack(turned)))
    pixels = np.zeros((2 * (N + OVER),) * 2, np.float32)
    whole = Box.from_shape(pixels.shape)
    for a, x in zip(d.amplifiers, turned, strict=True):
        level = 1000 + np.cumsum(rng.normal(0, 0.1, N))[:, None]
        columns, noise = rng.normal(0, how.columns, N), NOISE / a.gain
        below = a.parallel_overscan
        corner = Box(below.y0, a.overscan.x0, below.y1, a.overscan.x1)
        pixels[a.data.slices(whole)] = turn(x, a) + level + columns + rng.normal(0, noise, (N, N))
        pixels[a.overscan.slices(whole)] = level + rng.normal(0, noise, (N, OVER))
        pixels[below.slices(whole)] = 1000 + columns + rng.normal(0, noise, (OVER, N))
        pixels[corner.slices(whole)] = 1000 + rng.normal(0, noise, (OVER, OVER))
    return RawExposure(pixels=pixels, detector=d, info=INFO, wcs=None)


def turn(image: np.ndarray, a: Amplifier) -> np.ndarray:
    return image[:: -1 if a.backward_y else 1, :: -1 if a.backward_x else 1]


def starlight(seed: int = 1, sky: float = 800.0, brightest: float = 6.1) -> np.ndarray:
    """A sky with stars of all magnitudes, the brightest near full well; no photon noise, which is no effect here."""
    rng = np.random.default_rng(seed)
    light = np.full((2 * N, 2 * N), sky)
    y, x = np.mgrid[-15:16, -15:16]
    for cy, cx in rng.integers(15, 2 * N - 15, (150, 2)):
        flux = 10 ** rng.uniform(3, brightest)
        light[cy - 15 : cy + 16, cx - 15 : cx + 16] += flux * np.exp(-(y**2 + x**2) / 8) / (8 * np.pi)
    return light


def left_of(effect: np.ndarray, fixed: np.ndarray, clean: np.ndarray, above: float) -> float:
    """Return which part of an effect is left, where it is larger than `above`."""
    there = np.abs(effect) > above
    assert there.sum() > 50
    return float(np.abs(fixed - clean)[there].sum() / np.abs(effect[there]).sum())


HEARD = 1e-3 * np.array([[0, 4, 0.5, 0.2], [3, 0, 0.3, 0.6], [0.4, 0.5, 0, 5], [0.2, -0.7, 4, 0]])


def test_crosstalk_of_bright_stars_is_gone():
    light = starlight()
    clean, dirty = isr(read_out(light)), isr(read_out(light, Readout(heard=HEARD)))
    fixed = isr(read_out(light, Readout(heard=HEARD)), IsrCalibs(crosstalk=Crosstalk(NAMES, HEARD)))
    effect = dirty.image.image - clean.image.image
    assert effect.max() > 200
    assert left_of(effect, fixed.image.image, clean.image.image, 30) < 0.02
    assert np.all(fixed.image.mask[effect > 60] & MaskPlane.CROSSTALK)


def table_of(bend: float) -> np.ndarray:
    """The table that undoes x - bend x^2, of forty points."""
    true = np.linspace(0, 60000, 40)
    return np.stack([true - bend * true**2, bend * true**2])


def polynomial_of(bend: float) -> np.ndarray:
    """The coefficients fitted to the same measurements."""
    true = np.linspace(500, 60000, 60)
    measured = true - bend * true**2
    powers = measured[:, None] ** np.arange(2, 6)
    scale = powers.max(axis=0)
    return np.linalg.lstsq(powers / scale, true - measured, rcond=None)[0] / scale


@pytest.mark.parametrize("kind", ["polynomial", "table"])
def test_non_linearity_is_gone(kind):
    bend, light = 1.5e-6, starlight()
    values = table_of(bend) if kind == "table" else polynomial_of(bend)
    known = Linearity(names=NAMES, kind=kind, coefficients=(values,) * 4, max_adu=(10000.0,) + (np.inf,) * 3)
    clean, dirty = isr(read_out(light)), isr(read_out(light, Readout(bend=bend)))
    fixed = isr(read_out(light, Readout(bend=bend)), IsrCalibs(linearity=known))
    effect = dirty.image.image - clean.image.image
    assert effect.min() < -1000
    assert left_of(effect, fixed.image.image, clean.image.image, 20) < 0.02
    suspect = (fixed.image.mask & MaskPlane.SUSPECT) != 0
    np.testing.assert_array_equal(suspect[:N, :N], dirty.image.image[:N, :N] / GAINS[0] >= 10000)
    assert suspect[:N, :N].any()
    assert not suspect[N:].any()
    plain = isr(read_out(light, Readout(bend=bend)), IsrCalibs(linearity=known), IsrConfig(linearity=False))
    np.testing.assert_array_equal(plain.image.image, dirty.image.image)


def fringes() -> np.ndarray:
    thickness = gaussian_filter(np.random.default_rng(8).normal(size=(2 * N, 2 * N)), 15)
    bands = np.cos(6 * thickness / thickness.std())
    return ((bands - np.median(bands)) / bands.std()).astype(np.float32)


def test_all_three_together_are_gone_between_stars_on_a_sloping_sky():
    bend, pattern = 1.5e-6, fringes()
    rng = np.random.default_rng(3)
    light = starlight() * np.linspace(0.95, 1.05, 2 * N)
    noisy = rng.poisson(light).astype(float)
    fringed = noisy + 25 * pattern
    calibs = IsrCalibs(
        crosstalk=Crosstalk(NAMES, HEARD),
        linearity=Linearity(
            names=NAMES, kind="polynomial", coefficients=(polynomial_of(bend),) * 4, max_adu=(np.inf,) * 4
        ),
        fringe=pattern,
    )
    how = Readout(bend=bend, heard=HEARD)
    clean = isr(read_out(noisy))
    out = isr(read_out(fringed, how), calibs, IsrConfig.model_validate({"fringe": {"bands": ["y", "z"]}}))
    assert out.metrics["isr.fringe_amplitude"] == pytest.approx(25, rel=0.03)
    assert out.metrics["isr.fringe_amplitude_error"] < 0.4
    rest = (out.image.image - clean.image.image)[(out.image.mask & MaskPlane.EDGE) == 0]
    assert 1.4826 * np.median(np.abs(rest)) < 0.05 * 25


def test_fringes_are_left_alone_in_other_bands():
    light, calibs = starlight(), IsrCalibs(fringe=fringes())
    clean = isr(read_out(light))
    for config in (IsrConfig(), IsrConfig.model_validate({"fringe": {"bands": ["y"]}})):
        np.testing.assert_array_equal(isr(read_out(light), calibs, config).image.image, clean.image.image)


def test_columns_are_levelled_by_the_parallel_overscan_even_beneath_a_bleeding_star():
    light, how = starlight(), Readout(columns=8.0)
    raw = read_out(light, how)
    raw.pixels[N : N + OVER, 100:112] += 5000 * np.exp(-np.arange(OVER) / 5)[:, None]  # charge runs down into it
    out, without = isr(raw), isr(raw, None, IsrConfig.model_validate({"parallel_overscan": "none"}))
    left, before = ((e.image.image - light).mean(axis=0)[4:N] / GAINS[0] for e in (out, without))
    quiet = np.ones(N - 4, bool)
    quiet[90:120] = False
    assert before.std() > 5
    assert left[quiet].std() < NOISE / GAINS[0] / np.sqrt(OVER) * 1.2
    assert np.abs(left[~quiet]).max() < 4 * 8
    assert out.metrics["isr.A.n_trailed_columns"] == 12
    assert out.metrics["isr.A.parallel_overscan_adu"] == pytest.approx(0, abs=2)


@pytest.mark.parametrize(
    "choice",
    ["line", "spline", {"kind": "polynomial", "family": "legendre", "order": 4}, {"kind": "line", "smooth_lines": 9}],
)
def test_every_kind_of_overscan_leaves_the_noise_alone(choice):
    light = starlight()
    out = isr(read_out(light), None, IsrConfig(overscan=choice)).image
    rest = (out.image - light)[: N - 4, 4:N]
    assert rest.std() == pytest.approx(NOISE, rel=0.04)
    assert abs(rest.mean()) < 3 * NOISE / OVER  # of the corner where both overscans meet


def test_an_unknown_kind_of_overscan_is_refused():
    with pytest.raises(ValueError, match=r"overscan.*\n.*'wavelet'.*'spline'"):
        IsrConfig.model_validate({"overscan": "wavelet"})


def test_measured_gains_and_noises_replace_the_cameras():
    light = starlight()
    measured = PhotonTransfer(
        names=NAMES, gain=(1.6, *GAINS[1:]), gain_err=(0.01,) * 4, read_noise=(7.0, NOISE, NOISE, NOISE),
        turnoff_adu=(np.nan, 30000.0, np.nan, np.nan), a00=(0.0,) * 4,
    )  # fmt: skip
    plain, out = isr(read_out(light)), isr(read_out(light), IsrCalibs(transfer=measured))
    np.testing.assert_allclose(out.image.image[:N, :N], plain.image.image[:N, :N] * 1.6 / 1.5, rtol=1e-5)
    np.testing.assert_array_equal(out.image.image[N:], plain.image.image[N:])
    assert out.image.variance[:N, :N].min() >= 49
    assert out.metrics["isr.A.noise_electron"] == pytest.approx(plain.metrics["isr.A.noise_electron"] * 1.6 / 1.5)
    suspect = (out.image.mask & MaskPlane.SUSPECT) != 0
    np.testing.assert_array_equal(suspect[:N, N:], plain.image.image[:N, N:] / 2 >= 30000)
    off = isr(read_out(light), IsrCalibs(transfer=measured), IsrConfig(transfer=False))
    np.testing.assert_array_equal(off.image.image, plain.image.image)


def test_what_is_known_of_other_amplifiers_is_refused():
    other = Linearity(names=("X",), kind="polynomial", coefficients=(np.zeros(1),), max_adu=(np.inf,))
    with pytest.raises(WrongSize, match="linearity is of amplifiers X, detector four has A, B, C, D"):
        isr(read_out(starlight()), IsrCalibs(linearity=other))
    with pytest.raises(WrongSize, match=r"kernel is \(4, 5\)"):
        isr(read_out(starlight()), IsrCalibs(brighter_fatter=np.zeros((4, 5))))


def blurred_by_charge(light: np.ndarray, kernel: np.ndarray, steps: int = 30) -> np.ndarray:
    """Collect light step by step, each pushed by the charge that is there already."""
    charge = np.zeros_like(light)
    for _ in range(steps):
        new = light / steps
        field = fftconvolve(charge + new / 2, kernel, mode="same")
        charge += new
        for axis in (0, 1):
            flow = np.diff(field, axis=axis)
            a, b = ((slice(None), slice(k, k - 1 or None))[:: 1 if axis else -1] for k in (0, 1))
            moved = (new[a] + new[b]) / 2 * flow
            charge[a] -= moved
            charge[b] += moved
    return charge


def widths(image: np.ndarray, at: list[tuple[int, int]]) -> np.ndarray:
    y, x = np.mgrid[-8:9, -8:9]
    stamps = [image[cy - 8 : cy + 9, cx - 8 : cx + 9] - 800 for cy, cx in at]
    weight = np.exp(-(y**2 + x**2) / 8)
    moments = [(s * weight * (y**2 + x**2)).sum() / (s * weight).sum() for s in stamps]
    return np.array([np.sqrt(1 / (2 / m - 1 / 4)) for m in moments])


def test_bright_stars_are_no_fatter_than_faint_ones_before_the_flat():
    r = np.hypot(*np.mgrid[-6:7, -6:7])
    kernel = -1.2e-6 / (1 + (r / 0.8) ** 2)
    at = [(60, 60), (60, 200), (190, 100), (330, 330), (400, 120), (130, 410)]
    light, (y, x) = np.full((2 * N, 2 * N), 800.0), np.mgrid[: 2 * N, : 2 * N]
    for cy, cx in at:
        light += 7e5 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 8) / (8 * np.pi)
    flat = np.random.default_rng(2).uniform(0.95, 1.05, light.shape).astype(np.float32)
    raw = read_out(blurred_by_charge(light * flat, kernel))
    calibs = IsrCalibs(flat=flat, brighter_fatter=kernel)
    config = IsrConfig.model_validate({"brighter_fatter": {}})
    before, after = isr(raw, calibs), isr(raw, calibs, config)
    true = widths(light, at)
    effect, left = widths(before.image.image, at) / true - 1, widths(after.image.image, at) / true - 1
    assert np.all(effect > 0.004)
    assert np.all(np.abs(left) < 0.1 * effect)
    assert after.metrics["isr.brighter_fatter_iterations"] < 10
    expected = (np.maximum(after.image.image * flat, 0) + NOISE**2) / flat**2
    np.testing.assert_allclose(after.image.variance, expected, rtol=1e-4)


def kill(raw: RawExposure, amplifier: int, how: str) -> None:
    whole, a = Box.from_shape(raw.pixels.shape), raw.detector.amplifiers[amplifier]
    data, over = a.data.slices(whole), a.overscan.slices(whole)
    match how:
        case "no signal":
            raw.pixels[data] = 1000
        case "silent overscan":
            raw.pixels[over] = 1000
        case "little noise":
            raw.pixels[over] = 1000 + 0.02 * (raw.pixels[over] - 1000)
        case "much noise":
            raw.pixels[over] = 1000 + 5 * (raw.pixels[over] - 1000)


@pytest.mark.parametrize(
    ("how", "said"),
    [("no signal", "dead"), ("silent overscan", "dead"), ("little noise", "dead"), ("much noise", "noisy")],
)
def test_an_amplifier_that_does_not_work_is_bad_and_named(how, said):
    raw = read_out(starlight())
    kill(raw, 2, how)
    out = isr(raw)
    bad = (out.image.mask & MaskPlane.BAD) != 0
    assert bad[N:, :N].all()
    assert not bad[:N].any()
    assert not bad[N:, N:].any()
    named = {key: value for key, value in out.metrics.items() if key.endswith((".dead", ".noisy"))}
    assert named == {f"isr.C.{said}": 1}


def test_a_detector_without_a_living_amplifier_is_refused():
    raw = read_out(starlight())
    for k in range(4):
        kill(raw, k, "silent overscan")
    with pytest.raises(NoGoodPixels, match="most are bad"):
        isr(raw)


def test_saturation_grows_across_amplifiers_and_suspect_pixels_lie_below_it():
    light = starlight(brightest=4.0)
    light[100:103, N - 1] = 2e5
    raw = read_out(light)
    mask = isr(raw, None, IsrConfig(saturation_grow_px=2, suspect_fraction=0.001)).image.mask
    assert np.all(mask[98:105, N - 3 : N + 2] & MaskPlane.SAT)
    assert np.argwhere(mask & MaskPlane.SAT).shape == (35, 2)
    assert mask[300, 300] & MaskPlane.SUSPECT


KAST_NOISE = {"A": 2.94, "B": 2.82}  # ADU, by photon transfer on pairs of flats
KAST_GAIN = {"A": 1.22, "B": 1.28}


@pytest.mark.parametrize("frame", [1003, 1020, 1025, 1030, 1064])
def test_real_kast_frames_have_their_overscans_through_the_camera_description(shared_data: Path, frame: int):
    path = shared_data / "kast_blue" / f"b{frame}.fits"
    camera = load_camera("kast-blue")
    out: Exposure = isr(read_raw(path, camera))
    pixels = fits.getdata(path)
    for k, name in enumerate("AB"):
        over = pixels[:, 2048 + 32 * k : 2080 + 32 * k]
        assert out.metrics[f"isr.{name}.overscan_adu"] == pytest.approx(np.median(over), abs=1)
        adu = out.metrics[f"isr.{name}.noise_electron"] / KAST_GAIN[name]
        assert adu == pytest.approx(KAST_NOISE[name], rel=0.03)
    assert out.image.shape == (350, 2048)
    assert out.info.observation_type == ("flat" if 1020 <= frame <= 1030 else "science")


def test_the_raw_ste3_frame_has_its_overscan_through_the_camera_description(shared_data: Path):
    path = shared_data / "overscan_frames" / "a8280271.fits"
    metrics = isr(read_raw(path, load_camera("saao-ste3-raw"))).metrics
    assert metrics["isr.A.overscan_adu"] == pytest.approx(214, rel=0.003)
    assert metrics["isr.A.noise_electron"] / 1.9 == pytest.approx(2.97, rel=0.03)


def test_a_raw_frame_may_lack_the_parallel_overscan():
    raw = read_out(starlight())
    without = tuple(replace(a, parallel_overscan=None) for a in raw.detector.amplifiers)
    out = isr(replace(raw, detector=replace(raw.detector, amplifiers=without)))
    assert not any("parallel" in key for key in out.metrics)
