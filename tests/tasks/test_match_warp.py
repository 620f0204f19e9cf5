import numpy as np
import pytest

from apstream.arrays.moments import adaptive_moments
from apstream.arrays.psf_match import half_maximum_width
from apstream.arrays.psf_warp import fit_kernel_field
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane, planes
from apstream.model.psf import Psf
from apstream.tasks.assemble_coadd import AssembleCoaddConfig, assemble_coadd
from apstream.tasks.match_warp import MatchWarpConfig, kernel_half, match_warp, matching_terms, target_kernel
from apstream.tasks.psf_field import PsfInput
from apstream.tasks.warped_input import WarpedInput, matched_input

BOX = Box(100, 200, 356, 456)
TARGET_FWHM = 5.0
CONFIG = MatchWarpConfig()


def moffat(width_y, width_x, half, y=0.0, x=0.0):
    v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    return (1 + ((v - y) / width_y) ** 2 + ((u - x) / width_x) ** 2) ** -3.0


def widths(y, x, share=1.0):
    """Widths of the Moffat of a star: it grows towards the right and is drawn out towards the top."""
    ty, tx = (share * float(v) for v in BOX.normalize(y, x))
    return 3.1 * (1 + 0.04 * tx), 3.1 * (1 + 0.04 * tx + 0.05 * ty)


def varying_psf(half=16, share=1.0):
    y, x = (a.ravel() for a in np.meshgrid(*(np.linspace(-1, 1, 5),) * 2, indexing="ij"))
    cy, cx = BOX.center
    places = zip(cy + y * BOX.shape[0] / 2, cx + x * BOX.shape[1] / 2, strict=True)
    kernels = [moffat(*widths(*place, share), half) for place in places]
    kernels = np.stack([k / k.sum() for k in kernels])
    return Psf(fit_kernel_field(kernels, y, x, 2), BOX)


def stars(positions, flux=1e5):
    image = np.zeros(BOX.shape)
    half = 16
    for y, x in positions:
        r, c = int(y) - BOX.y0, int(x) - BOX.x0
        stamp = moffat(*widths(y, x), half, y % 1, x % 1)
        image[r - half : r + half + 1, c - half : c + half + 1] += flux * stamp / moffat(*widths(y, x), half).sum()
    return image


def masked(image, variance=25.0, mask=None):
    bits = np.zeros(BOX.shape, np.int32) if mask is None else mask
    return MaskedImage.make(image, bits, np.full(BOX.shape, variance), "nJy", BOX)


def same(y, x):
    return np.asarray(y, float), np.asarray(x, float)


def terms_of(psf, target):
    own = PsfInput(psf, same, BOX, 1.0)
    return matching_terms(own, target, BOX, kernel_half(own, target, BOX, CONFIG), CONFIG)


@pytest.fixture(scope="module")
def psf():
    return varying_psf()


@pytest.fixture(scope="module")
def target(psf):
    return target_kernel(psf.central(), TARGET_FWHM, scale=1.0)


@pytest.fixture(scope="module")
def terms(psf, target):
    return terms_of(psf, target)


def positions():
    grid = np.linspace(30.3, 225.7, 5)
    return [(BOX.y0 + y + 0.013 * x, BOX.x0 + x - 0.017 * y) for y in grid for x in grid]


def test_target_is_round_and_as_wide_as_asked(target):
    assert half_maximum_width(target) == pytest.approx(TARGET_FWHM, rel=1e-3)
    assert Psf(target[None], BOX).fwhm() == pytest.approx(TARGET_FWHM, rel=5e-3)
    assert target.sum() == pytest.approx(1)
    np.testing.assert_allclose(target, np.rot90(target), atol=1e-5)


def test_stars_get_the_targets_moments_everywhere(target, terms):
    places = positions()
    matched = match_warp(masked(stars(places)), terms).image
    y, x = (np.array(v) for v in zip(*places, strict=True))
    found = adaptive_moments(matched, np.zeros(BOX.shape, bool), y=y - BOX.y0, x=x - BOX.x0, sigma=2.2)
    half = target.shape[0] // 2
    want = adaptive_moments(
        target.astype("f4"), np.zeros(target.shape, bool), y=np.array([half]), x=np.array([half]), sigma=2.2
    )[0]
    np.testing.assert_allclose(found["yy"], want["yy"], rtol=0.01)
    np.testing.assert_allclose(found["xx"], want["xx"], rtol=0.01)
    np.testing.assert_allclose(found["xy"], 0, atol=0.01 * want["xx"])
    np.testing.assert_allclose(np.hypot(found["y"] + BOX.y0 - y, found["x"] + BOX.x0 - x), 0, atol=0.01)


def test_flux_is_conserved(terms):
    places = positions()[6:8]
    image = stars(places)
    assert match_warp(masked(image), terms).image.sum() == pytest.approx(image.sum(), rel=1e-3)


