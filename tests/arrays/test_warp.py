import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.arrays.lanczos import PHASES, bilinear_table, lanczos3, lanczos3_table, tap_polynomials
from apstream.arrays.warp import CELL, map_grid, resample
from apstream.arrays.warp_plain import resample_plain

NO_DATA, PARTIAL = 256, 4
BITS = (NO_DATA, PARTIAL)


def affine(matrix, offset):
    def pixel_map(y, x):
        return matrix[0][0] * y + matrix[0][1] * x + offset[0], matrix[1][0] * y + matrix[1][1] * x + offset[1]

    return pixel_map


def planes(shape, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 10, shape).astype(np.float32)
    mask = np.where(rng.uniform(size=shape) < 0.02, 32, 0).astype(np.int32)
    return image, mask, rng.uniform(50, 150, shape).astype(np.float32)


def run(pixel_map, source, shape, table=None):
    grid = map_grid(pixel_map, shape, (0, 0))
    return resample(*source, grid, shape=shape, table=lanczos3_table() if table is None else table, bits=BITS)


def stars(shape, positions, fwhm=3.5, flux=1000.0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    sigma = fwhm / 2.3548
    image = sum(np.exp(-0.5 * ((y - a) ** 2 + (x - b) ** 2) / sigma**2) for a, b in positions)
    return (flux * image / (2 * np.pi * sigma**2)).astype(np.float32)


def test_identity_is_exact():
    source = planes((130, 97))
    for got, want in zip(run(lambda y, x: (y, x), source, (130, 97)), source, strict=True):
        np.testing.assert_array_equal(got, want)


def test_whole_pixel_shift_is_exact_and_the_rest_has_no_data():
    image, mask, variance = planes((100, 120))
    out, bits, var = run(lambda y, x: (y + 7, x - 5), (image, mask, variance), (100, 120))
    np.testing.assert_array_equal(out[:93, 5:], image[7:, :115])
    np.testing.assert_array_equal(bits[:93, 5:], mask[7:, :115])
    np.testing.assert_array_equal(var[:93, 5:], variance[7:, :115])
    assert np.isnan(out[93:]).all()
    assert np.isnan(var[:, :5]).all()
    assert (bits[93:] == NO_DATA).all()


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-0.05, 0.05), st.floats(0.97, 1.03), st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_fast_equals_plain(dy, dx, turn, scale, seed):
    shape = (70, 75)
    image, mask, variance = planes((68, 72), seed)
    image[20:23, 30:32] = np.nan
    variance[50, 40] = np.nan
    mask[10, 60] |= NO_DATA
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    pixel_map = affine(((c, s), (-s, c)), (dy, dx))
    _assert_plain((image, mask, variance), map_grid(pixel_map, shape, (0, 0)), shape)


def _assert_plain(source, grid, shape):
    # a position between two rows of the table, or on a limit, may be taken for either neighbour
    fast = resample(*source, grid, shape=shape, table=lanczos3_table(), bits=BITS)
    i, j = np.mgrid[: shape[0], : shape[1]].astype(float)
    y, x, area = (_bilinear(nodes, i, j).reshape(-1, 1) for nodes in (grid.y, grid.x, grid.area))
    left = np.arange(y.size)
    for dy, dx in sorted(np.ndindex(3, 3), key=lambda k: (k != (1, 1), k)):
        nudged = y[left] + (dy - 1) / PHASES, x[left] + (dx - 1) / PHASES
        plain = resample_plain(*source, nudged, area=area[left], table=lanczos3_table(), bits=BITS)
        got = [plane.reshape(-1, 1)[left] for plane in fast]
        same = got[1] == plain[1]
        for k in (0, 2):
            np.testing.assert_allclose(got[k][same], plain[k][same], rtol=2e-3, equal_nan=True)
        left = left[~same[:, 0]]
    assert left.size == 0


