import numpy as np
from astropy.coordinates import get_body_barycentric
from astropy.time import Time

from apstream.model.refcat import REFCAT_DTYPE, RefCat, References

AU_PER_PARSEC = 648000 / np.pi


def catalogue(n: int = 30) -> RefCat:
    rng = np.random.default_rng(3)
    stars = np.zeros(n, REFCAT_DTYPE)
    stars["ra"], stars["dec"] = rng.uniform(0, 360, n), np.rad2deg(np.arcsin(rng.uniform(-0.98, 0.98, n)))
    stars["epoch"], stars["color"] = 2016.0, np.nan
    return RefCat(stars, "made up")


def vector(ra, dec):
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def test_parallax_is_the_view_from_the_earth():
    refcat, mjd = catalogue(), 60123.0
    refcat.stars["parallax"] = 300.0
    moved = refcat.at(mjd).stars
    distance_au = AU_PER_PARSEC / 0.3
    earth = get_body_barycentric("earth", Time(mjd, format="mjd", scale="tai")).xyz.to_value("au")
    seen = vector(refcat.stars["ra"], refcat.stars["dec"]) * distance_au - earth[:, None]
    seen /= np.linalg.norm(seen, axis=0)
    apart = np.linalg.norm(seen - vector(moved["ra"], moved["dec"]), axis=0)
    assert np.rad2deg(apart).max() * 3.6e6 < 0.05  # mas
    still = np.linalg.norm(seen - vector(refcat.stars["ra"], refcat.stars["dec"]), axis=0)
    assert np.rad2deg(still).max() * 3.6e6 > 250


def test_positions_become_less_certain_with_time():
    refcat = catalogue(3)
    refcat.stars["pos_err"], refcat.stars["pm_err"] = [3.0, np.nan, 0.0], [0.4, 0.4, np.nan]
    late = refcat.at(51544.5 + 26 * 365.25).stars["pos_err"]  # 2026
    np.testing.assert_allclose(late, [5.0, np.nan, 0.0], rtol=1e-5)


def test_one_catalogue_serves_for_both():
    refcat = catalogue()
    assert References.of(refcat).photometry is refcat
    assert References.of(refcat).origin == "made up"
