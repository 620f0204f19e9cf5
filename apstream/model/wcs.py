"""Sky coordinates of pixels: 0-based pixels, ICRS degrees."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

from apstream.arrays.tpv import fit_tpv
from apstream.arrays.types import F64, FloatArray
from apstream.model.cards import exact_card, exact_header
from apstream.model.geometry import Box
from apstream.model.tangent import TangentWcs

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["SkyWcs", "separation"]

_VALUES = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")
_LARGEST = 1e9
#: ``CD1-1`` for ``CD1_1``: wcslib writes beyond its memory when it meets one.
_NO_INDEX = re.compile(r"^[A-Z]+\d+-")
_SIP_KEY = re.compile(r"(A|B|AP|BP)_(ORDER|DMAX|\d_\d)$")
_MATRIX_KEY = re.compile(r"(PC[12]_[12]|CDELT[12]|CROTA[12])$")
#: Pixels from the reference pixel over which a distortion is sampled; polynomials are exact anywhere.
_REACH = 4096.0
_KEYS = ("CTYPE1", "CTYPE2", *_VALUES)


@dataclass(frozen=True, slots=True, eq=False)
class SkyWcs:
    """A celestial WCS (TAN, TAN-SIP, TPV, ...) with 0-based pixels, of astropy or by its numbers.

    Raises
    ------
    ValueError
        If the WCS is not celestial.
    """

    given: WCS | TangentWcs

    def __post_init__(self) -> None:
        if isinstance(self.given, TangentWcs):
            return
        if not self.given.has_celestial:
            raise ValueError("the WCS has no celestial axes")
        if plain := _by_numbers(self.given):  # so that all ways to the same WCS give the same bits
            object.__setattr__(self, "given", plain)

    @property
    def wcs(self) -> WCS:
        """The WCS of astropy; made, and its package imported, when it is asked for."""
        return _of_astropy(self.given) if isinstance(self.given, TangentWcs) else self.given

    @classmethod
    def from_header(cls, header: Any) -> SkyWcs | None:
        """Read the WCS of a FITS header (or mapping); None where the header has no usable one.

        SIP coefficients with a plain TAN type, a common defect, are taken as TAN-SIP. TPV may come with CD, or with
        CDELT and PC or CROTA2, of which wcslib takes the matrix but not the polynomial for a plane in degrees.

        Raises
        ------
        ValueError
            If the cards contradict each other or are not numbers.
        """
        header = fits.Header(header)
        if any(key not in header for key in _KEYS) or "-" not in str(header["CTYPE1"]):
            return None
        _require_numbers(header)
        for key in [key for key in header if _NO_INDEX.match(key)]:
            del header[key]
        for key in ("CTYPE1", "CTYPE2"):
            if "A_ORDER" in header and str(header[key]).endswith("-TAN"):
                header[key] = f"{header[key]}-SIP"
        if str(header["CTYPE1"]).endswith("-TPV"):
            _use_cd(header)
        from astropy.wcs import WCS, FITSFixedWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            wcs = WCS(header, naxis=2)
        scale = np.linalg.det(wcs.pixel_scale_matrix)
        if not np.isfinite(scale) or scale == 0:
            raise ValueError("the matrix of CD, PC and CDELT has no inverse")
        return cls(wcs) if wcs.has_celestial else None

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> SkyWcs | None:
        """Read the values of the cards of `to_header`: as `from_header`, but TAN and TAN-SIP without astropy.

        Raises
        ------
        ValueError, TypeError
            As `from_header`.
        """
        plain = TangentWcs.of(values)
        if plain is None:
            return cls.from_header(exact_header(fits.Header(values)))
        _require_numbers(values)
        return cls(plain)

    @classmethod
    def tan(
        cls, ra: float, dec: float, *, pixel_scale_arcsec: float, y: float, x: float, rotation: float = 0.0
    ) -> SkyWcs:
        """Make a plain TAN WCS with (ra, dec) at pixel (y, x), north up and east left, then rotated."""
        angle, scale = np.deg2rad(rotation), pixel_scale_arcsec / 3600
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        cd = scale * turn @ np.diag([-1.0, 1.0])
        return cls(TangentWcs((float(ra), float(dec)), (float(x + 1), float(y + 1)), cd))

    def mirrored(self) -> SkyWcs:
        """Return a plain TAN WCS with x mirrored about the reference pixel."""
        wcs = self.wcs.deepcopy()
        wcs.wcs.cd = wcs.pixel_scale_matrix @ np.diag([-1.0, 1.0])
        wcs.wcs.set()
        return SkyWcs(wcs)

    def __getstate__(self) -> str | TangentWcs:
        return self.given if isinstance(self.given, TangentWcs) else str(self.to_header().tostring(sep="\n"))

    def __setstate__(self, state: str | TangentWcs) -> None:
        object.__setattr__(self, "given", state if isinstance(state, TangentWcs) else _of_text(state))

    def to_header(self) -> fits.Header:
        """Return the WCS as header cards, distortion included, that give back every bit of it."""
        if isinstance(self.given, TangentWcs):
            return fits.Header([_card(*card) for card in self.given.cards()])
        return _exact_cards(self.given)

    def to_tpv(self) -> SkyWcs:
        """Return the same WCS as TPV (SCAMP's form), which has no inverse terms; TAN and TAN-SIP convert exactly.

        Raises
        ------
        ValueError
            If the projection is neither TAN, TAN-SIP nor TPV.
        """
        kind = self.kind
        if kind == "TPV":
            return self
        if kind not in ("TAN", "TAN-SIP"):
            raise ValueError(f"a WCS of type {kind} cannot become TPV")
        header, sip = self.to_header(), self.wcs.sip
        for key in [key for key in header if _SIP_KEY.match(key)]:
            del header[key]
        header["CTYPE1"], header["CTYPE2"] = "RA---TPV", "DEC--TPV"
        if sip is not None:
            u, v = (a.ravel() for a in np.meshgrid(*[np.linspace(-_REACH, _REACH, 31)] * 2))
            bent = (u + _evaluate(sip.a, u, v), v + _evaluate(sip.b, u, v))
            cd = self.wcs.pixel_scale_matrix
            degree = max(int(sip.a_order), int(sip.b_order))
            for (axis, index), value in fit_tpv(cd @ np.stack([u, v]), cd @ np.stack(bent), degree).items():
                header[f"PV{axis}_{index}"] = value
        made = SkyWcs.from_header(exact_header(header))
        assert made is not None  # the header of a celestial WCS
        return made

    def pixel_to_sky(self, y: FloatArray | float, x: FloatArray | float) -> tuple[F64, F64]:
        """Return (ra, dec) in degrees of 0-based pixel positions."""
        if isinstance(self.given, TangentWcs):
            return self.given.pixel_to_sky(np.asarray(y, float), np.asarray(x, float))
        ra, dec = self.wcs.all_pix2world(np.asarray(x, float), np.asarray(y, float), 0)
        return np.asarray(ra, float), np.asarray(dec, float)

    def sky_to_pixel(self, ra: FloatArray | float, dec: FloatArray | float) -> tuple[F64, F64]:
        """Return 0-based (y, x) of sky positions in degrees; positions that do not project become NaN."""
        if isinstance(self.given, TangentWcs):
            return self.given.sky_to_pixel(np.asarray(ra, float), np.asarray(dec, float))
        x, y = self.wcs.all_world2pix(
            np.asarray(ra, float), np.asarray(dec, float), 0, tolerance=1e-5, maxiter=30, quiet=True
        )
        return np.asarray(y, float), np.asarray(x, float)

    @property
    def pixel_scale_arcsec(self) -> float:
        """Mean pixel scale at the reference point."""
        cd = self.given.cd if isinstance(self.given, TangentWcs) else self.given.pixel_scale_matrix
        return float(np.sqrt(abs(np.linalg.det(cd))) * 3600)

    @property
    def kind(self) -> str:
        """The projection as headers call it: TAN, TAN-SIP, TPV, ... (wcslib itself calls TPV a TAN)."""
        return str(self.to_header()["CTYPE1"])[5:]

    def circle(self, box: Box) -> tuple[float, float, float]:
        """Return (ra, dec, radius) in degrees of a circle around `box`."""
        ra, dec = self.pixel_to_sky(*box.center)
        cra, cdec = self.pixel_to_sky(*box.grow(1).corners())
        return float(ra), float(dec), float(np.max(separation(ra, dec, cra, cdec)))


def _evaluate(matrix: F64, u: F64, v: F64) -> F64:
    return np.asarray(sum(matrix[p, q] * u**p * v**q for p, q in np.argwhere(matrix != 0)) + 0 * u)


def _use_cd(header: fits.Header) -> None:
    """Put a CD matrix in place of CDELT with PC or CROTA2."""
    if any(f"CD{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
        return
    plain = fits.Header((card.keyword, card.value) for card in header.cards if not card.keyword.startswith("PV"))
    plain["CTYPE1"], plain["CTYPE2"] = "RA---TAN", "DEC--TAN"
    from astropy.wcs import WCS, FITSFixedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        matrix = WCS(plain, naxis=2).pixel_scale_matrix
    for key in [key for key in header if _MATRIX_KEY.match(key)]:
        del header[key]
    for i in (1, 2):
        for j in (1, 2):
            header[f"CD{i}_{j}"] = float(matrix[i - 1, j - 1])


def _exact_cards(wcs: WCS) -> fits.Header:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = wcs.to_header(relax=True)
    for i in (1, 2):  # PC + CDELT written by astropy become CD, which every reader knows
        for j in (1, 2):
            header.pop(f"PC{i}_{j}", None)
        header.pop(f"CDELT{i}", None)
    header.update(_exact_values(wcs))
    return exact_header(header)


def _card(key: str, value: Any, comment: str) -> fits.Card:
    # text as short as wcslib writes it
    if not isinstance(value, str):
        return exact_card(key, value, comment)
    quoted = f"'{value}'"
    return fits.Card.fromstring(f"{key:<8}= {quoted:<20} / {comment}")


def _exact_values(wcs: WCS) -> dict[str, float]:
    """Return the numbers that wcslib would write with twelve digits."""
    inner, cd = wcs.wcs, wcs.pixel_scale_matrix
    values = {f"CD{i + 1}_{j + 1}": float(cd[i, j]) for i in (0, 1) for j in (0, 1)}
    for axis in (1, 2):
        values[f"CRPIX{axis}"] = float(inner.crpix[axis - 1])
        values[f"CRVAL{axis}"] = float(inner.crval[axis - 1])
    values |= {"LONPOLE": float(inner.lonpole), "LATPOLE": float(inner.latpole)}
    return values | {f"PV{axis}_{m}": float(value) for axis, m, value in inner.get_pv()}


def _by_numbers(wcs: WCS) -> TangentWcs | None:
    """Return a TAN or TAN-SIP by its numbers, None of any other WCS."""
    kinds = [str(kind) for kind in wcs.wcs.ctype]
    return TangentWcs.of(dict(_exact_cards(wcs))) if all(kind[5:8] == "TAN" for kind in kinds) else None


def _of_astropy(known: TangentWcs) -> WCS:
    """Return astropy's WCS of the same numbers."""
    from astropy.wcs import WCS, Sip  # a quarter of a second, and most images are TAN or TAN-SIP

    wcs = WCS(naxis=2)
    inner = wcs.wcs
    suffix = "-SIP" if known.sip else ""
    inner.ctype, inner.cunit = (f"RA---TAN{suffix}", f"DEC--TAN{suffix}"), ("deg", "deg")
    inner.crval, inner.crpix, inner.cd, inner.radesys = known.crval, known.crpix, known.cd, "ICRS"
    if known.sip:
        wcs.sip = Sip(*known.sip, *[None] * (4 - len(known.sip)), inner.crpix)
    inner.set()
    return wcs


def _of_text(cards: str) -> WCS:
    from astropy.wcs import WCS

    return WCS(fits.Header.fromstring(cards, sep="\n"), naxis=2)


def _require_numbers(header: Mapping[str, Any]) -> None:
    """Refuse values on which wcslib loops for minutes instead of failing."""
    for key in _VALUES:
        value = header[key]
        if not isinstance(value, (int, float)) or not np.isfinite(value) or abs(value) > _LARGEST:
            raise ValueError(f"{key} = {value!r} is not a usable number")
    if abs(header["CRVAL2"]) > 90 and str(header["CTYPE2"]).startswith("DEC"):
        raise ValueError(f"CRVAL2 = {header['CRVAL2']} is no declination")


def separation(
    ra1: FloatArray | float, dec1: FloatArray | float, ra2: FloatArray | float, dec2: FloatArray | float
) -> F64:
    """Return the angle between sky positions in degrees (haversine form)."""
    r1, d1, r2, d2 = (np.deg2rad(np.asarray(v, float)) for v in (ra1, dec1, ra2, dec2))
    h = np.sin((d2 - d1) / 2) ** 2 + np.cos(d1) * np.cos(d2) * np.sin((r2 - r1) / 2) ** 2
    return np.asarray(np.rad2deg(2 * np.arcsin(np.sqrt(np.clip(h, 0, 1)))))
