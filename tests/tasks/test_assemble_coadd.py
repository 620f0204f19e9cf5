import numpy as np
import pytest

from apstream.arrays.coadd import masked_median, masked_median_plain
from apstream.errors import NoGoodPixels
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane, planes
from apstream.model.psf import Psf
from apstream.tasks.assemble_coadd import AssembleCoaddConfig, assemble_coadd
from apstream.tasks.warped_input import WarpedInput, mean_variance

BOX = Box(100, 200, 228, 328)
SKY = 25.0


def star_field(fwhm, positions, flux):
    y, x = np.mgrid[BOX.y0 : BOX.y1, BOX.x0 : BOX.x1]
    s = fwhm / 2.3548
    return sum(
        f * np.exp(-0.5 * ((y - a) ** 2 + (x - b) ** 2) / s**2) / (2 * np.pi * s**2)
        for (a, b), f in zip(positions, flux, strict=True)
    )


def visits(n=6, seed=0, noise=True, sky=SKY):
    rng = np.random.default_rng(seed)
    positions = rng.uniform((110, 210), (218, 318), (12, 2))
    flux = 10 ** rng.uniform(3, 5.5, 12)
    out = []
    for k in range(n):
        fwhm = 3.0 + 0.4 * k
        truth = star_field(fwhm, positions, flux)
        level = sky * (1 + k)
        variance = np.maximum(truth, 0) + level
        pixels = truth + (rng.normal(0, 1, BOX.shape) * np.sqrt(variance) if noise else 0)
        out.append((MaskedImage.make(pixels, np.zeros(BOX.shape, np.int32), variance, "nJy", BOX), truth, fwhm))
    return out


def test_is_the_linear_weighted_mean_even_in_star_cores():
    found = visits()
    out = assemble_coadd(
        [WarpedInput.from_image(str(k), v[0]) for k, v in enumerate(found)], BOX, AssembleCoaddConfig()
    )
    weights = np.array([1 / mean_variance(v[0]) for v in found])
    want = np.average([v[0].image for v in found], axis=0, weights=weights)
    assert (out.image.mask & planes("CLIPPED") != 0).mean() < 1e-3
    untouched = (out.image.mask & planes("CLIPPED")) == 0
    np.testing.assert_allclose(out.image.image[untouched], want[untouched], rtol=1e-4, atol=1e-3)
    assert (out.count[untouched] == 6).all()
    residual = out.image.image - np.average([v[1] for v in found], axis=0, weights=weights)
    assert np.std(residual / np.sqrt(out.image.variance)) == pytest.approx(1, abs=0.03)
    assert out.weights == pytest.approx(tuple(weights))


def test_removes_a_satellite_an_asteroid_and_cosmic_rays():
    found = visits(4, seed=1)
    images = [v[0].image.copy() for v in found]
    images[0][60, :] += 400
    images[0][61, :] += 200
    images[2][20:24, 90:94] += 3000
    images[3][5, 5] += 10000
    spoiled = [v[0].with_image(i) for v, i in zip(found, images, strict=True)]
    out = assemble_coadd([WarpedInput.from_image(str(k), v) for k, v in enumerate(spoiled)], BOX, AssembleCoaddConfig())
    weights = np.array(out.weights)
    truth = np.average([v[1] for v in found], axis=0, weights=weights)
    pull = (out.image.image - truth) / np.sqrt(out.image.variance)
    for spot in (np.s_[20:24, 90:94], np.s_[5, 5]):
        assert np.abs(pull[spot]).max() < 5
        assert (out.image.mask[spot] & planes("CLIPPED")).all()
        assert (out.image.mask[spot] & planes("INEXACT_PSF")).all()
    faint = truth[60] < 20
    assert np.abs(np.median(pull[60][faint])) < 1
    assert (out.count[20:24, 90:94] == 3).all()


