from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from apstream.service.alert_page import render_page, stamp_uris


def cutout(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    fits.PrimaryHDU(pixels.astype("f4")).writeto(buffer)
    return buffer.getvalue()


@pytest.fixture
def alert() -> dict[str, Any]:
    """A new source at pixel (y, x) = (2, 7) beside a star that the template has too; the lowest row is off the edge."""
    sky = np.random.default_rng(1).normal(0, 1, (9, 9))
    template = sky.copy()
    template[6, 3] += 100
    science = template.copy()
    science[2, 7] += 60
    for image in (science, template):
        image[0] = np.nan
    source = {"diaSourceId": 17, "visit": 3, "detector": 1, "band": "r", "ra": 10.0, "dec": -5.0, "snr": 12.3}
    return {
        "diaSource": {**source, "reliability": 0.9, "isDipole": True},
        "cutoutScience": cutout(science),
        "cutoutTemplate": cutout(template),
        "cutoutDifference": cutout(science - template),
    }


def shown(uri: str) -> np.ndarray:
    """Brightness and opacity in detector order: row 0 below."""
    picture = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert picture.mode == "LA"
    return np.asarray(picture)[::-1][2::4, 2::4].astype(int)


def test_stamps_can_be_compared(alert: dict[str, Any]) -> None:
    science, template, difference = (shown(uri) for uri in stamp_uris(alert).values())
    assert science[2, 7, 0] > template[2, 7, 0] + 100
    assert science[6, 3, 0] == template[6, 3, 0]
    assert np.unravel_index(np.argmax(difference[..., 0]), (9, 9)) == (2, 7)
    assert abs(difference[6, 3, 0] - 127) <= 1
    for stamp in (science, template, difference):
        assert (stamp[0, :, 1] == 0).all()
        assert (stamp[1:, :, 1] == 255).all()


def test_a_page_says_what_it_shows(alert: dict[str, Any]) -> None:
    page = render_page([alert, alert], title="<night>", tables={"T": [("a",), ("1 & 2",)]}, note="All.")
    assert page.count("<img") == 6
    assert "2 alerts" in page
    assert "&lt;night&gt;" in page
    assert "1 &amp; 2" in page
    assert "S/N 12.3 · reliability 0.90 · dipole" in page
    assert "10.00000 -5.00000 · visit 3 detector 1 r · source 17" in page
    assert not re.search(r"(src|href)=\"?https?:", page)


def test_without_position_or_cover_there_is_still_a_card(alert: dict[str, Any]) -> None:
    alert["diaSource"].update(ra=None, dec=None, snr=None, reliability=None)
    for name in ("Science", "Template", "Difference"):
        alert["cutout" + name] = cutout(np.full((9, 9), np.nan))
    assert "no WCS" in render_page([alert])
