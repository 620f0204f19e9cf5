from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from apstream.errors import BadCatalog, DatasetNotFound
from apstream.model.exposures import ExposureInfo
from apstream.model.ids import VisitDetector
from apstream.model.refcat import RefCat, References
from apstream.repo.repository import Repository
from apstream.service.gather import gather_reference
from apstream.service.references import notes_on, read_references, warn_of
from apstream.tasks.calibrate import CalibrateConfig
from apstream.tasks.photometry import ColorTerm, PhotometryConfig

INFO = ExposureInfo(
    id=VisitDetector("simcam", 1, 0),
    band="r",
    physical_filter="r-wide",
    mid_mjd_tai=60000.0,
    exposure_s=30.0,
    ra=10.0,
    dec=-5.0,
)
RAW = SimpleNamespace(wcs=None, info=INFO, detector=SimpleNamespace(shape=(400, 400), pixel_scale_arcsec=1.0))
TERM = ColorTerm(primary="g", secondary="i", c1=0.1)


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    gaia, ps1 = tmp_path / "gaia.csv", tmp_path / "ps1.csv"
    gaia.write_text("ra,dec,phot_g_mean_mag,parallax,ra_error,epoch\n10,-5,15,4.5,0.3,2016\n10.01,-5,16,,,2016\n")
    ps1.write_text("ra,dec,g,r,i\n10,-5,17,16.5,16.2\n10.02,-5,18,17.5,99\n")
    return gaia, ps1


def test_a_repository_gives_each_catalogue_by_name(tables, tmp_path):
    repository = Repository.create(tmp_path / "repo", camera="simcam")
    assert gather_reference(repository, RAW) is None
    for name, path in zip(("gaia", "ps1"), tables, strict=True):
        repository.ingest_refcat([path], name=name)
    config = CalibrateConfig(astrometry_refcat="gaia", photometry_refcat="ps1")
    both = gather_reference(repository, RAW, config)
    assert isinstance(both, References)
    assert sorted(both.astrometry.stars["ra"]) == [10.0, 10.01]
    np.testing.assert_allclose(sorted(both.photometry.stars["mag"]), [16.5, 17.5])
    parallax = both.astrometry.stars["parallax"][np.argsort(both.astrometry.stars["ra"])]
    np.testing.assert_allclose(parallax, [4.5, np.nan])
    one = gather_reference(repository, RAW, CalibrateConfig(astrometry_refcat="ps1", photometry_refcat="ps1"))
    assert isinstance(one, RefCat)
    with pytest.raises(DatasetNotFound, match="name=2mass"):
        gather_reference(repository, RAW, CalibrateConfig(astrometry_refcat="gaia", photometry_refcat="2mass"))


def test_a_colour_term_chooses_the_bands(tables):
    config = CalibrateConfig(photometry=PhotometryConfig(color_terms={"r-wide": TERM}))
    found = read_references(tables[0], tables[1], INFO, config)
    assert isinstance(found, References)
    np.testing.assert_allclose(found.photometry.stars["mag"], [17, 18])
    np.testing.assert_allclose(found.photometry.stars["color"], [0.8, np.nan], rtol=1e-5)
    with pytest.raises(BadCatalog, match="'i'"):
        read_references(tables[0], None, INFO, config)


def test_a_magnitude_of_another_band_is_named_once(tables, caplog):
    config = CalibrateConfig()
    for _ in range(2):
        found = read_references(tables[0], None, INFO, config)
        warn_of(notes_on(found, INFO.band))
    np.testing.assert_allclose(found.stars["mag"], [15, 16])
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{tables[0]}: no magnitude of band r; phot_g_mean_mag is used instead, and zero points refer to it"
    ]
    caplog.clear()
    for good in (
        read_references(tables[0], tables[1], INFO, config),  # only fluxes matter
        read_references(tables[0], None, INFO, config, magnitude="phot_g_mean_mag"),
    ):
        warn_of(notes_on(good, INFO.band))
    assert not caplog.records
