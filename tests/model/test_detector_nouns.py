"""Crosstalk, defects and transmission curves: what they refuse and what they answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from apstream.model.crosstalk import Crosstalk
from apstream.model.defects import Defects
from apstream.model.geometry import Box
from apstream.model.linearity import Linearity
from apstream.model.transfer import PhotonTransfer
from apstream.model.transmission import TransmissionCurve


def test_crosstalk_says_who_disturbs_whom():
    crosstalk = Crosstalk(("A", "B"), np.array([[0, 1e-4], [-2e-5, 0]]))
    assert crosstalk.between("B", "A") == 1e-4  # source B appears in A: matrix[A, B]
    assert crosstalk.between("A", "B") == -2e-5


@pytest.mark.parametrize(
    ("names", "matrix"),
    [
        ((), np.zeros((0, 0))),
        (("A", "A"), np.zeros((2, 2))),
        (("A", "B"), np.zeros((2, 3))),
        (("A", "B"), np.diag([0.1, 0.0])),
        (("A", "B"), np.array([[0, np.nan], [0, 0]])),
        (("A", "B"), np.array([[0, 1.0], [0, 0]])),
    ],
)
def test_impossible_crosstalk_is_refused(names, matrix):
    with pytest.raises(ValueError, match=r"crosstalk|names"):
        Crosstalk(names, matrix)


@given(npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_a_map_becomes_boxes_and_the_same_map_again(mask):
    defects = Defects.from_mask(mask)
    np.testing.assert_array_equal(defects.mask(mask.shape), mask)
    assert sum(np.prod(box.shape) for box in defects.boxes) == mask.sum()  # disjoint


def test_a_bad_column_is_one_box():
    mask = np.zeros((50, 40), bool)
    mask[3:, 7] = mask[10:20, 30:33] = True
    assert Defects.from_mask(mask).boxes == (Box(3, 7, 50, 8), Box(10, 30, 20, 33))


def test_boxes_that_are_no_pixels_are_refused():
    with pytest.raises(ValueError, match="no pixels"):
        Defects((Box(2, 2, 2, 5),))
    with pytest.raises(ValueError, match="no pixels"):
        Defects((Box(-1, 2, 2, 5),))
    with pytest.raises(ValueError, match="not inside"):
        Defects((Box(0, 0, 9, 9),)).mask((8, 8))


def test_a_transmission_curve_is_linear_inside_and_zero_outside():
    curve = TransmissionCurve(np.array([400.0, 500.0, 600.0]), np.array([0.0, 1.0, 0.5]))
    np.testing.assert_allclose(curve.at([399, 400, 450, 550, 600, 601]), [0, 0, 0.5, 0.75, 0.5, 0])
    assert 500 < curve.mean_wavelength_nm < 600
    dark = TransmissionCurve(np.array([400.0, 500.0]), np.zeros(2))
    assert np.isnan(dark.mean_wavelength_nm)


@given(st.floats(300, 400), st.floats(410, 500), st.floats(0, 1), st.floats(0, 1))
def test_light_passes_both_in_any_order(low, high, first, second):
    a = TransmissionCurve(np.array([350.0, 450.0]), np.array([first, 1.0]))
    b = TransmissionCurve(np.array([low, high]), np.array([1.0, second]))
    ab, ba = a.times(b), b.times(a)
    np.testing.assert_array_equal(ab.throughput, ba.throughput)
    assert ab.throughput[0] == pytest.approx(float(a.at(ab.wavelength_nm[0]) * b.at(ab.wavelength_nm[0])))
    assert (ab.wavelength_nm[0], ab.wavelength_nm[-1]) == (max(350, low), min(450, high))


@pytest.mark.parametrize(
    ("wavelength", "throughput"),
    [
        ([400.0], [1.0]),
        ([400.0, 500.0], [1.0]),
        ([500.0, 400.0], [0.0, 1.0]),
        ([0.0, 400.0], [0.0, 1.0]),
        ([400.0, 500.0], [0.0, 1.1]),
        ([400.0, 500.0], [0.0, np.nan]),
    ],
)
def test_impossible_curves_are_refused(wavelength, throughput):
    with pytest.raises(ValueError, match=r"points|wavelengths|throughput"):
        TransmissionCurve(np.array(wavelength), np.array(throughput))


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("polynomial", np.array([np.nan]), "not finite"),
        ("polynomial", np.zeros((2, 3)), "row of numbers"),
        ("table", np.zeros(3), "must be"),
        ("table", np.array([[0.0, 2, 2], [0, 0, 1]]), "must rise"),
        ("spline", np.zeros(3), "polynomial or a table"),
    ],
)
def test_impossible_linearity_is_refused(kind, values, said):
    with pytest.raises(ValueError, match=said):
        Linearity(names=("A",), kind=kind, coefficients=(values,), max_adu=(np.inf,))
    with pytest.raises(ValueError, match="as many"):
        Linearity(names=("A",), kind=kind, coefficients=(), max_adu=(np.inf,))


def test_photon_transfer_gives_gain_and_noise_by_name():
    columns = {"gain_err": (0.01,) * 2, "turnoff_adu": (np.nan,) * 2, "a00": (0.0,) * 2}
    measured = PhotonTransfer(names=("A", "B"), gain=(1.22, 1.28), read_noise=(3.6, 3.5), **columns)
    assert measured.of("B") == (1.28, 3.5)
    with pytest.raises(ValueError, match="amplifier B: impossible gain 0"):
        PhotonTransfer(names=("A", "B"), gain=(1.22, 0), read_noise=(3.6, 3.5), **columns)
