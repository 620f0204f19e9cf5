"""FITS cards that keep every bit of a float."""

from __future__ import annotations

import math
from typing import Any

from astropy.io import fits

__all__ = ["exact_card", "exact_header"]


def exact_card(key: str, value: Any, comment: str = "") -> fits.Card:
    """Return a card whose text gives back the same value; astropy cuts floats to 20 characters.

    NaN and infinity, which FITS cannot hold, become text that ``float`` reads.
    """
    if not isinstance(value, float):
        return fits.Card(key, value, comment)
    if not math.isfinite(value):
        return fits.Card(key, str(float(value)), comment)
    text = f"{key:<8}= {float(value)!r:>20}".upper()
    return fits.Card.fromstring(f"{text} / {comment}"[:80] if comment else text)


def exact_header(header: fits.Header) -> fits.Header:
    """Return the same cards with every float written in full."""
    cards = (exact_card(c.keyword, c.value, c.comment) if isinstance(c.value, float) else c for c in header.cards)
    return fits.Header(list(cards))
