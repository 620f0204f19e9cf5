from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.psf import Psf
from apstream.tasks.select_inputs import InputQuality, SelectInputsConfig, psf_ellipticity, select_inputs


def quality(visit: int, fwhm: float, ellipticity: float = 0.0, detector: int = 0, band: str = "r") -> InputQuality:
    return InputQuality(id=VisitDetector("cam", visit, detector), band=band, fwhm_arcsec=fwhm, ellipticity=ellipticity)


def test_limits_name_what_is_beyond_them():
    inputs = [quality(1, 0.8), quality(2, 1.4), quality(3, 0.9, 0.3), quality(4, float("nan"))]
    found = select_inputs(inputs, SelectInputsConfig(max_fwhm_arcsec=1.2, max_ellipticity=0.2))
    assert found.kept == (0,)
    assert found.left_out == {
        inputs[1].id: "its PSF of 1.40 arcsec is wider than 1.20",
        inputs[2].id: "its PSF's ellipticity of 0.300 is larger than 0.200",
        inputs[3].id: "its PSF of nan arcsec is wider than 1.20",
    }


def test_quantile_and_number_count_per_detector_and_band():
    inputs = [quality(v, 1 + 0.1 * v, detector=d, band=b) for v in range(4) for d in (0, 1) for b in "gr"]
    kept = [inputs[k].id.visit for k in select_inputs(inputs, SelectInputsConfig(seeing_quantile=0.5)).kept]
    assert kept == [0] * 4 + [1] * 4
    both = SelectInputsConfig(seeing_quantile=0.75, best=1)
    assert [inputs[k].id.visit for k in select_inputs(inputs, both).kept] == [0] * 4


@given(st.lists(st.floats(0.5, 2.0), max_size=12), st.floats(0.05, 1.0), st.integers(1, 12))
def test_what_is_used_keeps_its_order_and_everything_else_has_a_reason(widths, quantile, best):
    inputs = [quality(k, width) for k, width in enumerate(widths)]
    found = select_inputs(inputs, SelectInputsConfig(seeing_quantile=quantile, best=best))
    assert list(found.kept) == sorted(found.kept)
    assert {inputs[k].id for k in found.kept} | found.left_out.keys() == {item.id for item in inputs}
    assert len(found.kept) + len(found.left_out) == len(inputs)
    assert all(found.left_out.values())
    if found.kept and found.left_out:
        unused = [i.fwhm_arcsec for i in inputs if i.id in found.left_out]
        assert max(inputs[k].fwhm_arcsec for k in found.kept) <= min(unused)


def test_ellipticity_is_that_of_the_profile():
    y, x = np.mgrid[-15:16, -15:16]
    kernel = np.exp(-0.5 * ((y / 2.0) ** 2 + (x / 2.4) ** 2))
    psf = Psf((kernel / kernel.sum())[None], Box(0, 0, 100, 100))
    assert psf_ellipticity(psf) == pytest.approx((2.4**2 - 2.0**2) / (2.4**2 + 2.0**2), abs=0.01)
    assert psf_ellipticity(Psf.gaussian(4.0, Box(0, 0, 100, 100))) < 1e-6
