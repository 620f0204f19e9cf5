import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apstream.arrays.polygon import in_polygon
from apstream.errors import BadFile, BadSettings
from apstream.model.bright_objects import BrightObjects, SkyBox, SkyDisc
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import planes
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.registry import get_format
from apstream.tasks.assemble_coadd import AssembleCoaddConfig, assemble_coadd
from apstream.tasks.coadd_regions import fill_holes, mask_bright_objects, mask_spans, spans_of, valid_polygon
from apstream.tasks.warped_input import WarpedInput

BOX = Box(0, 0, 60, 80)
WCS = SkyWcs.tan(10.0, 45.0, pixel_scale_arcsec=0.5, y=29.5, x=39.5)


def image(value=1.0):
    return MaskedImage.make(np.full(BOX.shape, value), np.zeros(BOX.shape, np.int32), np.ones(BOX.shape), "nJy", BOX)


def test_discs_and_boxes_set_the_plane_where_they_are_on_the_sky():
    ra, dec = (float(v) for v in WCS.pixel_to_sky(20.0, 30.0))
    ra2, dec2 = (float(v) for v in WCS.pixel_to_sky(45.0, 60.0))
    objects = BrightObjects(
        (
            SkyDisc(ra=ra, dec=dec, radius_arcsec=4.1),
            SkyBox(ra=ra2, dec=dec2, width_arcsec=10.4, height_arcsec=3.4, angle=90.0),
            SkyDisc(ra=190.0, dec=-45.0, radius_arcsec=100.0),
        )
    )
    out = mask_bright_objects(image(), WCS, objects)
    found = out.mask == planes("BRIGHT_OBJECT")
    y, x = np.mgrid[:60, :80]
    disc = np.hypot(y - 20, x - 30) <= 8.2
    turned = (np.abs(x - 60) <= 3.4) & (np.abs(y - 45) <= 10.4)
    assert (found != (disc | turned)).sum() <= 4
    assert found[20, 30]
    assert found[53, 60]


@pytest.mark.parametrize("kind", ["reg", "csv", "parquet"])
def test_regions_are_read_from_ds9_files_and_tables(tmp_path, kind):
    path = tmp_path / f"bright.{kind}"
    if kind == "reg":
        path.write_text(
            '# Region file format: DS9\nglobal color=green\nfk5\ncircle(0:40:00,+45:00:00,30") # text={Vega}\n'
            "icrs;box(10.01,45.0,1',20\",30)\n"
        )
    else:
        table = pa.table(
            {
                "ra": [10.0, 10.01],
                "dec": [45.0, 45.0],
                "radius_arcsec": [30.0, None],
                "width_arcsec": [None, 60.0],
                "height_arcsec": [None, 20.0],
                "angle": [None, 30.0],
                "name": ["Vega", None],
            }
        )
        pa.csv.write_csv(table, path) if kind == "csv" else pq.write_table(table, path)
    found = get_format("regions").read(path).regions
    assert found[0].ra == pytest.approx(10.0, abs=1e-4)
    assert (found[0].radius_arcsec, found[0].name) == (30.0, "Vega")
    assert (found[1].width_arcsec, found[1].height_arcsec, found[1].angle) == (60.0, 20.0, 30.0)


def test_a_table_is_read_under_the_name_of_a_ds9_file(tmp_path):
    """As it lies in a repository that it was linked into."""
    path = tmp_path / "r.reg"
    path.write_text('"ra","dec","radius_arcsec"\n10.0,45.0,30.0\n')
    assert get_format("regions").read(path).regions == (SkyDisc(ra=10.0, dec=45.0, radius_arcsec=30.0),)


@pytest.mark.parametrize("line", ["image\ncircle(10,20,3)", "icrs\npolygon(1,2,3,4,5,6)", 'icrs\ncircle(10,99,3")'])
def test_what_is_no_region_on_the_sky_is_refused_by_line(tmp_path, line):
    path = tmp_path / "bright.reg"
    path.write_text(line + "\n")
    with pytest.raises(BadFile, match="line 2"):
        get_format("regions").read(path)


