import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.model.geometry import Box
from apstream.model.skymap import SkyMap
from apstream.model.tilings import Grid
from apstream.model.tract import Tract
from apstream.model.wcs import SkyWcs, separation

TRACT = Tract(ra=150.0, dec=-30.0, pixel_scale_arcsec=0.5, patches=(3, 4), patch_size=500, border=20)
GRID = Grid(pixel_scale_arcsec=1.0, patch_size=1000, border=50, overlap=0.05)
RINGS, FEW_RINGS = SkyMap.rings(60, GRID), SkyMap.rings(3, GRID)
HEALPIX, TWELVE = SkyMap.healpix(16, GRID), SkyMap.healpix(1, GRID)
TWO = SkyMap.discrete(
    [
        Tract.around(359.9, 10.0, 0.2, pixel_scale_arcsec=1.0, patch_size=400, border=20, id=3),
        Tract.around(0.2, 10.0, 0.3, pixel_scale_arcsec=1.0, patch_size=400, border=20, id=7),
    ]
)
WHOLE_SKY = [RINGS, FEW_RINGS, HEALPIX, TWELVE]
# by the sine of the declination, so that the sphere is covered evenly; the poles, RA 0 and 360 come by themselves
SKY = st.tuples(st.floats(0.0, 360.0), st.one_of(st.floats(-90.0, 90.0), st.sampled_from([-90.0, 0.0, 90.0])))


def test_inner_boxes_tile_the_tract_and_outer_boxes_overlap():
    area = sum(np.prod(TRACT.inner_box(p).shape) for p in range(TRACT.n_patches))
    assert area == np.prod(TRACT.box.shape)
    assert Box.bounding(TRACT.inner_box(p) for p in range(TRACT.n_patches)) == TRACT.box
    assert TRACT.patch_box(0).intersect(TRACT.patch_box(1)).shape == (540, 40)
    assert TRACT.inner_box(5) == Box(500, 500, 1000, 1000)
    with pytest.raises(ValueError, match="patch 12"):
        TRACT.patch_box(12)


def test_centre_is_where_it_was_asked():
    ra, dec = TRACT.wcs.pixel_to_sky(*TRACT.box.center)
    assert (float(ra), float(dec)) == pytest.approx((150.0, -30.0))
    assert TRACT.wcs.pixel_scale_arcsec == pytest.approx(0.5)


def test_sky_info_says_where_a_patch_is():
    info = SkyMap.discrete([TRACT]).sky_info(0, 5)
    assert (info.tract, info.patch) == (0, 5)
    assert info.inner == Box(500, 500, 1000, 1000)
    assert info.outer == Box(480, 480, 1020, 1020)
    assert TRACT.sky_info(0).outer == Box(0, 0, 520, 520)
    y, x = info.wcs.sky_to_pixel(*info.vertices.T)
    np.testing.assert_allclose(y, [479.5, 479.5, 1019.5, 1019.5], atol=1e-6)
    np.testing.assert_allclose(x, [479.5, 1019.5, 1019.5, 479.5], atol=1e-6)


@given(st.floats(149.7, 150.3), st.floats(-30.3, -29.7), st.floats(0.0, 0.1))
def test_circle_finds_every_patch_it_touches(ra, dec, radius):
    found = TRACT.patches_at(ra, dec, radius)
    for patch in range(TRACT.n_patches):
        box = TRACT.patch_box(patch)
        y, x = np.meshgrid(np.linspace(box.y0, box.y1 - 1, 12), np.linspace(box.x0, box.x1 - 1, 12))
        distance = separation(np.array(ra), np.array(dec), *TRACT.wcs.pixel_to_sky(y, x)).min()
        if distance <= radius:
            assert patch in found
        if distance > radius + 0.03:
            assert patch not in found


