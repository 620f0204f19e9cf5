"""What a user chooses in a coadd, and what comes with it beside the pixels."""

import tracemalloc

import numpy as np
import pytest
from pydantic import ValidationError

from apstream.arrays.running_mean import mean_of_stack, used_input
from apstream.errors import BadSettings
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import planes
from apstream.model.psf import Psf
from apstream.tasks.assemble_coadd import AssembleCoaddConfig, assemble_coadd
from apstream.tasks.coadd_regions import valid_polygon
from apstream.tasks.psf_field import CoaddPsf, PsfInput, combined_psf
from apstream.tasks.warped_input import WarpedInput, mean_variance

BOX = Box(5, 7, 69, 87)
ALL = {"artifacts": None}


def images(n, seed=0, shape=BOX.shape):
    rng = np.random.default_rng(seed)
    levels = rng.uniform(1, 9, n)
    box = Box(5, 7, 5 + shape[0], 7 + shape[1])
    return [
        MaskedImage.make(
            10 + rng.normal(size=shape) * np.sqrt(v), np.zeros(shape, np.int32), np.full(shape, v), "nJy", box
        )
        for v in levels
    ]


def combined(found, extras=None, **settings):
    inputs = [WarpedInput.from_image(str(k), image) for k, image in enumerate(found)]
    return assemble_coadd(inputs, BOX, AssembleCoaddConfig.model_validate(settings), extras=extras)


def test_running_sums_equal_the_mean_in_memory():
    found = images(7)
    rng = np.random.default_rng(3)
    bad = rng.uniform(size=(7, *BOX.shape)) < 0.1
    bad[:, 4, 4] = False
    found = [f.with_mask(b * planes("BAD")) for f, b in zip(found, bad, strict=True)]
    out = combined(found, **ALL)
    stack, variance = (np.stack([getattr(f, name) for f in found]) for name in ("image", "variance"))
    mean, noise, count = mean_of_stack(stack, variance, ~bad, np.array(out.weights))
    np.testing.assert_allclose(out.image.image, mean, rtol=1e-6)
    np.testing.assert_allclose(out.image.variance, noise, rtol=1e-6)
    np.testing.assert_array_equal(out.count, count)
    for k in range(7):
        np.testing.assert_array_equal(used_input(out.input_map, k), ~bad[k])


def test_inputs_come_to_one_zero_point_and_the_scales_are_told():
    first, second = images(2)
    fainter = second.scaled(1 / 2.5, "nJy")
    inputs = [
        WarpedInput.from_image("a", first),
        WarpedInput.from_image("b", fainter).scaled_to(31.4, 31.4 - 2.5 * np.log10(2.5)),
    ]
    out = assemble_coadd(inputs, BOX, AssembleCoaddConfig(artifacts=None))
    assert out.scales == pytest.approx((1.0, 2.5))
    assert out.weights == pytest.approx((1 / mean_variance(first), 1 / mean_variance(second)))
    want = np.average([first.image, second.image], axis=0, weights=out.weights)
    np.testing.assert_allclose(out.image.image, want, rtol=1e-5)


def test_clipping_iterates_as_often_as_is_asked():
    found = images(9, seed=4)
    for k, high in ((0, 60.0), (1, 45.0)):
        found[k].image[10, 10] += high
    clip = {"kind": "clipped_mean", "nsigma": 3.0}
    once, twice = (combined(found, statistic={**clip, "iterations": n}, **ALL) for n in (1, 4))
    assert once.count[10, 10] <= 7
    assert (once.image.mask[10, 10] & planes("CLIPPED")) != 0
    assert (twice.count <= once.count).mean() > 0.95
    assert (twice.count != once.count).any()
    assert combined(found, **ALL).count[10, 10] == 9