@given(
    st.lists(
        st.builds(
            SkyDisc,
            ra=st.floats(0, 359.9),
            dec=st.floats(-90, 90),
            radius_arcsec=st.floats(0.1, 1e4),
        ),
        max_size=4,
    )
)
def test_regions_survive_a_file(tmp_path_factory, discs):
    path = tmp_path_factory.mktemp("regions") / "a.reg"
    regions = get_format("regions")
    regions.write(path, BrightObjects(tuple(discs)))
    for found, want in zip(regions.read(path).regions, discs, strict=True):
        np.testing.assert_allclose([found.dec, found.radius_arcsec], [want.dec, want.radius_arcsec], atol=1e-9)


def test_spans_are_set_and_cleared_by_plane_name():
    first = image(1.0).with_mask(np.where(np.arange(80)[None] < 5, planes("BAD"), 0) + np.zeros((60, 1), int))
    inputs = [WarpedInput.from_image("a", first), WarpedInput.from_image("b", image(3.0))]
    rows = [
        {"name": "a", "plane": "SAT", "y0": 10, "x0": 20, "y1": 12, "x1": 30},
        {"name": "a", "plane": "BAD", "y0": 0, "x0": 0, "y1": 30, "x1": 5, "value": False},
    ]
    out = assemble_coadd(mask_spans(inputs, spans_of(rows)), BOX, AssembleCoaddConfig())
    assert (out.image.image[10:12, 20:30] == 3).all()
    assert (out.image.mask[10:12, 20:30] & planes("SAT") != 0).all()
    assert (out.image.image[:30, :5] == 2).all()
    assert (out.image.image[30:, :5] == 3).all()
    with pytest.raises(BadSettings, match=r"row 1.*NONSENSE.*there are BAD"):
        spans_of([{**rows[0], "plane": "NONSENSE"}])
    with pytest.raises(BadSettings, match="not among the inputs"):
        mask_spans(inputs, spans_of([{**rows[0], "name": "c"}]))


def test_holes_are_interpolated_and_marked():
    y, _ = np.mgrid[:60, :80]
    holed = image().with_image(np.where((y >= 20) & (y < 23), np.nan, y.astype(float)))
    holed = holed.with_mask(np.where(np.isnan(holed.image), planes("NO_DATA"), 0))
    out = fill_holes(holed)
    np.testing.assert_allclose(out.image[21], 21.0, atol=1.0)
    assert (out.mask[20:23] == planes("NO_DATA", "INTRP")).all()
    assert (out.mask[:20] == 0).all()
    assert np.isfinite(out.image).all()


def test_only_what_is_enclosed_is_filled():
    y, x = np.mgrid[:60, :80]
    beyond = (x > 70) | (y + 0.3 * x < 10) | (x < 3)  # a slanted outline, and a strip along the border
    wide = (np.abs(y - 40) < 8) & (np.abs(x - 50) < 8)
    gap = (np.abs(x - 30) < 3) & ~beyond  # from the outline to the border
    out = fill_holes(image().with_image(np.where(beyond | wide | gap, np.nan, 1.0)))
    inner = y > 5  # where the gap opens to the outside it may stay
    np.testing.assert_array_equal(np.isnan(out.image)[inner], (beyond | wide)[inner])
    np.testing.assert_array_equal((out.mask == planes("INTRP"))[inner], gap[inner])
    assert np.isnan(out.image[beyond]).all()


@given(st.floats(0.0, 25.0))
def test_polygons_are_made_of_boxes_and_shrunk(by):
    made = valid_polygon(BOX, shrink=by)
    y, x = (v.ravel().astype(float) for v in np.mgrid[:60, :80])
    inside = (np.minimum(y, 59 - y) + 0.5 >= by - 1e-9) & (np.minimum(x, 79 - x) + 0.5 >= by - 1e-9)
    np.testing.assert_array_equal(in_polygon(made, y, x), inside)
    given_one = np.array([[0.0, 0.0], [0.0, 40.0], [40.0, 0.0]])
    np.testing.assert_array_equal(valid_polygon(BOX, given_one), given_one)
