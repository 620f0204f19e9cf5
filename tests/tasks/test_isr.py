from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apstream.errors import NoGoodPixels, WrongSize
from apstream.model.calibs import IsrCalibs, defect_map
from apstream.model.crosstalk import Crosstalk
from apstream.model.defects import Defects
from apstream.model.detector import Amplifier, Detector
from apstream.model.exposures import ExposureInfo, RawExposure
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.mask import MaskPlane
from apstream.tasks.isr import IsrConfig, isr

INFO = ExposureInfo(id=VisitDetector("test", 1, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0)
NY, NX, OVER = 64, 48, 12  # of one amplifier

GAINS, NOISES = (1.5, 2.0), (6.0, 4.0)


def detector() -> Detector:
    """Two amplifiers side by side; the right one is read from the right, its overscan in the middle of the raw."""
    left = Amplifier(
        name="A", data=Box(0, 0, NY, NX), overscan=Box(0, NX, NY, NX + OVER), target=Box(0, 0, NY, NX),
        gain=GAINS[0], read_noise=NOISES[0], saturation=50000,
    )  # fmt: skip
    right = Amplifier(
        name="B", data=Box(0, NX + OVER, NY, 2 * NX + OVER), overscan=Box(0, 2 * NX + OVER, NY, 2 * (NX + OVER)),
        target=Box(0, NX, NY, 2 * NX), gain=GAINS[1], read_noise=NOISES[1], saturation=40000,
        flip_x=True, flip_y=True,
    )  # fmt: skip
    return Detector(number=0, name="two", shape=(NY, 2 * NX), pixel_scale_arcsec=0.3, amplifiers=(left, right))


def raw_of(truth, calibs: IsrCalibs, *, seed=1, levels=(1000.0, 1200.0)) -> RawExposure:
    """Build the raw that `isr` must turn back into `truth` electrons (before the flat), with read noise."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((NY, 2 * (NX + OVER)), np.float32)
    for a, level in zip(detector().amplifiers, levels, strict=True):
        where = a.target.slices(detector().box)
        adu = truth[where] * calibs.flat[where] / a.gain + calibs.bias[where] + 30 * calibs.dark[where]
        adu = adu[::-1] if a.flip_y else adu
        adu = adu[:, ::-1] if a.flip_x else adu
        drift = level + np.linspace(0, 20, NY)[:, None]
        whole = Box.from_shape(pixels.shape)
        sigma = a.read_noise / a.gain
        pixels[a.data.slices(whole)] = adu + drift + rng.normal(0, sigma, adu.shape)
        pixels[a.overscan.slices(whole)] = drift + rng.normal(0, sigma, (NY, OVER))
    return RawExposure(pixels=pixels, detector=detector(), info=INFO, wcs=None)


@pytest.fixture
def calibs() -> IsrCalibs:
    rng = np.random.default_rng(9)
    shape = (NY, 2 * NX)
    defects = np.zeros(shape, bool)
    defects[10, 20:23] = True
    return IsrCalibs(
        bias=rng.normal(0, 5, shape).astype("f4"),
        dark=rng.uniform(0, 0.5, shape).astype("f4"),
        flat=(1 + rng.normal(0, 0.05, shape)).astype("f4"),
        defects=defects,
    )


@pytest.fixture
def truth():
    return np.random.default_rng(3).uniform(500, 5000, (NY, 2 * NX)).astype(np.float32)


def test_the_signature_is_removed_and_only_noise_is_left(truth, calibs):
    out = isr(raw_of(truth, calibs), calibs, IsrConfig(overscan={"kind": "line", "smooth_lines": 7})).image
    for k, a in enumerate(detector().amplifiers):
        where = a.target.slices(detector().box)
        left = (out.image - truth)[where] * calibs.flat[where]
        assert abs(left.mean()) < 0.3 * NOISES[k]
        assert left.std() == pytest.approx(NOISES[k], rel=0.12)
    assert out.unit == "electron"


def test_variance_is_light_plus_read_noise_through_the_flat(truth, calibs):
    out = isr(raw_of(truth, calibs), calibs).image
    noise = np.where(np.arange(2 * NX) < NX, *NOISES)
    expected = (np.maximum(out.image * calibs.flat, 0) + noise**2) / calibs.flat**2
    assert np.allclose(out.variance, expected, rtol=1e-4)


def test_overscan_level_and_noise_are_recorded(truth, calibs):
    metrics = isr(raw_of(truth, calibs), calibs).metrics
    assert metrics["isr.A.overscan_adu"] == pytest.approx(1010, abs=1)
    assert metrics["isr.B.overscan_adu"] == pytest.approx(1210, abs=1)
    for name, noise in zip("AB", NOISES, strict=True):
        assert metrics[f"isr.{name}.noise_electron"] == pytest.approx(noise, rel=0.1)
        assert metrics[f"isr.{name}.noise_ratio"] == pytest.approx(1, rel=0.1)


def test_one_overscan_level_does_not_follow_the_rows(truth, calibs):
    drifting = isr(raw_of(truth, calibs), calibs, IsrConfig(overscan="constant")).image.image
    left = (drifting - truth)[:, :NX].mean(axis=1)
    assert left[-8:].mean() - left[:8].mean() > 15 * GAINS[0]


def test_masks_say_what_is_wrong_with_a_pixel(truth, calibs):
    raw = raw_of(truth, calibs)
    raw.pixels[30, 20] = 65535
    raw.pixels[40, 40] = np.nan
    mask = isr(raw, calibs, IsrConfig(edge_px=3)).image.mask
    assert np.all(mask[29:32, 19:22] & MaskPlane.SAT)
    assert not mask[33, 20] & MaskPlane.SAT
    assert mask[40, 40] & MaskPlane.NO_DATA
    assert np.all(mask[10, 20:23] & MaskPlane.BAD)
    assert np.all(mask[:3] & MaskPlane.EDGE)
    assert not np.any(mask[3:-3, 3:-3] & MaskPlane.EDGE)


def test_a_plateau_below_the_level_of_the_camera_is_saturated(truth, calibs):
    bright = truth.copy()
    bright[10:14, 5:9] += 1e5
    raw = raw_of(bright, calibs)
    raw = replace(raw, pixels=np.minimum(np.rint(raw.pixels), 16383))
    result = isr(raw, calibs)
    saturated = (result.image.mask & MaskPlane.SAT) != 0
    assert saturated[10:14, 5:9].all()
    assert not saturated[30:].any()
    assert 15300 < result.metrics["isr.A.saturation_adu"] < 15390
    assert "isr.B.saturation_adu" not in result.metrics


def test_a_bleed_trail_is_followed_down_its_column(calibs):
    truth = np.full((NY, 2 * NX), 300.0, np.float32)
    raw = raw_of(truth, calibs)
    raw.pixels[30:34, 20] = 65535
    raw.pixels[34:45, 20] += 20000
    mask = isr(raw, calibs).image.mask & MaskPlane.SAT
    assert np.all(mask[29:45, 20])
    assert not np.any(mask[50:, 20])


HEARD = Crosstalk(("B", "A"), np.array([[0.0, 4e-3], [2e-3, 0.0]]))  # B hears 0.4 % of A, A hears 0.2 % of B


def with_crosstalk(raw: RawExposure, *, backward: bool) -> tuple[RawExposure, np.ndarray]:
    """Add crosstalk of the electronics to a raw frame; return it, and what was added on the assembled detector, ADU.

    `backward`: the right amplifier's pixels lie in the raw array against the order of reading.
    """
    whole = Box.from_shape(raw.pixels.shape)
    left, right = raw.detector.amplifiers
    level = {a.name: np.median(raw.pixels[a.overscan.slices(whole)], axis=1, keepdims=True) for a in (left, right)}
    a, b = (raw.pixels[amp.data.slices(whole)] - level[amp.name] for amp in (left, right))
    turn = (slice(None), slice(None, None, -1 if backward else 1))
    heard = {"A": 2e-3 * b[turn], "B": 4e-3 * a[turn]}
    added = np.zeros(raw.detector.shape, np.float32)
    for amp in (left, right):
        raw.pixels[amp.data.slices(whole)] += heard[amp.name]
        flipped = heard[amp.name][:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
        added[amp.target.slices(raw.detector.box)] = flipped
    amplifiers = (left, replace(right, backward_x=backward))
    return replace(raw, detector=replace(raw.detector, amplifiers=amplifiers)), added


@pytest.mark.parametrize("backward", [False, True])
def test_crosstalk_is_taken_out_where_it_was_heard(calibs, backward):
    truth = np.full((NY, 2 * NX), 500.0, np.float32)
    truth[20:24, 10:14] = truth[50:53, 70:75] = 60000.0
    config = IsrConfig(overscan="constant")
    clean = isr(raw_of(truth, calibs), calibs, config).image
    raw, added = with_crosstalk(raw_of(truth, calibs), backward=backward)
    left = isr(raw, calibs, config).image.image - clean.image
    corrected = isr(raw, replace(calibs, crosstalk=HEARD), config).image
    rest = corrected.image - clean.image
    ghosts = added > 20
    assert ghosts[:, :NX].sum() == 15
    assert ghosts[:, NX:].sum() == 16
    assert np.all(np.abs(left[ghosts]) > 20)
    assert np.max(np.abs(rest)[ghosts] / np.abs(left[ghosts])) < 0.05
    assert np.max(np.abs(rest)) < 0.05 * np.max(np.abs(left))
    loud = (corrected.mask & MaskPlane.CROSSTALK) != 0
    assert np.array_equal(loud, ghosts)


def test_without_crosstalk_nothing_changes(truth, calibs):
    plain = isr(raw_of(truth, calibs), calibs).image
    silent = replace(calibs, crosstalk=Crosstalk(("A", "B"), np.zeros((2, 2))))
    for other in (
        isr(raw_of(truth, calibs), silent),
        isr(raw_of(truth, calibs), replace(calibs, crosstalk=HEARD), IsrConfig(crosstalk=False)),
    ):
        for plane in ("image", "mask", "variance"):
            assert getattr(other.image, plane).tobytes() == getattr(plain, plane).tobytes()


def test_a_dead_pixel_is_not_heard_and_no_mask_is_made_on_demand(truth, calibs):
    raw = raw_of(truth, calibs)
    raw.pixels[30, 20] = np.nan
    out = isr(raw, replace(calibs, crosstalk=HEARD), IsrConfig(crosstalk_mask_electron=None)).image
    assert np.argwhere(out.mask & MaskPlane.NO_DATA).tolist() == [[30, 20]]
    assert not np.any(out.mask & MaskPlane.CROSSTALK)


def test_crosstalk_of_another_detector_is_refused(truth, calibs):
    with pytest.raises(WrongSize, match="amplifiers C, D, detector two has A, B"):
        isr(raw_of(truth, calibs), replace(calibs, crosstalk=Crosstalk(("C", "D"), HEARD.matrix)))


def test_mask_and_variance_that_came_with_the_frame_are_taken_over(truth, calibs):
    raw = raw_of(truth, calibs)
    mask = np.zeros(raw.pixels.shape, np.int32)
    variance = np.full(raw.pixels.shape, 25.0, np.float32)
    mask[5, 6] = MaskPlane.CR
    mask[7, NX + OVER] = MaskPlane.SAT  # first pixel of the mirrored amplifier's row
    variance[5, 6], variance[9, 9] = np.inf, 0.0
    out = isr(replace(raw, mask=mask, variance=variance), IsrCalibs(flat=calibs.flat), IsrConfig(edge_px=0)).image
    assert np.argwhere(out.mask & MaskPlane.CR).tolist() == [[5, 6]]
    assert np.argwhere(out.mask & MaskPlane.SAT).tolist() == [[NY - 8, 2 * NX - 1]]
    assert np.argwhere(out.mask & MaskPlane.BAD).tolist() == [[9, 9]]
    gain = np.where(np.arange(2 * NX) < NX, *GAINS)
    known = np.ones(out.variance.shape, bool)
    known[5, 6] = known[9, 9] = False
    assert np.allclose(out.variance[known], (25 * gain**2 / calibs.flat**2)[known], rtol=1e-5)
    assert np.all(out.variance[~known] > NOISES[0] ** 2)
    with pytest.raises(WrongSize, match="its mask"):
        isr(replace(raw, mask=mask[1:]))


def test_defects_are_boxes_or_a_map(calibs):
    shape = (NY, 2 * NX)
    boxes = Defects((Box(10, 20, 11, 23),))
    assert np.array_equal(defect_map(boxes, shape), calibs.defects)
    assert defect_map(calibs.defects, shape) is calibs.defects
    with pytest.raises(WrongSize, match="defects"):
        defect_map(boxes, (10, 10))


def test_a_dead_amplifier_is_bad_and_the_other_lives(truth, calibs):
    raw = raw_of(truth, calibs)
    noisy = raw.pixels[:, -OVER:]
    noisy += np.random.default_rng(0).normal(0, 50, noisy.shape).astype("f4")
    mask = isr(raw, calibs).image.mask & MaskPlane.BAD
    assert np.all(mask[:, NX:])
    assert not np.all(mask[:, :NX])


def test_wrong_shapes_are_refused(truth, calibs):
    raw = raw_of(truth, calibs)
    with pytest.raises(WrongSize, match="raw array"):
        isr(replace(raw, pixels=raw.pixels[:-1]), calibs)
    with pytest.raises(WrongSize, match="flat"):
        isr(raw, replace(calibs, flat=calibs.flat[1:]))


@pytest.mark.parametrize(("value", "cause"), [(np.nan, "NaN"), (65535.0, "saturated")])
def test_hopeless_images_are_refused(truth, calibs, value, cause):
    raw = raw_of(truth, calibs)
    for a in raw.detector.amplifiers:
        raw.pixels[a.data.slices(Box.from_shape(raw.pixels.shape))] = value
    with pytest.raises(NoGoodPixels, match=cause):
        isr(raw, calibs)


def test_a_real_ste3_frame_gives_its_known_overscan(shared_data: Path):
    fits = pytest.importorskip("astropy.io.fits")
    pixels = fits.getdata(shared_data / "overscan_frames" / "a8280271.fits").astype("f4")
    one = Amplifier(
        name="A", data=Box(0, 16, 520, 528), overscan=Box(0, 3, 520, 13), target=Box(0, 0, 520, 512),
        gain=1.9, read_noise=5.6, saturation=60000,
    )  # fmt: skip
    ste3 = Detector(number=0, name="ste3", shape=(520, 512), pixel_scale_arcsec=0.31, amplifiers=(one,))
    out = isr(RawExposure(pixels=pixels, detector=ste3, info=INFO, wcs=None))
    assert out.metrics["isr.A.overscan_adu"] == pytest.approx(214, abs=1)
    assert out.metrics["isr.A.noise_electron"] / 1.9 == pytest.approx(2.97, abs=0.15)


def kast_electrons(path: Path):
    """Raw 2112 x 350: 1,024 columns for each of two amplifiers, then 32 of overscan for each."""
    fits = pytest.importorskip("astropy.io.fits")
    with fits.open(path) as hdus:
        pixels = hdus[0].data.astype("f4")
    ny = pixels.shape[0]
    amplifiers = tuple(
        Amplifier(name=n, data=Box(0, 1024 * k, ny, 1024 * (k + 1)), target=Box(0, 1024 * k, ny, 1024 * (k + 1)),
                  overscan=Box(0, 2048 + 32 * k, ny, 2080 + 32 * k), gain=g, read_noise=r, saturation=60000)
        for k, (n, g, r) in enumerate((("A", 1.22, 1.22 * 2.94), ("B", 1.28, 1.28 * 2.82)))
    )  # fmt: skip
    kast = Detector(number=0, name="blue", shape=(ny, 2048), pixel_scale_arcsec=0.43, amplifiers=amplifiers)
    return isr(RawExposure(pixels=pixels, detector=kast, info=INFO, wcs=None))


def test_a_pair_of_real_kast_flats_has_photon_noise(shared_data: Path):
    first, second = (kast_electrons(shared_data / "kast_blue" / f"b10{n}.fits") for n in (24, 25))
    a, b = first.image, second.image
    lit = (a.image > 5000) & (a.image < 40000) & ((a.mask | b.mask) == 0)
    scale = np.median(a.image[lit] / b.image[lit])
    pull = (a.image - scale * b.image) / np.sqrt(a.variance + scale**2 * b.variance)
    for columns in (slice(0, 1024), slice(1024, 2048)):
        sample = pull[:, columns][lit[:, columns]]
        assert len(sample) > 5000
        assert 1.4826 * np.median(np.abs(sample - np.median(sample))) == pytest.approx(1, abs=0.1)
    assert first.metrics["isr.A.noise_ratio"] == pytest.approx(1, abs=0.1)
    assert first.metrics["isr.B.noise_ratio"] == pytest.approx(1, abs=0.1)
