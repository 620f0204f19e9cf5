from __future__ import annotations

import pytest

from apstream.model.filters import band_of


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("r", "r"), ("r'", "r"), ("rp", "r"), ("r2", "r"), ("SDSS r", "r"), ("SDSS-R", "r"), ("sim-r", "r"),
        ("r DECam SDSS c0002 6415.0 1480.0", "r"), ("Y DECam c0005 10095.0 1130.0", "Y"), ("g_band", "g"),
        ("Bessell V", "V"), ("V Bessell", "V"), ("Rc", "R"), ("i.MP9702", "i"), ("HSC-R2", "r"), ("ZTF_g", "g"),
        ("2MASS H", "H"), ("VISTA Ks", "K"), ("R", "R"), ("", ""),
    ],
)  # fmt: skip
def test_a_band_is_known_by_the_names_that_filters_have(name: str, band: str) -> None:
    assert band_of(name) == band


@pytest.mark.parametrize(
    "name",
    ["Halpha", "H alpha", "H-alpha", "H2", "H 2-1", "F606W", "VR DECam c0007 6300.0 2600.0", "N708", "B-V", "Clear"],
)
def test_a_filter_that_is_no_band_for_certain_keeps_its_name(name: str) -> None:
    assert band_of(f" {name} ") == name
