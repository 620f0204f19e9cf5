from __future__ import annotations

import numpy as np
import pytest

from apstream.model.exposures import (
    STAR_DTYPE,
    CalExp,
    DifferenceImage,
    ExposureInfo,
    MatchingKernel,
    Template,
)
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs
from apstream.tasks.cutouts import CutoutsConfig, cut, local_cd


@pytest.fixture
def triplet():
    box = Box(100, 200, 164, 280)
    rng = np.random.default_rng(5)
    info = ExposureInfo(
        id=VisitDetector("sim", 7, 3), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0
    )
    wcs = SkyWcs.tan(150.0, 60.0, pixel_scale_arcsec=0.26, y=130, x=240, rotation=30)
    planes = [
        MaskedImage.make(rng.normal(size=box.shape), np.zeros(box.shape), np.ones(box.shape), "nJy", box)
        for _ in range(3)
    ]
    science = CalExp(
        image=planes[0], info=info, psf=Psf.gaussian(4.0, box), wcs=wcs,
        photo_calib=PhotoCalib(njy_per_unit=2.0), stars=np.zeros(0, STAR_DTYPE),
    )  # fmt: skip
    template = Template(image=planes[1], psf=Psf.gaussian(3.0, box), inputs=("t",), coverage=1.0)
    kernel = MatchingKernel(np.ones((1, 1, 1)), np.ones((1, 1)), np.zeros(1), box)
    difference = DifferenceImage(
        image=planes[2], info=info, psf=Psf.gaussian(4.0, box), wcs=wcs, kernel=kernel,
        matched_template=planes[1].image * 2, convolved="template",
    )  # fmt: skip
    return difference, science, template


def test_cutouts_hold_the_three_images(triplet):
    difference, science, template = triplet
    cutouts = cut(difference, science, template, [130.2], [239.8], config=CutoutsConfig(side_px=21))
    assert len(cutouts) == 1
    assert cutouts.side == 21
    assert (cutouts.corner_y[0], cutouts.corner_x[0]) == (120, 230)
    part = Box(120, 230, 141, 251).slices(difference.box)
    assert np.array_equal(cutouts.science.image[0], science.image.image[part])
    assert np.array_equal(cutouts.template.image[0], difference.matched_template[part])
    assert np.array_equal(cutouts.difference.variance[0], difference.image.variance[part])
    np.testing.assert_allclose(cutouts.template.psf.sum(axis=(1, 2)), 1, rtol=1e-6)


def test_edges_are_nan_and_no_data(triplet):
    cutouts = cut(*triplet, [100.0], [200.0], config=CutoutsConfig(side_px=11))
    outside = np.ones((11, 11), bool)
    outside[5:, 5:] = False
    assert np.array_equal(np.isnan(cutouts.difference.image[0]), outside)
    assert np.array_equal(cutouts.difference.mask[0] == MaskPlane.NO_DATA, outside)


def test_no_sources_give_empty_stacks(triplet):
    assert len(cut(*triplet, [], [], config=CutoutsConfig())) == 0


def test_local_wcs_predicts_the_sky_nearby(triplet):
    wcs = triplet[0].wcs
    y, x = np.array([110.0]), np.array([270.0])
    ra, dec = wcs.pixel_to_sky(y, x)
    ra2, dec2 = wcs.pixel_to_sky(y + 3, x - 2)
    xi, eta = local_cd(wcs, y, x)[0] @ np.array([-2.0, 3.0])
    assert abs((ra2 - ra)[0] * np.cos(np.deg2rad(dec[0])) - xi) * 3600 < 2e-3
    assert abs((dec2 - dec)[0] - eta) * 3600 < 2e-3


def test_without_wcs_the_sky_is_nan():
    assert np.isnan(local_cd(None, [1.0], [2.0])).all()


def test_even_sides_are_refused():
    with pytest.raises(ValueError):
        CutoutsConfig(side_px=30)
