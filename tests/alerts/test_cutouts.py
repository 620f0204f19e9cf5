import dataclasses
import io

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from helpers.catalog_samples import make_cutouts

from apstream.alerts.cutouts import render
from apstream.model.mask import MaskPlane


def read(data):
    return CCDData.read(io.BytesIO(data), format="fits")


@pytest.mark.parametrize("image", ["science", "template", "difference"])
def test_every_cutout_reads_as_ccddata(image):
    cutouts = make_cutouts(3)
    stack, rendered = getattr(cutouts, image), render(cutouts)
    assert len(rendered) == 3
    for k, triplet in enumerate(rendered):
        ccd = read(getattr(triplet, image))
        np.testing.assert_array_equal(ccd.data, stack.image[k])
        assert str(ccd.unit) == "nJy"
        assert isinstance(ccd.uncertainty, VarianceUncertainty)
        np.testing.assert_array_equal(ccd.uncertainty.array, stack.variance[k])
        np.testing.assert_array_equal(ccd.psf, stack.psf[k])
        np.testing.assert_array_equal(ccd.mask, stack.mask[k] == MaskPlane.BAD)


def test_the_local_wcs_finds_the_source():
    cutouts = make_cutouts(4)
    rendered = render(cutouts)
    assert len(rendered) == 4
    for k, triplet in enumerate(rendered):
        wcs = read(triplet.difference).wcs
        place = cutouts.x[k] - cutouts.corner_x[k], cutouts.y[k] - cutouts.corner_y[k]
        np.testing.assert_allclose(wcs.wcs_pix2world([place], 0)[0], [cutouts.ra[k], cutouts.dec[k]], atol=1e-9)
        np.testing.assert_allclose(wcs.pixel_scale_matrix, cutouts.cd[k])


def test_files_are_standard():
    with fits.open(io.BytesIO(render(make_cutouts(1))[0].science)) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "MASK", "UNCERT", "PSFIMAGE"]
        assert hdus["MASK"].header["MP_SAT"] == 1
        assert "MP_DETECTED" not in hdus["MASK"].header
        assert hdus[0].header["LTV1"] == -(100 - 15)


def test_without_a_wcs_there_is_none():
    cutouts = make_cutouts(2)
    cd, ra = cutouts.cd.copy(), cutouts.ra.copy()
    cd[0], ra[0] = np.nan, np.nan
    first, second = render(dataclasses.replace(cutouts, cd=cd, ra=ra))
    assert read(first.science).wcs is None
    assert read(second.science).wcs is not None


def test_pixels_beyond_the_edge_are_nan_and_masked():
    cutouts = make_cutouts(1)
    cutouts.science.image[0, :3], cutouts.science.mask[0, :3] = np.nan, MaskPlane.NO_DATA
    ccd = read(render(cutouts)[0].science)
    assert np.isnan(ccd.data[:3]).all()
    assert ccd.mask[:3].all()


def test_same_cutouts_same_bytes_and_none_gives_none():
    assert render(make_cutouts(2)) == render(make_cutouts(2))
    assert render(make_cutouts(0)) == ()
