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

__all__ = ["render_page", "stamp_uri"]

_SCALE = 4
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;
padding:0 1rem;color:#1c2430;background:#fafbfc}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(26rem,1fr));gap:1rem}
.alert{background:#fff;border:1px solid #d9dee5;border-radius:6px;padding:.75rem}
.alert img{width:31%;image-rendering:pixelated;border-radius:3px;background:#000}
.alert p{margin:.35rem 0 0;font-variant-numeric:tabular-nums;color:#3c4758}
table{border-collapse:collapse;background:#fff}td,th{padding:.25rem .75rem;border:1px solid #d9dee5;text-align:right}
th{background:#eef1f5}td:first-child,th:first-child{text-align:left}
"""


def render_page(
    alerts: Sequence[Mapping[str, Any]], *, title: str = "Alerts", tables: Mapping[str, Sequence[Sequence[str]]] = {}
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
    """
    parts = [f"<h2>{html.escape(name)}</h2>{_table(rows)}" for name, rows in tables.items()]
    cards = "\n".join(_card(alert) for alert in alerts)
    parts.append(f"<h2>{len(alerts)} alerts: science, template, difference</h2><div class=grid>{cards}</div>")
    body = "\n".join(parts)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{body}</html>\n"
    )


def stamp_uri(cutout: bytes, *, symmetric: bool = False) -> str:
    """Return a cutout's image as a PNG data URI, stretched between its low and high percentiles.

    Parameters
    ----------
    cutout
        FITS bytes with the image in the first HDU.
    symmetric
        Stretch about zero, as suits a difference.
    """
    with fits.open(io.BytesIO(cutout)) as hdus:
        pixels = np.asarray(hdus[0].data, float)
    grey = (255 * _stretch(pixels, symmetric)).astype(np.uint8)
    picture = Image.fromarray(grey[::-1]).resize((grey.shape[1] * _SCALE, grey.shape[0] * _SCALE), 0)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _stretch(pixels: FloatArray, symmetric: bool) -> FloatArray:
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0:
        return np.zeros(pixels.shape)
    low, high = np.percentile(finite, [1, 99.7])
    if symmetric:
        high = max(abs(low), abs(high))
        low = -high
    scaled = np.clip((np.nan_to_num(pixels, nan=low) - low) / max(high - low, 1e-9), 0, 1)
    return np.asarray(scaled if symmetric else np.sqrt(scaled))


def _card(alert: Mapping[str, Any]) -> str:
    source = alert["diaSource"]
    images = "\n".join(
        f'<img alt="{name}" src="{stamp_uri(alert["cutout" + name], symmetric=name == "Difference")}">'
        for name in ("Science", "Template", "Difference")
    )
    return f"<div class=alert>{images}<p>{html.escape(_caption(source))}</p></div>"


def _caption(source: Mapping[str, Any]) -> str:
    place = "no WCS" if source["ra"] is None else f"{source['ra']:.5f} {source['dec']:+.5f}"
    reliability = source.get("reliability")
    score = "" if reliability is None else f", reliability {reliability:.2f}"
    flags = " dipole" if source.get("isDipole") else ""
    snr = source.get("snr") or 0.0
    return f"{source['diaSourceId']}: {place}, S/N {snr:.1f}{score}{flags}, visit {source['visit']}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"