def test_image_finds_the_patches_under_it():
    sky = SkyMap.discrete([TRACT])
    ra, dec = TRACT.wcs.pixel_to_sky(499.5, 499.5)
    small = SkyWcs.tan(float(ra), float(dec), pixel_scale_arcsec=0.5, y=50, x=50, rotation=30)
    assert sky.patches_under(small, Box(0, 0, 101, 101)) == [(0, 0), (0, 1), (0, 4), (0, 5)]
    far = SkyWcs.tan(10.0, 40.0, pixel_scale_arcsec=0.5, y=50, x=50)
    assert sky.patches_under(far, Box(0, 0, 101, 101)) == []


def test_only_what_the_outline_covers_counts():
    """A narrow image across a corner lies in the circles of four patches, but over three of them."""
    ra, dec = TRACT.wcs.pixel_to_sky(540.0, 540.0)
    narrow = SkyWcs.tan(float(ra), float(dec), pixel_scale_arcsec=0.5, y=14.5, x=199.5, rotation=45)
    box = Box(0, 0, 30, 400)
    under = {patch for _, patch in SkyMap.discrete([TRACT]).patches_under(narrow, box)}
    y, x = TRACT.wcs.sky_to_pixel(*narrow.pixel_to_sky(*np.mgrid[0:30:2, 0:400:2]))
    touched = {p for p in range(TRACT.n_patches) if TRACT.outer_box(p).contains(y, x).any()}
    assert under == touched
    assert len(under) == 3
    assert len(TRACT.patches_at(float(ra), float(dec), 0.028)) == 4


@pytest.mark.parametrize("sky", WHOLE_SKY, ids=["rings", "few rings", "healpix", "twelve"])
@settings(max_examples=60, deadline=None)
@given(SKY)
def test_every_position_belongs_to_one_patch_that_has_it(sky, position):
    ra, dec = position
    (tract,), (patch,) = sky.place(ra, dec)
    inner = sky.tract(tract).inner_box(patch)
    assert bool(inner.grow(1).contains(*sky.tract(tract).pixels_of(ra, dec))[0])
    found = sky.patches_at(ra, dec)
    assert (tract, patch) in found
    assert tract in sky.tracts_at(ra, dec)


@pytest.mark.parametrize("sky", WHOLE_SKY, ids=["rings", "few rings", "healpix", "twelve"])
@settings(max_examples=40, deadline=None)
@given(SKY, st.floats(0, 360))
def test_a_tract_reaches_beyond_what_belongs_to_it(sky, position, angle):
    """A position within the overlap of one that belongs to a tract is on that tract too."""
    ra, dec = position
    (tract,) = sky.owner(ra, dec)
    beside = SkyWcs.tan(ra, dec, pixel_scale_arcsec=3600.0, y=0.0, x=0.0)
    step = 0.99 * GRID.overlap
    near = beside.pixel_to_sky(step * np.sin(np.deg2rad(angle)), step * np.cos(np.deg2rad(angle)))
    assert sky.tract(int(tract)).contains(*near).all()


def test_cells_of_rings_share_the_sky_without_overlap():
    rings, rng = RINGS.tiling, np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, (500, 1)), np.rad2deg(np.arcsin(rng.uniform(-1, 1, (500, 1))))
    ra0, ra1, dec0, dec1 = np.array([rings.cell(id) for id in RINGS.tracts]).T
    inside = (dec >= dec0) & (dec < dec1) & ((ra - ra0) % 360 < ra1 - ra0)
    assert (inside.sum(axis=1) == 1).all()
    assert inside.argmax(axis=1).tolist() == RINGS.owner(ra.ravel(), dec.ravel()).tolist()


def test_rings_count_as_they_should():
    """The sky is covered by little more tracts than its area holds."""
    sky = SkyMap.rings(120, Grid())
    area = 4 * np.pi * np.rad2deg(1) ** 2
    assert area / (180 / 121) ** 2 < len(sky.tracts) < 1.03 * area / (180 / 121) ** 2
    assert sky.owner([0, 359.999, 0.001, 17, 17], [0.0, 0.0, 0.0, 90.0, -90.0]).tolist() == [
        *[sky.owner(0, 0)[0]] * 3,
        sky.tracts[-1],
        0,
    ]