def test_variance_is_that_of_anything_as_wide_as_a_star(target, terms):
    noise = np.random.default_rng(3).normal(0, 5, (20, *BOX.shape))
    matched = [match_warp(masked(n), terms) for n in noise]
    inner = np.s_[24:-24, 24:-24]
    np.testing.assert_allclose(matched[0].variance[inner], 25, rtol=1e-3)
    pixels = np.stack([m.image[inner] for m in matched])
    share = np.square(terms[0]).sum()
    assert pixels.var() == pytest.approx(25 * share, rel=0.03)
    blocks = pixels[:, :192, :192].reshape(20, 6, 32, 6, 32).mean(axis=(2, 4))  # far wider than the kernel
    assert blocks.var() * 32**2 == pytest.approx(25, rel=0.15)


def test_masks_grow_and_holes_stay():
    target = target_kernel(Psf.gaussian(3.0, BOX).central(), 5.0, scale=1.0)
    terms = terms_of(Psf.gaussian(3.0, BOX), target)
    mask = np.zeros(BOX.shape, np.int32)
    mask[60, 60] = planes("CR")
    mask[:, 200:] = planes("NO_DATA")
    image = np.full(BOX.shape, 10.0)
    image[:, 200:] = np.nan
    out = match_warp(masked(image, mask=mask), terms)
    assert (out.mask[58:63, 58:63] & planes("CR")).all()
    assert not out.mask[60, 80]
    assert np.isnan(out.image[:, 200:]).all()
    assert (out.mask[:, 200:] & MaskPlane.NO_DATA).all()
    assert (out.mask[:, 197:200] & planes("EDGE")).all()
    assert not (out.mask[:, 197:200] & MaskPlane.NO_DATA).any()
    assert not (out.mask[:, :180] & planes("EDGE")).any()


def test_inputs_of_differing_seeing_become_one_psf(target):
    rng = np.random.default_rng(4)
    y, x = np.mgrid[BOX.y0 : BOX.y1, BOX.x0 : BOX.x1]
    inputs, places = [], positions()
    for k, fwhm in enumerate((3.0, 3.6, 4.5)):
        sigma = fwhm / 2.3548
        image = sum(np.exp(-0.5 * ((y - a) ** 2 + (x - b) ** 2) / sigma**2) for a, b in places)
        pixels = masked(1e5 * image / (2 * np.pi * sigma**2) + rng.normal(0, 5, BOX.shape))
        inputs.append(WarpedInput.from_image(str(k), pixels, psf=Psf.gaussian(fwhm, BOX, half=16)))
    goal = target_kernel(Psf.gaussian(4.5, BOX, half=16).central(), 4.8, scale=1.0)
    matched = [matched_input(item, goal, CONFIG) for item in inputs]
    out = assemble_coadd(matched, BOX, AssembleCoaddConfig())
    np.testing.assert_allclose(out.psf.central(), goal, atol=1e-6)
    a, b = (np.array(v) for v in zip(*places, strict=True))
    found = adaptive_moments(out.image.image, np.zeros(BOX.shape, bool), y=a - BOX.y0, x=b - BOX.x0, sigma=2.0)
    np.testing.assert_allclose(found["yy"], (4.8 / 2.3548) ** 2, rtol=0.01)
    np.testing.assert_allclose(found["xx"], (4.8 / 2.3548) ** 2, rtol=0.01)
    np.testing.assert_allclose(found["flux"], 1e5, rtol=2e-3)


def test_matched_coadd_does_not_depend_on_the_subregion(target):
    image = masked(stars(positions()))
    slow = varying_psf(share=0.2)  # 2 % over 256 pixels
    matched = [matched_input(WarpedInput.from_image(str(k), image, psf=slow), target, CONFIG) for k in range(2)]
    whole = assemble_coadd(matched, BOX, AssembleCoaddConfig()).image.image
    parts = assemble_coadd(matched, BOX, AssembleCoaddConfig(subregion_pixels=100)).image.image
    np.testing.assert_allclose(parts, whole, atol=1e-3 * whole.max())


def test_a_cosmic_ray_is_clipped_among_matched_warps(psf, target):
    rng = np.random.default_rng(6)
    inputs = []
    for k in range(5):
        pixels = stars(positions()) + rng.normal(0, 5, BOX.shape)
        if k == 2:
            pixels[128, 60:64] += 400
        inputs.append(matched_input(WarpedInput.from_image(str(k), masked(pixels), psf=psf), target, CONFIG))
    out = assemble_coadd(inputs, BOX, AssembleCoaddConfig())
    assert (out.image.mask[128, 60:64] & planes("CLIPPED")).all()
    assert np.abs(out.image.image[128, 60:64]).max() < 5
    assert ((out.image.mask & planes("CLIPPED")) != 0).mean() < 5e-3