def test_the_median_is_a_choice():
    found = images(5, seed=5)
    found[0].image[3, 3] += 1e6
    out = combined(found, statistic={"kind": "median"}, **ALL)
    np.testing.assert_array_equal(out.image.image, np.median([f.image for f in found], axis=0))
    spread = np.std((out.image.image - 10) / np.sqrt(out.image.variance))
    assert spread == pytest.approx(1, abs=0.15)


def airmass_weighted(stack, variance, use, weights, airmass):
    share = np.asarray(airmass)[:, None, None] * use
    return (share * stack).sum(axis=0) / share.sum(axis=0), variance.mean(axis=0)


def test_a_function_of_ones_own_takes_further_inputs():
    found = images(3)
    own = {"kind": "function", "function": f"{__name__}:airmass_weighted", "inputs": ["airmass"]}
    out = combined(found, {"airmass": [1.0, 2.0, 3.0]}, statistic=own, **ALL)
    np.testing.assert_allclose(
        out.image.image, np.average([f.image for f in found], axis=0, weights=[1, 2, 3]), rtol=1e-5
    )
    with pytest.raises(BadSettings, match="airmass"):
        combined(found, statistic=own, **ALL)
    with pytest.raises(BadSettings, match="2 values for 3 inputs"):
        combined(found, {"airmass": [1.0, 2.0]}, statistic=own, **ALL)
    with pytest.raises(ValidationError, match="no_such_thing"):
        AssembleCoaddConfig.model_validate({"statistic": {"kind": "function", "function": "math:no_such_thing"}})


@pytest.mark.parametrize("setting", ["bad_planes", "removed_planes"])
def test_a_plane_that_there_is_not_is_refused_with_those_there_are(setting):
    with pytest.raises(ValidationError, match=r"no mask plane TYPO; there are BAD, SAT"):
        AssembleCoaddConfig.model_validate({setting: ["SAT", "TYPO"]})


def test_bad_planes_are_chosen_and_planes_forgotten_by_name():
    found = images(2)
    marked = found[1].with_mask(np.full(BOX.shape, planes("SUSPECT")))
    assert (combined([found[0], marked], **ALL).count == 2).all()
    assert (combined([found[0], marked], bad_planes=["SUSPECT"], **ALL).count == 1).all()
    forgotten = combined([found[0], marked], bad_planes=["SUSPECT"], removed_planes=["SUSPECT"], **ALL)
    assert (forgotten.count == 2).all()
    assert (forgotten.image.mask == 0).all()


def test_unusable_inputs_are_skipped_with_a_reason():
    good = WarpedInput.from_image("good", images(1)[0], psf=Psf.gaussian(3.0, BOX))
    image = images(1)[0]
    empty = image.with_image(np.full(BOX.shape, np.nan))
    psf = Psf.gaussian(3.0, BOX)
    broken = WarpedInput(name="broken", open=image.cutout, box=BOX, weight=float("nan"), psf=good.psf)
    unscaled = WarpedInput.from_image("unscaled", image, psf=psf).scaled_to(31.4, float("nan"))
    blind = WarpedInput.from_image("blind", image)
    nothing = WarpedInput.from_image("nothing", empty, psf=psf)
    out = assemble_coadd([broken, good, unscaled, blind, nothing], BOX, AssembleCoaddConfig())
    reasons = {skipped.name: skipped.reason for skipped in out.skipped}
    assert set(reasons) == {"broken", "unscaled", "blind", "nothing"}
    assert "variance" in reasons["broken"]
    assert "zero point" in reasons["unscaled"]
    assert "PSF" in reasons["blind"]
    assert "no good pixel" in reasons["nothing"]
    np.testing.assert_allclose(out.image.image, image.image, rtol=1e-6)


def test_edge_comes_from_the_weight_map():
    found = images(2)
    masks = np.isin(np.arange(BOX.shape[1]), np.arange(50, 80))[None] * np.full(BOX.shape, planes("NO_DATA"))
    out = combined([f.with_mask(masks) for f in found], **ALL)
    assert (out.weight[:, 50:] == 0).all()
    assert (out.image.mask[:, 49] & planes("EDGE") != 0).all()
    assert (out.image.mask[:, :49] & planes("EDGE") == 0).all()
    assert out.weight[0, 0] == pytest.approx(sum(out.weights))