def test_many_positions_are_found_at_once():
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 200), np.rad2deg(np.arcsin(rng.uniform(-1, 1, 200)))
    for sky in (RINGS, HEALPIX, TWO):
        tract, patch = sky.place(ra, dec)
        one = [sky.place(a, d) for a, d in zip(ra, dec, strict=True)]
        assert tract.tolist() == [int(t[0]) for t, _ in one]
        assert patch.tolist() == [int(p[0]) for _, p in one]


@settings(max_examples=80, deadline=None)
@given(st.floats(-1.0, 1.0), st.floats(9.4, 10.6))
def test_given_tracts_share_what_both_have(ra, dec):
    near, far = TWO.tract(3), TWO.tract(7)
    (tract,), (patch,) = TWO.place(ra % 360, dec)
    holding = [t for t in (near, far) if t.contains(ra % 360, dec)[0]]
    if not holding:
        assert (tract, patch) == (-1, -1)
    else:
        assert tract == min(holding, key=lambda t: float(separation(t.ra, t.dec, ra % 360, dec))).id
        assert patch >= 0


@settings(max_examples=50, deadline=None)
@given(SKY, st.floats(0, 360), st.sampled_from([RINGS, HEALPIX]))
def test_images_find_all_patches_they_lie_on(position, rotation, sky):
    ra, dec = position
    image, box = SkyWcs.tan(ra, dec, pixel_scale_arcsec=1.0, y=499.5, x=999.5, rotation=rotation), Box(0, 0, 1000, 2000)
    y, x = (v.ravel() for v in np.meshgrid(np.linspace(0, 999, 15), np.linspace(0, 1999, 30), indexing="ij"))
    tracts, patches = sky.place(*image.pixel_to_sky(y, x))
    under = sky.patches_under(image, box)
    assert set(zip(tracts.tolist(), patches.tolist(), strict=True)) <= set(under)
    for tract, patch in under:
        here = sky.tract(tract)
        edge = here.wcs.pixel_to_sky(*here.outer_box(patch).outline(40))
        inside = box.grow(1).contains(*image.sky_to_pixel(*edge)).any()
        corners = here.outer_box(patch).contains(*here.pixels_of(*image.pixel_to_sky(*box.corners()))).any()
        assert inside or corners


@pytest.mark.parametrize("sky", [*WHOLE_SKY, TWO], ids=lambda sky: sky.kind)
def test_comes_back_from_plain_values(sky):
    assert SkyMap.from_dict(sky.to_dict()) == sky


def test_the_single_tract_of_before_is_still_read():
    before = {"ra": 150.0, "dec": -30.0, "pixel_scale_arcsec": 0.5, "patches": [3, 4], "patch_size": 500}
    assert SkyMap.from_dict({**before, "border": 20, "tract": 0}) == SkyMap.discrete([TRACT])


def test_covering_is_one_small_tract():
    (cover,) = SkyMap.covering(10.0, 5.0, 0.2, pixel_scale_arcsec=1.0, patch_size=500).tiling.tracts
    assert cover.patches == (3, 3)
    assert cover.contains(10.0, 5.2).all()
    assert SkyMap.covering(10.0, 5.0, 0.05, pixel_scale_arcsec=1.0).tract(0).n_patches == 1


def test_impossible_maps_are_refused():
    with pytest.raises(ValueError, match="positive"):
        Tract(ra=0, dec=0, pixel_scale_arcsec=0, patches=(1, 1))
    with pytest.raises(ValueError, match="different numbers"):
        SkyMap.discrete([TRACT, TRACT])
    with pytest.raises(ValueError, match="power of two"):
        SkyMap.healpix(3, GRID)
    with pytest.raises(ValueError, match="3 or more"):
        SkyMap.rings(2, GRID)
    with pytest.raises(ValueError, match="no tract 12"):
        TWELVE.tract(12)
    with pytest.raises(ValueError, match="discrete, rings or healpix"):
        SkyMap.from_dict({"kind": "quads"})