def _bilinear(nodes, i, j):
    gi, gj = (i // CELL).astype(int), (j // CELL).astype(int)
    ty, tx = (i % CELL) / CELL, (j % CELL) / CELL
    left = nodes[gi, gj] * (1 - ty) + nodes[gi + 1, gj] * ty
    right = nodes[gi, gj + 1] * (1 - ty) + nodes[gi + 1, gj + 1] * ty
    return left * (1 - tx) + right * tx


@given(st.floats(0.6, 1.6), st.floats(-0.5, 0.5), st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_constant_surface_brightness_stays_constant(scale, turn, phase):
    shape = (64, 64)
    source = (
        np.full((200, 200), 7.0, np.float32),
        np.zeros((200, 200), np.int32),
        np.ones((200, 200), np.float32),
    )
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    out, bits, var = run(affine(((c, s), (-s, c)), (80 + phase, 80)), source, shape)
    good = bits == 0
    assert good.any()
    np.testing.assert_allclose(out[good], 7 * scale**2, rtol=1e-4)
    np.testing.assert_allclose(var[good], scale**4, rtol=1e-4)


def test_star_flux_and_position_survive_a_rotation_with_scale():
    shape = (220, 220)
    image = stars(shape, [(110.3, 108.7)])
    source = (image, np.zeros(shape, np.int32), np.ones(shape, np.float32))
    matrix = np.array([[0.98, 0.1], [-0.1, 0.98]])
    offset = np.array([3.3, 21.8])
    out, _, _ = run(affine(matrix, offset), source, shape)
    total = np.nansum(out, dtype=float)
    assert total == pytest.approx(1000, rel=2e-3)
    y, x = np.mgrid[: shape[0], : shape[1]]
    out[np.hypot(y - 99, x - 99) > 15] = 0
    want = np.linalg.solve(matrix, np.array([110.3, 108.7]) - offset)
    got = np.array([np.sum(out * y), np.sum(out * x)]) / out.sum()
    np.testing.assert_allclose(got, want, atol=0.01)


def test_shift_forth_and_back_returns_a_well_sampled_image():
    shape = (150, 150)
    image = stars(shape, [(40, 60), (90.4, 100.7), (75, 30)])
    zero, one = np.zeros(shape, np.int32), np.ones(shape, np.float32)
    there, _, _ = run(lambda y, x: (y + 0.37, x - 0.61), (image, zero, one), shape)
    back, _, _ = run(lambda y, x: (y - 0.37, x + 0.61), (there, zero, one), shape)
    inner = np.s_[10:-10, 10:-10]
    assert np.abs(back[inner] - image[inner]).max() < 0.02 * image.max()


def test_missing_pixels_are_left_out_and_marked():
    image, mask, variance = planes((60, 60))
    mask[:] = 0
    image[30, 30] = np.nan
    out, bits, _ = run(lambda y, x: (y + 0.25, x), (image, mask, variance), (60, 60))
    assert np.isnan(out[30, 30])
    assert bits[30, 30] == NO_DATA
    assert bits[29, 30] & PARTIAL
    assert np.isfinite(out[29, 30])
    assert np.isfinite(out[:30, :30]).all()
    assert bits[20, 20] == 0


def test_mask_reaches_only_where_its_pixel_weighs():
    image, mask, variance = planes((60, 60))
    mask[:] = 0
    mask[30, 30] = 2
    _, bits, _ = run(lambda y, x: (y + 0.5, x), (image, mask, variance), (60, 60))
    rows = np.flatnonzero((bits & 2).any(axis=1))
    np.testing.assert_array_equal(rows, np.arange(28, 32))
    np.testing.assert_array_equal(np.flatnonzero((bits & 2).any(axis=0)), [30])


def test_bilinear_table_interpolates_linearly():
    y, x = np.mgrid[:50, :50]
    image = (3 * y + 2 * x).astype(np.float32)
    source = (image, np.zeros((50, 50), np.int32), np.ones((50, 50), np.float32))
    out, _, _ = run(lambda y, x: (y + 0.25, x + 0.5), source, (40, 40), bilinear_table())
    np.testing.assert_allclose(out, image[:40, :40] + 1.75, rtol=1e-5)


def test_positions_that_are_not_finite_have_no_data():
    def half(y, x):
        return np.where(x > 40, np.nan, y), x

    out, bits, _ = run(half, planes((64, 128)), (64, 128))
    assert (bits[:, 64:] == NO_DATA).all()
    assert np.isnan(out[:, 64:]).all()


def test_result_does_not_depend_on_how_the_target_is_divided():
    source = planes((300, 300))

    def curved(y, x):
        return y + 1e-5 * x**2 + 2.3, x - 2e-5 * y * x + 1.2

    def part(y0, x0, y1, x1):
        shape = (y1 - y0, x1 - x0)
        grid = map_grid(curved, shape, (y0, x0))
        return resample(*source, grid, shape=shape, table=lanczos3_table(), bits=BITS)

    whole = part(0, 0, 290, 290)
    for box in ((0, 0, 100, 90), (37, 61, 201, 290), (128, 64, 129, 65)):
        for got, want in zip(part(*box), whole, strict=True):
            np.testing.assert_array_equal(got, want[box[0] : box[2], box[1] : box[3]])


def test_table_rows_reproduce_constants_and_slopes():
    table = lanczos3_table().astype(float)
    phase = np.arange(len(table)) / (len(table) - 1)
    np.testing.assert_allclose(table @ np.arange(-2, 4), phase, atol=1e-6)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)
    assert lanczos3(np.array([0.0, 1, 2, 3, -1])) == pytest.approx([1, 0, 0, 0, 0], abs=1e-12)


@pytest.mark.parametrize(("table", "error"), [(lanczos3_table(), 2e-6), (bilinear_table(), 1e-7)])
def test_polynomials_give_the_weights_of_a_table(table, error):
    t = np.arange(PHASES + 1) / PHASES
    powers = np.array([0, 2, 4, 1, 3, 5])[:, None]
    for tap, coefficients in enumerate(tap_polynomials(table).astype(float)):
        left, right = (coefficients @ (side * (t - 0.5)) ** powers for side in (1, -1))
        near = tap == 2
        np.testing.assert_allclose((1 - t) * (near + t * left), table[:, tap], atol=error)
        np.testing.assert_allclose(t * (near + (1 - t) * right), table[:, 5 - tap], atol=error)


@pytest.mark.parametrize("degrees", [40, 90, 200])
def test_turned_images_equal_plain(degrees):
    shape = (60, 300)  # wider than a block of pixels
    image, mask, variance = planes((200, 210), 4)
    image[100, 90] = np.nan
    c, s = 0.7 * np.cos(np.deg2rad(degrees)), 0.7 * np.sin(np.deg2rad(degrees))
    middle = np.array([100 - 30 * c - 150 * s, 105 + 30 * s - 150 * c])
    _assert_plain((image, mask, variance), map_grid(affine(((c, s), (-s, c)), middle), shape, (0, 0)), shape)
