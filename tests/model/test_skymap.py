from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.model.products import SkyCircle
from apstream.model.skymap import SkyMap


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 359.9), st.floats(-80, 80), st.floats(0.01, 0.3), st.integers(500, 5000))
def test_every_point_of_the_circles_lies_in_a_patch_that_is_found(ra: float, dec: float, radius: float, patch: int):
    circles = [SkyCircle(ra, dec, radius), SkyCircle(ra, dec + radius, radius / 2)]
    sky = SkyMap.around(circles, pixel_scale_arcsec=0.5, patch_size=patch)
    for circle in circles:
        y, x = sky.wcs.sky_to_pixel(circle.ra, circle.dec)
        angle = np.linspace(0, 6.28, 9)
        ys, xs = y + np.sin(angle) * circle.radius * 7199, x + np.cos(angle) * circle.radius * 7199
        assert sky.box.contains(ys, xs).all()
        inside = [p for p in sky.patches if sky.outer_box(p).contains(ys, xs).any()]
        assert set(inside) <= set(sky.overlapping(circle))


def test_inner_boxes_tile_the_tract():
    sky = SkyMap.around([SkyCircle(10, 0, 0.2)], pixel_scale_arcsec=0.25, patch_size=2000, border=50)
    count = np.zeros(sky.box.shape, np.int8)
    for patch in sky.patches:
        count[sky.inner_box(patch).slices(sky.box)] += 1
        assert sky.outer_box(patch).intersect(sky.inner_box(patch)) == sky.inner_box(patch)
    assert (count == 1).all()
    assert len(sky.patches) > 1


def test_a_sky_map_survives_storage():
    sky = SkyMap.around([SkyCircle(10, 0, 0.2)], pixel_scale_arcsec=0.25)
    assert SkyMap.from_dict(sky.to_dict()) == sky
