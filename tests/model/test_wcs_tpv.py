import numpy as np
import pytest

from apstream.arrays.sip import deproject
from apstream.arrays.transform import from_affine
from apstream.model.geometry import Box
from apstream.model.wcs import SkyWcs
from apstream.tasks.wcsfit import compose_wcs

SCALE = 0.25 / 3600
TURN = np.deg2rad(30.0)
CD = SCALE * np.array([[-np.cos(TURN), np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]])
TPV = {
    "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CUNIT1": "deg", "CUNIT2": "deg",
    "CRVAL1": 150.0, "CRVAL2": 2.2, "CRPIX1": 512.0, "CRPIX2": 500.0,
    "PV1_0": 1e-5, "PV1_1": 1.01, "PV1_2": 0.002, "PV1_4": 0.03, "PV1_7": 0.5,
    "PV2_0": -2e-5, "PV2_1": 1.02, "PV2_2": -0.003, "PV2_4": 0.02, "PV2_7": 0.4,
}  # fmt: skip
MATRICES = {
    "CD": {f"CD{i + 1}_{j + 1}": CD[i, j] for i in (0, 1) for j in (0, 1)},
    "PC": {f"PC{i + 1}_{j + 1}": CD[i, j] / SCALE for i in (0, 1) for j in (0, 1)} | {"CDELT1": SCALE, "CDELT2": SCALE},
    "CROTA": {"CDELT1": -SCALE, "CDELT2": SCALE, "CROTA2": -30.0},
}


def by_hand(y, x):
    """Evaluate the polynomial of TPV above without wcslib."""
    xi, eta = CD @ np.stack([np.asarray(x) + 1 - 512.0, np.asarray(y) + 1 - 500.0])

    def bent(axis, own, other):
        pv = [TPV[f"PV{axis}_{m}"] for m in (0, 1, 2, 4, 7)]
        return pv[0] + pv[1] * own + pv[2] * other + pv[3] * own**2 + pv[4] * own**3

    return deproject(bent(1, xi, eta), bent(2, eta, xi), 150.0, 2.2)


@pytest.mark.parametrize("form", MATRICES)
def test_tpv_reads_alike_however_its_matrix_is_given(form):
    wcs = SkyWcs.from_header(TPV | MATRICES[form])
    y, x = np.array([10.0, 900.0, 333.0]), np.array([20.0, 1000.0, 700.0])
    np.testing.assert_allclose(wcs.pixel_to_sky(y, x), by_hand(y, x), rtol=0, atol=1e-9)
    back = SkyWcs.from_header(wcs.to_header()).sky_to_pixel(*wcs.pixel_to_sky(y, x))
    np.testing.assert_allclose(back, (y, x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_sip_becomes_tpv_and_comes_back_from_its_header(seed):
    rng = np.random.default_rng(seed)
    quadratic, cubic, dec = rng.uniform(-1, 1, 6), rng.uniform(-1, 1, 8), rng.uniform(-80, 80)
    header = dict(SkyWcs.tan(359.9, float(dec), pixel_scale_arcsec=0.3, y=1000, x=1000, rotation=17.0).to_header())
    header |= {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 3, "B_ORDER": 3}
    names2 = ("A_2_0", "A_1_1", "A_0_2", "B_2_0", "B_1_1", "B_0_2")
    names3 = tuple(f"{c}_{p}_{3 - p}" for c in "AB" for p in range(4))
    header |= {name: value * 3e-6 for name, value in zip(names2, quadratic, strict=True)}
    header |= {name: value * 2e-9 for name, value in zip(names3, cubic, strict=True)}
    sip = SkyWcs.from_header(header)
    tpv = SkyWcs.from_header(sip.to_tpv().to_header())
    assert tpv.kind == "TPV"
    y, x = (a.ravel() for a in np.meshgrid(np.linspace(0, 2000, 7), np.linspace(0, 2000, 7)))
    np.testing.assert_allclose(tpv.sky_to_pixel(*sip.pixel_to_sky(y, x)), (y, x), rtol=0, atol=1e-4)
    again = SkyWcs.from_header(sip.to_header())
    np.testing.assert_allclose(again.sky_to_pixel(*sip.pixel_to_sky(y, x)), (y, x), rtol=0, atol=1e-4)


def test_other_projections_do_not_become_tpv():
    header = dict(SkyWcs.tan(1.0, 2.0, pixel_scale_arcsec=1.0, y=5, x=5).to_header())
    wcs = SkyWcs.from_header(header | {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN"})
    with pytest.raises(ValueError, match="SIN"):
        wcs.to_tpv()


def test_a_shift_of_pixels_keeps_the_distortion_of_tpv():
    wcs = SkyWcs.from_header(TPV | MATRICES["CD"])
    shift = from_affine(np.eye(2), np.array([3.0, -5.0]))
    composed = compose_wcs(wcs, shift, Box.from_shape((1000, 1000)))
    y, x = np.array([10.0, 900.0, 333.0]), np.array([20.0, 990.0, 700.0])
    np.testing.assert_allclose(composed.pixel_to_sky(y, x), by_hand(y + 3, x - 5), rtol=0, atol=1e-8)