def test_saturation_needs_more_than_a_fraction_of_the_inputs():
    found = images(12)
    found[0] = found[0].with_mask(np.full(BOX.shape, planes("SAT")))
    assert (combined(found, **ALL).image.mask & planes("SAT") == 0).all()
    assert (combined(found, saturated_fraction=0.05, **ALL).image.mask & planes("SAT") != 0).all()


def same(y, x):
    return np.asarray(y, float), np.asarray(x, float)


def test_the_psf_is_that_of_the_inputs_that_reach_a_star():
    """Two inputs of different seeing, one of which ends inside the patch: stars on both sides."""
    target = Box(0, 0, 120, 200)
    y, x = np.mgrid[:120, :200]
    widths, ends = (3.0, 6.0), (200, 90)
    places = [(60, 40), (60, 150)]
    inputs = []
    for fwhm, end in zip(widths, ends, strict=True):
        sigma = fwhm / 2.3548
        pixels = sum(1e4 * np.exp(-0.5 * ((y - a) ** 2 + (x - b) ** 2) / sigma**2) / sigma**2 for a, b in places)
        part = Box(0, 0, 120, end)
        made = MaskedImage.make(pixels[:, :end], np.zeros(part.shape, np.int32), np.full(part.shape, fwhm), "nJy", part)
        inputs.append(WarpedInput.from_image(str(end), made, psf=Psf.gaussian(fwhm, part, half=14)))
    out = assemble_coadd(inputs, target, AssembleCoaddConfig(artifacts=None))
    assert out.exact_psf is not None
    for a, b in places:
        star = out.image.image[a - 12 : a + 13, b - 12 : b + 13]
        kernel = out.exact_psf.at(a, b)[2:-2, 2:-2]
        np.testing.assert_allclose(star / star.sum(), kernel / kernel.sum(), atol=2e-4)
    assert out.exact_psf.inputs_at(60, 40) == [0, 1]
    assert out.exact_psf.inputs_at(60, 150) == [0]
    assert out.exact_psf.at(500, 500) is None


def test_valid_polygons_bound_what_an_input_gives_to_the_psf():
    box = Box(0, 0, 100, 100)
    polygon = valid_polygon(box, shrink=20)
    sharp, wide = (
        PsfInput(Psf.gaussian(fwhm, box), same, box, 1.0, area) for fwhm, area in ((3.0, None), (6.0, polygon))
    )
    whole = combined_psf([sharp], box)
    exact = CoaddPsf.of([sharp, wide], box)
    np.testing.assert_allclose(exact.at(10.0, 50.0), whole.at(10.0, 50.0), atol=1e-9)
    assert exact.inputs_at(50.0, 50.0) == [0, 1]


@pytest.mark.parametrize("settings", [{"artifacts": None}, {}, {"statistic": {"kind": "median"}, "artifacts": None}])
def test_memory_does_not_grow_with_the_number_of_inputs(settings):
    box = Box(0, 0, 256, 256)
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(340, 340)).astype(np.float32)

    def opener(part):
        here = np.s_[part.y0 + 40 : part.y1 + 40, part.x0 + 40 : part.x1 + 40]
        return MaskedImage.make(
            pixels[here].copy(), np.zeros(part.shape, np.int32), np.ones(part.shape, np.float32), "nJy", part
        )

    def peak(n):
        inputs = [WarpedInput(name=str(k), open=opener, box=box, weight=1.0) for k in range(n)]
        config = AssembleCoaddConfig.model_validate({"memory_mb": 6, **settings})
        tracemalloc.start()
        assemble_coadd(inputs, box, config)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)
    assert peak(16) < 1.25 * peak(4) + 2 * 256 * 256 * 4
