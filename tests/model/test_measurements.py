"""Measurements beside the sources of an image follow its scale and stay aligned with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.nouns import SAMPLES

from apstream.model.exposures import CalExp
from apstream.model.measurements import MEASURED, aperture_columns, is_flux, scaled_measured
from apstream.model.photocalib import PhotoCalib
from apstream.model.sources import source_catalog
from apstream.repo.assembly import exposure


def calexp() -> CalExp:
    for seed in range(99):
        value: CalExp = SAMPLES["calexp"](np.random.default_rng(seed))
        if value.measured is not None and len(value.stars) > 2:
            return dataclasses.replace(value, photo_calib=PhotoCalib(njy_per_unit=2.0))
    raise AssertionError


def test_fluxes_are_known_by_their_names():
    assert [name for name in MEASURED.names if is_flux(name)] == [
        column.name for column in MEASURED.columns if column.unit == "flux"
    ]
    assert [column.name for column in aperture_columns(4.5)] == ["ap_flux_4_5", "ap_flux_err_4_5"]


def test_a_new_calibration_scales_measured_fluxes_and_nothing_else():
    value = calexp()
    made = exposure({}, {"calexp": value, "calib": PhotoCalib(njy_per_unit=6.0)}, None)
    np.testing.assert_allclose(made.measured["kron_flux"], 3 * value.measured["kron_flux"])
    np.testing.assert_array_equal(made.measured["parent"], value.measured["parent"])
    np.testing.assert_array_equal(made.measured["mine"], value.measured["mine"])
    assert scaled_measured(None, 3.0) is None


def test_rows_that_do_not_belong_to_the_sources_are_refused():
    value = calexp()
    with pytest.raises(ValueError, match="rows of measurements"):
        dataclasses.replace(value, measured=value.measured[1:])


def test_the_catalogue_holds_measurements_beside_the_sources():
    value = calexp()
    rows = source_catalog(value.stars, value.wcs, value.measured)
    np.testing.assert_array_equal(rows["kron_flux"], value.measured["kron_flux"])
    np.testing.assert_array_equal(rows["flux"], value.stars["flux"])
