"""A page that shows alerts to a person: a table and the cutout triplets."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.io import fits
from PIL import Image

from apstream.arrays.types import FloatArray
from apstream.words import counted

__all__ = ["render_page", "stamp_uris"]

_SCALE = 4
_STAMPS = ("Science", "Template", "Difference")
_REMARKS = {"isDipole": "dipole", "isNegative": "negative", "isBrightStarResidual": "beside a bright star"}
_HOW = (
    "Science and template have the same stretch, the difference is grey where nothing changed; "
    "hatched is beyond the edge of the detector."
)
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;
padding:0 1rem;color:#1c2430;background:#fafbfc}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(26rem,1fr));gap:1rem}
.alert{background:#fff;border:1px solid #d9dee5;border-radius:6px;padding:.75rem}
.stamps{display:grid;grid-template-columns:repeat(3,1fr);gap:.4rem}
.stamps img{width:100%;image-rendering:pixelated;border-radius:3px;
background:repeating-linear-gradient(45deg,#dfe4ea 0 6px,#eef1f5 6px 12px)}
.alert p{margin:.4rem 0 0;font-variant-numeric:tabular-nums}
.alert .where,.note{color:#5b6778;font-size:.9em}.alert .where{margin:0}
table{border-collapse:collapse;background:#fff}td,th{padding:.25rem .75rem;border:1px solid #d9dee5;text-align:right}
th{background:#eef1f5}td:first-child,th:first-child{text-align:left}
"""


def render_page(
    alerts: Sequence[Mapping[str, Any]],
    *,
    title: str = "Alerts",
    tables: Mapping[str, Sequence[Sequence[str]]] = {},
    note: str = "",
) -> str:
    """Return an HTML page, self-contained.

    Parameters
    ----------
    alerts
        Decoded alert records.
    title
        Heading.
    tables
        Tables to put above the cutouts: heading to rows, the first row being the header.
    note
        What to say about the choice of alerts.
    """
    parts = [f"<h2>{html.escape(name)}</h2>{_table(rows)}" for name, rows in tables.items()]
    cards = "\n".join(_card(alert) for alert in alerts)
    parts.append(f"<h2>{counted(len(alerts), 'alert')}: science, template, difference</h2>")
    parts.append(f"<p class=note>{html.escape(note)} {_HOW}</p><div class=grid>{cards}</div>")
    body = "\n".join(parts)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{body}</html>\n"
    )


def stamp_uris(alert: Mapping[str, Any]) -> dict[str, str]:
    """Return the three cutouts of an alert as PNG data URIs, by name.

    Science and template share one stretch, so that they can be compared; the difference is stretched about
    zero. Pixels beyond the edge of the detector are transparent.
    """
    pixels = {name: _pixels(alert["cutout" + name]) for name in _STAMPS}
    low, high = _limits(np.stack([pixels["Science"], pixels["Template"]]))
    reach = max(abs(limit) for limit in _limits(pixels["Difference"]))
    return {
        "Science": _png(pixels["Science"], np.sqrt(_scaled(pixels["Science"], low, high))),
        "Template": _png(pixels["Template"], np.sqrt(_scaled(pixels["Template"], low, high))),
        "Difference": _png(pixels["Difference"], _scaled(pixels["Difference"], -reach, reach)),
    }


def _pixels(cutout: bytes) -> FloatArray:
    with fits.open(io.BytesIO(cutout)) as hdus:
        return np.asarray(hdus[0].data, float)


def _limits(pixels: FloatArray) -> tuple[float, float]:
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(finite, [1, 99.7])
    return float(low), float(high)


def _scaled(pixels: FloatArray, low: float, high: float) -> FloatArray:
    return np.asarray(np.clip((np.nan_to_num(pixels, nan=low) - low) / max(high - low, 1e-9), 0, 1))


def _png(pixels: FloatArray, brightness: FloatArray) -> str:
    layers = np.stack([255 * brightness, 255.0 * np.isfinite(pixels)], axis=-1).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(layers[::-1]), "LA")
    size = pixels.shape[1] * _SCALE, pixels.shape[0] * _SCALE
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.NEAREST).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _card(alert: Mapping[str, Any]) -> str:
    images = "".join(f'<img alt="{name}" title="{name}" src="{uri}">' for name, uri in stamp_uris(alert).items())
    first, second = (html.escape(line) for line in _caption(alert["diaSource"]))
    return f"<div class=alert><div class=stamps>{images}</div><p>{first}</p><p class=where>{second}</p></div>"


def _caption(source: Mapping[str, Any]) -> tuple[str, str]:
    """Return what it is, and where and when it was."""
    words = [f"S/N {source.get('snr') or 0.0:.1f}"]
    if source.get("reliability") is not None:
        words.append(f"reliability {source['reliability']:.2f}")
    words += [name for key, name in _REMARKS.items() if source.get(key)]
    place = "no WCS" if source["ra"] is None else f"{source['ra']:.5f} {source['dec']:+.5f}"
    exposure = f"visit {source['visit']} detector {source['detector']} {source.get('band') or ''}".rstrip()
    return " · ".join(words), " · ".join([place, exposure, f"source {source['diaSourceId']}"])


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"
