"""Each stage has its own list of measurements."""

from __future__ import annotations

import numpy as np
import pytest
from starfield import make_field

from apstream.errors import BadSettings
from apstream.model.exposures import CharacterizedExposure, Exposure, ExposureInfo
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.tasks.characterize import CharacterizeConfig, characterize
from apstream.tasks.find_sources import FindSourcesConfig, find_sources

INFO = ExposureInfo(id=VisitDetector("test", 1, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0)
FIELD = make_field(size=384, n_stars=90, faintest=2000, seed=4)


def found(**settings: object) -> CharacterizedExposure:
    image = MaskedImage.make(FIELD.image, np.zeros(FIELD.image.shape, np.int32), FIELD.variance, "electron")
    return characterize(Exposure(image=image, info=INFO, wcs=None), CharacterizeConfig.model_validate(settings))


def test_the_lists_of_characterization_and_detection_are_settings_of_their_own() -> None:
    short = found(measure={"names": ["moments", "apertures"], "apertures_px": [5.0]})
    assert short.measured is not None
    assert set(short.measured.dtype.names) == {
        "iyy", "ixx", "iyx", "shape_flag", "ap_flux_5_0", "ap_flux_err_5_0"
    }  # fmt: skip
    assert len(short.measured) == len(short.stars)
    full = find_sources(short, FindSourcesConfig())
    assert full.measured is not None
    assert {"parent", "extendedness", "local_sky_flux"} <= set(full.measured.dtype.names)
    assert "parent" not in short.measured.dtype.names
    assert found().measured is None


def test_what_is_measured_belongs_to_the_star_beside_it() -> None:
    result = found(measure={"names": ["moments", "peak", "apertures"], "apertures_px": [8.0]})
    stars, rows = result.stars, result.measured
    assert rows is not None
    lonely = stars["psf_used"] & ~stars["blended"]
    np.testing.assert_allclose(rows["ap_flux_8_0"][lonely] / stars["flux"][lonely], 1.0, atol=0.1)
    np.testing.assert_array_equal(rows["peak_y"], np.floor(stars["y"] + 0.5))
    area = np.sqrt(rows["iyy"] * rows["ixx"] - rows["iyx"] ** 2)[lonely]
    assert np.median(2.3548 * np.sqrt(area)) == pytest.approx(np.median(stars["fwhm"][lonely]), rel=0.15)


def test_an_unknown_measurement_names_its_neighbours() -> None:
    with pytest.raises(BadSettings, match=r"momments.*moments"):
        found(measure={"names": ["momments"]})
