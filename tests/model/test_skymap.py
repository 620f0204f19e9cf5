import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apstream.model.geometry import Box
from apstream.model.skymap import SkyMap
from apstream.model.wcs import SkyWcs, separation

MAP = SkyMap(ra=150.0, dec=-30.0, pixel_scale_arcsec=0.5, patches=(3, 4), patch_size=500, border=20)


def test_inner_boxes_tile_the_tract_and_outer_boxes_overlap():
    area = sum(np.prod(MAP.inner_box(p).shape) for p in range(MAP.n_patches))
    assert area == np.prod(MAP.box.shape)
    assert Box.bounding(MAP.inner_box(p) for p in range(MAP.n_patches)) == MAP.box
    assert MAP.patch_box(0).intersect(MAP.patch_box(1)).shape == (540, 40)
    assert MAP.inner_box(5) == Box(500, 500, 1000, 1000)
    with pytest.raises(ValueError, match="patch 12"):
        MAP.patch_box(12)


def test_centre_is_where_it_was_asked():
    ra, dec = MAP.wcs.pixel_to_sky(*MAP.box.center)
    assert (float(ra), float(dec)) == pytest.approx((150.0, -30.0))
    assert MAP.wcs.pixel_scale_arcsec == pytest.approx(0.5)


@given(st.floats(149.7, 150.3), st.floats(-30.3, -29.7), st.floats(0.0, 0.1))
def test_circle_finds_every_patch_it_touches(ra, dec, radius):
    found = MAP.patches_at(ra, dec, radius)
    for patch in range(MAP.n_patches):
        box = MAP.patch_box(patch)
        y, x = np.meshgrid(np.linspace(box.y0, box.y1 - 1, 12), np.linspace(box.x0, box.x1 - 1, 12))
        distance = separation(np.array(ra), np.array(dec), *MAP.wcs.pixel_to_sky(y, x)).min()
        if distance <= radius:
            assert patch in found
        if distance > radius + 0.03:
            assert patch not in found


def test_image_finds_the_patches_under_it():
    ra, dec = MAP.wcs.pixel_to_sky(499.5, 499.5)
    small = SkyWcs.tan(float(ra), float(dec), pixel_scale_arcsec=0.5, y=50, x=50, rotation=30)
    assert MAP.patches_under(small, Box(0, 0, 101, 101)) == [0, 1, 4, 5]
    far = SkyWcs.tan(10.0, 40.0, pixel_scale_arcsec=0.5, y=50, x=50)
    assert MAP.patches_under(far, Box(0, 0, 101, 101)) == []


def test_round_trip_and_covering():
    assert SkyMap.from_dict(MAP.to_dict()) == MAP
    cover = SkyMap.covering(10.0, 5.0, 0.2, pixel_scale_arcsec=1.0, patch_size=500)
    assert cover.patches == (3, 3)
    y, x = cover.wcs.sky_to_pixel(10.0, 5.2)
    assert bool(cover.box.contains(y, x))
    assert SkyMap.covering(10.0, 5.0, 0.05, pixel_scale_arcsec=1.0).n_patches == 1
    with pytest.raises(ValueError, match="positive"):
        SkyMap(ra=0, dec=0, pixel_scale_arcsec=0, patches=(1, 1))