@pytest.mark.parametrize("side", [16, 50, 512])
def test_result_does_not_depend_on_the_subregion(side):
    found = visits(5, seed=2)
    found[1][0].image[40:44, 47:52] += 900
    inputs = [WarpedInput.from_image(str(k), v[0]) for k, v in enumerate(found)]
    whole = assemble_coadd(inputs, BOX, AssembleCoaddConfig())
    parts = assemble_coadd(inputs, BOX, AssembleCoaddConfig(subregion_pixels=side))
    np.testing.assert_array_equal(parts.image.image, whole.image.image)
    np.testing.assert_array_equal(parts.image.mask, whole.image.mask)
    np.testing.assert_array_equal(parts.image.variance, whole.image.variance)
    np.testing.assert_array_equal(parts.count, whole.count)


def test_memory_is_bounded_by_the_subregion():
    asked = []
    image = visits(1)[0][0]

    def opener(box):
        asked.append(box)
        return image.cutout(box)

    inputs = [WarpedInput(name="a", open=opener, box=BOX, weight=1.0)]
    config = AssembleCoaddConfig(subregion_pixels=32)
    assemble_coadd(inputs, BOX, config)
    assert max(max(b.shape) for b in asked) <= 32 + 2 * 28
    assert len(asked) == 16


def test_masks_say_what_happened():
    found = [v[0] for v in visits(4, seed=3)]
    masks = [v.mask.copy() for v in found]
    masks[0][10, 10] = planes("CR")
    masks[1][20, 20] = planes("SAT")
    for m in masks:
        m[30, 30] = planes("SAT")
    masks[2][:, :4] = planes("EDGE")
    masks[3][40, 40] = planes("DETECTED")
    images = [v.image.copy() for v in found]
    for k in range(4):
        images[k][50, 50] = np.nan
    images[0][:, 100:] = np.nan
    inputs = [
        WarpedInput.from_image(str(k), v.with_image(i).with_mask(m))
        for k, (v, i, m) in enumerate(zip(found, images, masks, strict=True))
    ]
    out = assemble_coadd(inputs, BOX, AssembleCoaddConfig())
    bits, count = out.image.mask, out.count
    assert bits[10, 10] == planes("REJECTED", "INEXACT_PSF")
    assert count[10, 10] == 3
    assert bits[20, 20] & planes("SAT")
    assert bits[30, 30] & planes("SAT")
    assert np.isfinite(out.image.image[30, 30])
    assert bits[64, 2] == planes("SENSOR_EDGE", "INEXACT_PSF")
    assert bits[40, 40] == planes("DETECTED")
    assert bits[50, 50] == int(MaskPlane.NO_DATA)
    assert np.isnan(out.image.image[50, 50])
    assert bits[70, 101] == planes("INEXACT_PSF")
    assert bits[70, 120] == 0
    assert count[70, 120] == 3
    clean = assemble_coadd(inputs, BOX, AssembleCoaddConfig(removed_planes=("CR", "DETECTED")))
    assert clean.image.mask[10, 10] == clean.image.mask[40, 40] == 0


def test_psf_of_the_coadd_is_the_weighted_psf():
    found = visits(3)
    inputs = [WarpedInput.from_image(str(k), v[0], psf=Psf.gaussian(v[2], BOX)) for k, v in enumerate(found)]
    out = assemble_coadd(inputs, BOX, AssembleCoaddConfig())
    want = np.average([Psf.gaussian(v[2], BOX).central() for v in found], axis=0, weights=out.weights)
    np.testing.assert_allclose(out.psf.central(), want, atol=1e-6)


def test_nothing_to_coadd_is_an_error():
    with pytest.raises(NoGoodPixels, match="0 inputs"):
        assemble_coadd([], BOX, AssembleCoaddConfig())


def test_median_kernel_equals_numpy():
    rng = np.random.default_rng(5)
    stack = rng.normal(size=(7, 20, 30)).astype(np.float32)
    good = rng.uniform(size=stack.shape) < 0.6
    np.testing.assert_array_equal(masked_median(stack, good), masked_median_plain(stack, good))


def test_no_clipping_when_asked():
    found = visits(4, seed=6)
    images = [v[0].image.copy() for v in found]
    images[0][60, 60] += 1e5
    inputs = [
        WarpedInput.from_image(str(k), v[0].with_image(i)) for k, (v, i) in enumerate(zip(found, images, strict=True))
    ]
    out = assemble_coadd(inputs, BOX, AssembleCoaddConfig(artifacts=None))
    assert out.image.image[60, 60] > 1e4
    assert (out.count == 4).all()
