import numpy as np
import pytest

from apstream.errors import CalibrationFailed
from apstream.model.exposures import STAR_DTYPE, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.refcat import REFCAT_DTYPE
from apstream.tasks.photometry import ColorTerm, PhotometryConfig, fit_photometry

BOX = Box.from_shape((1000, 800))
INFO = ExposureInfo(
    id=VisitDetector("simcam", 1, 0), band="r", physical_filter="r-wide", mid_mjd_tai=60000.0, exposure_s=30.0
)
ZERO = 27.1
TERM = ColorTerm(primary="g", secondary="r", c0=0.02, c1=-0.9, c2=0.05)


def field(seed: int, n: int = 500, noise: float = 0.004):
    """Stars of random colour whose catalogue magnitudes are g; returns stars, catalogue and true magnitudes."""
    rng = np.random.default_rng(seed)
    stars, catalogue = np.zeros(n, STAR_DTYPE), np.zeros(n, REFCAT_DTYPE)
    stars["y"], stars["x"] = rng.uniform(0, 999, n), rng.uniform(0, 799, n)
    mag, color = rng.uniform(15, 19, n), rng.uniform(0.2, 1.6, n)
    catalogue["color"], catalogue["mag_err"] = color, noise
    catalogue["mag"] = mag - 0.02 + 0.9 * color - 0.05 * color**2
    stars["flux"] = 10 ** (-0.4 * (mag + rng.normal(0, noise, n) - ZERO))
    stars["flux_err"], stars["is_star"] = stars["flux"] / 300, True
    return stars, catalogue, mag


def magnitudes(found, stars):
    scale = found.calib.scale_at(stars["y"], stars["x"])
    return 31.4 - 2.5 * np.log10(stars["flux"] * scale)


def test_colour_terms_carry_the_catalogue_into_the_band():
    stars, catalogue, _ = field(1)
    with_term = fit_photometry(stars, catalogue, INFO, BOX, PhotometryConfig(color_terms={"r-wide": TERM}))
    assert with_term.calib.zero_point == pytest.approx(ZERO, abs=0.002)
    assert with_term.zero.scatter < 0.007
    without = fit_photometry(stars, catalogue, INFO, BOX, PhotometryConfig(color_terms={"other": TERM}))
    assert without.zero.scatter > 0.05


def test_stars_without_a_colour_do_not_count_where_one_is_needed():
    stars, catalogue, _ = field(2)
    catalogue["color"][:250] = np.nan
    catalogue["mag"][:250] += 0.3
    config = PhotometryConfig(color_terms={"r": TERM})
    assert fit_photometry(stars, catalogue, INFO, BOX, config).calib.zero_point == pytest.approx(ZERO, abs=0.002)
    catalogue["color"] = np.nan
    with pytest.raises(CalibrationFailed, match="0 of them"):
        fit_photometry(stars, catalogue, INFO, BOX, config)


def test_outliers_and_a_star_of_no_stated_error_do_no_harm():
    stars, catalogue, _ = field(3, n=200)
    catalogue["mag"][:20] -= np.linspace(0.05, 3, 20)
    catalogue["mag_err"][20:40] = np.nan
    config = PhotometryConfig(color_terms={"r": TERM})
    found = fit_photometry(stars, catalogue, INFO, BOX, config)
    assert found.calib.zero_point == pytest.approx(ZERO, abs=0.003)
    assert found.calib.n_stars <= 185


def test_a_map_is_found_where_there_is_one_and_nowhere_else():
    config = PhotometryConfig(color_terms={"r": TERM}, spatial_degree=2)
    flat = [fit_photometry(*field(10 + seed)[:2], INFO, BOX, config).map for seed in range(10)]
    assert sum(one is not None for one in flat) <= 1
    stars, catalogue, mag = field(4)
    ty, tx = BOX.normalize(stars["y"], stars["x"])
    bent = 0.03 * ty - 0.02 * tx * ty + 0.015 * tx**2
    stars["flux"] *= 10 ** (0.4 * bent)
    found = fit_photometry(stars, catalogue, INFO, BOX, config)
    residual = magnitudes(found, stars) - mag
    assert np.std(residual) < 0.006
    assert found.map is not None
    assert found.map.rms == pytest.approx(np.std(bent), rel=0.2)
    constant = PhotometryConfig(color_terms={"r": TERM})
    assert np.std(magnitudes(fit_photometry(stars, catalogue, INFO, BOX, constant), stars) - mag) > 0.015
