"""Which filter an exposure was taken through."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["FilterLabel", "band_of"]

_BANDS = frozenset("ugrizyUBVRIZYJHK")
#: Ways to write a band that are longer: primes, and the narrower K and Cousins' R and I.
_LONGER = {**{f"{band}p": band for band in "ugriz"}, "zs": "z", "Ks": "K", "Rc": "R", "Ic": "I"}
#: Systems whose letters are those of SDSS, also where they are written large.
_SMALL = frozenset(("sloan", "sdss", "hsc", "ps", "ps1", "panstarrs", "ztf"))
_SYSTEMS = _SMALL.union(
    ("bess", "bessel", "bessell", "johnson", "cousins", "kron", "harris", "landolt", "gunn", "2mass", "mko", "vista"),
    ("lsst", "sim", "des", "decam", "megacam", "mp", "vst", "omegacam", "skymapper", "band", "filter"),
)


@dataclass(frozen=True, slots=True)
class FilterLabel:
    """The glass and the band it stands for, as ``FilterLabel("N708", "r")``."""

    physical: str
    band: str


def band_of(filter_name: str) -> str:
    """Return the band of a filter by its name where that is certain, else the name itself.

    Certain is a band's letter with a prime or a number (``r'``, ``r2``), or together with names of photometric
    systems (``SDSS r``, ``Bessell V``, ``g_band``), or before a description that begins with one
    (``r DECam SDSS c0002 6415.0 1480.0``); ``Halpha``, ``F606W`` and ``VR`` are none.
    """
    words = [word for word in re.split(r"[\s_.,;:/()'\"`-]+", filter_name.strip()) if word]
    small = bool(_SMALL.intersection(word.lower() for word in words))
    bands = [_letter(word, small=small) for word in words]
    known = [band for band in bands if band]
    described = len(words) > 1 and bands[0] != "" and words[1].lower() in _SYSTEMS
    if len(known) != 1 or not (described or all(band or _is_system(w) for w, band in zip(words, bands, strict=True))):
        return filter_name.strip()
    return known[0].lower() if small and bands[0] == "" else known[0]


def _letter(word: str, *, small: bool) -> str:
    """Return the band that a word is; numbers follow letters of SDSS alone, as H2 is a molecule."""
    short = re.sub(r"(?<=^[A-Za-z])[1-9]$" if small else r"(?<=^[ugrizy])[1-9]$", "", word)
    return short if short in _BANDS else _LONGER.get(short, "")


def _is_system(word: str) -> bool:
    return bool(re.fullmatch(r"mp\d+|0\d*", word.lower())) or word.lower() in _SYSTEMS
