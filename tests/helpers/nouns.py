"""Seeded values of every noun that is stored, and what it means that two are the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.wcs import WCS, Sip

from apstream.model.bright_objects import BrightObjects, SkyBox, SkyDisc
from apstream.model.columns import DIA_SOURCE
from apstream.model.crosstalk import Crosstalk
from apstream.model.defects import Defects
from apstream.model.exposures import (
    STAR_DTYPE,
    Background,
    CalExp,
    CharacterizedExposure,
    DifferenceImage,
    Exposure,
    ExposureInfo,
    MatchingKernel,
)
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.linearity import Linearity
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.skymap import SkyMap
from apstream.model.sources import source_catalog
from apstream.model.tablespec import TableSpec
from apstream.model.tilings import Grid
from apstream.model.tract import Tract
from apstream.model.transfer import PhotonTransfer
from apstream.model.transmission import TransmissionCurve
from apstream.model.wcs import SkyWcs

Rng = np.random.Generator
TEXTS = ("", "r", "field ü", "it's & that's", "trailing ", "a\nb\t'''", "&", "x" * 90, "日本 " * 40, '{"k": 1}')
NUMBERS = (0.0, -0.0, 1e-300, -1.7976931348623157e308, 0.1 + 0.2, float("nan"), float("inf"), 61000.123456789012)


def text(rng: Rng) -> str:
    return str(rng.choice(TEXTS))


def number(rng: Rng) -> float:
    return float(rng.choice(NUMBERS)) if rng.random() < 0.3 else float(rng.normal() * 10.0 ** rng.integers(-9, 9))


def box(rng: Rng, ny: int, nx: int) -> Box:
    return Box.from_shape((ny, nx), int(rng.integers(-5000, 5000)), int(rng.choice([0, -7, 4096])))


def info(rng: Rng) -> ExposureInfo:
    return ExposureInfo(
        id=VisitDetector(text(rng), int(rng.integers(0, 1 << 41)), int(rng.integers(0, 256))),
        band=text(rng),
        physical_filter=text(rng),
        mid_mjd_tai=number(rng),
        exposure_s=number(rng),
        ra=number(rng),
        dec=number(rng),
        object_name=text(rng),
        observation_type=text(rng),
        origin=text(rng),
    )


def metrics(rng: Rng) -> dict[str, float]:
    return {f"stage.{name}": number(rng) for name in rng.permutation(list("abcdefghijklmnop"))[: rng.integers(0, 16)]}


def masked_image(rng: Rng, unit: str, inside: Box) -> MaskedImage:
    pixels = rng.normal(size=inside.shape).astype(np.float32)
    pixels[rng.random(inside.shape) < 0.1] = np.nan
    pixels[rng.random(inside.shape) < 0.1] = -np.inf
    mask = rng.integers(-(1 << 31), 1 << 31, inside.shape).astype(np.int32)
    return MaskedImage.make(pixels, mask, rng.uniform(0, 2, inside.shape), unit, inside)


def wcs(rng: Rng) -> SkyWcs:
    plain = SkyWcs.tan(
        float(rng.uniform(0, 360)),
        float(rng.uniform(-90, 90)),
        pixel_scale_arcsec=float(rng.uniform(0.05, 3)),
        y=float(rng.uniform(-5000, 5000)),
        x=float(rng.uniform(-5000, 5000)),
        rotation=float(rng.uniform(0, 360)),
    )
    return sip_of(rng, plain) if rng.random() < 0.5 else plain


def sip_of(rng: Rng, plain: SkyWcs) -> SkyWcs:
    distorted = WCS(plain.to_header())
    order = int(rng.integers(2, 5))
    degree = np.add.outer(range(order + 1), range(order + 1))
    matrices = [rng.normal(size=degree.shape) * 10.0 ** (-4 * degree) for _ in range(4)]
    for matrix in matrices:
        matrix[(degree > order) | (degree < 2)] = 0
    inverse = matrices[2:] if rng.random() < 0.5 else (None, None)
    distorted.sip = Sip(*matrices[:2], *inverse, distorted.wcs.crpix)
    distorted.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    distorted.wcs.set()
    return SkyWcs(distorted)


def psf(rng: Rng, inside: Box | None = None) -> Psf:
    return Psf(rng.normal(size=(int(rng.choice([1, 3, 6])), 5, 7)), inside or box(rng, 30, 40))


def background(rng: Rng) -> Background:
    mesh = rng.normal(size=(2, 3, 4)).astype(np.float32)
    return Background(mesh[0], mesh[1], box(rng, 300, 400), int(rng.integers(1, 256)))


def stars(rng: Rng, inside: Box, count: int = 6) -> Any:
    rows = np.zeros(count, STAR_DTYPE)
    for name in STAR_DTYPE.names or ():
        rows[name] = rng.random(count) < 0.5 if STAR_DTYPE[name].kind == "b" else rng.normal(size=count)
    rows["y"] = rng.uniform(inside.y0 - 0.5, inside.y1 - 0.5, count)
    rows["x"] = rng.uniform(inside.x0 - 0.5, inside.x1 - 0.5, count)
    rows["flux"][:1] = np.nan
    return rows


def measured(rng: Rng, count: int) -> Any:
    """Measurements of some kind, or none."""
    if rng.random() < 0.3:
        return None
    rows = np.zeros(count, [("parent", "i4"), ("kron_flux", "f8"), ("ixx", "f4"), ("shape_flag", "?"), ("mine", "i8")])
    rows["parent"], rows["shape_flag"] = rng.integers(0, 99, count), rng.random(count) < 0.5
    rows["kron_flux"], rows["ixx"], rows["mine"] = rng.normal(size=count), np.nan, rng.integers(-9, 9, count)
    return rows


def exposure(rng: Rng) -> Exposure:
    inside = box(rng, 9, 13)
    placed = wcs(rng) if rng.random() < 0.7 else None
    image = masked_image(rng, "electron", inside)
    supplied = psf(rng, inside) if rng.random() < 0.5 else None
    return Exposure(image=image, info=info(rng), wcs=placed, metrics=metrics(rng), psf=supplied)


def characterized(rng: Rng) -> CharacterizedExposure:
    inside, count = box(rng, 9, 13), int(rng.integers(0, 9))
    return CharacterizedExposure(
        image=masked_image(rng, "electron", inside),
        info=info(rng),
        wcs=wcs(rng) if rng.random() < 0.7 else None,
        psf=psf(rng, inside),
        background=background(rng),
        stars=stars(rng, inside, count),
        aperture_correction=number(rng),
        metrics=metrics(rng),
        measured=measured(rng, count),
    )


def calexp(rng: Rng) -> CalExp:
    inside, count = box(rng, 9, 13), int(rng.integers(0, 9))
    return CalExp(
        image=masked_image(rng, "nJy", inside),
        info=info(rng),
        psf=psf(rng, inside),
        wcs=wcs(rng),
        photo_calib=photo_calib(rng),
        stars=stars(rng, inside, count),
        metrics=metrics(rng),
        measured=measured(rng, count),
    )


def difference(rng: Rng) -> DifferenceImage:
    inside = box(rng, 9, 13)
    kernel = MatchingKernel(
        basis=rng.normal(size=(3, 5, 5)),
        coefficients=rng.normal(size=(3, 6)),
        background=rng.normal(size=3),
        box=inside,
    )
    return DifferenceImage(
        image=masked_image(rng, "nJy", inside),
        info=info(rng),
        psf=psf(rng, inside),
        wcs=wcs(rng) if rng.random() < 0.7 else None,
        kernel=kernel,
        matched_template=rng.normal(size=inside.shape).astype(np.float32),
        convolved=str(rng.choice(["template", "science"])),
        metrics=metrics(rng),
    )


def photo_calib(rng: Rng) -> PhotoCalib:
    return PhotoCalib(
        njy_per_unit=10.0 ** rng.uniform(-300, 300),  # a numpy float, as fits give
        error=number(rng),
        n_stars=int(rng.integers(0, 9999)),
        relative=bool(rng.random() < 0.5),
    )


def transmission(rng: Rng) -> TransmissionCurve:
    n = int(rng.integers(2, 30))
    return TransmissionCurve(np.sort(rng.uniform(300, 1100, n)), rng.uniform(0, 1, n))


def array(rng: Rng) -> Any:
    pixels = rng.normal(size=(7, 11)).astype(np.float32)
    pixels[2, 3] = np.nan
    return pixels


def defects(rng: Rng) -> Defects:
    return Defects.from_mask(rng.random((9, 7)) < rng.random() / 2)


def crosstalk(rng: Rng) -> Crosstalk:
    n = int(rng.integers(1, 5))
    matrix = rng.normal(size=(n, n)) * 1e-4
    np.fill_diagonal(matrix, 0)
    return Crosstalk(tuple(rng.permutation(["A", "no", "17", "1e3", "B'ü"])[:n].tolist()), matrix)


def linearity(rng: Rng) -> Linearity:
    kind: Any = ("polynomial", "table")[int(rng.integers(2))]
    if kind == "polynomial":
        values = tuple(rng.normal(size=int(rng.integers(0, 4))) * 1e-6 for _ in "AB")
    else:
        values = tuple(np.stack([np.sort(rng.uniform(0, 6e4, 9)), rng.normal(size=9)]) for _ in "AB")
    return Linearity(names=("no", "1e3"), kind=kind, coefficients=values, max_adu=(float("inf"), number(rng) ** 2 + 1))


def photon_transfer(rng: Rng) -> PhotonTransfer:
    n = int(rng.integers(1, 5))
    columns = {key: tuple(rng.random(n).tolist()) for key in ("gain", "gain_err", "read_noise", "a00")}
    names = tuple(rng.permutation(["A", "no", "17", "1e3", "B'ü"])[:n].tolist())
    return PhotonTransfer(names=names, turnoff_adu=(float("nan"), *rng.random(n - 1).tolist()), **columns)


def bits(rng: Rng) -> Any:
    planes = rng.integers(0, 2**32, (int(rng.integers(1, 4)), 5, 7), np.uint32)
    return planes * (rng.random(planes.shape) < 0.5)


def skymap(rng: Rng) -> SkyMap:
    ra, dec = float(rng.uniform(0, 360)), float(rng.uniform(-90, 90))
    scale = float(rng.uniform(0.1, 1))
    tract = Tract(id=5, ra=ra, dec=dec, pixel_scale_arcsec=scale, patches=(3, 4))
    grid = Grid(pixel_scale_arcsec=scale, overlap=float(rng.uniform(0, 1)))
    kinds = (SkyMap.discrete([tract]), SkyMap.rings(int(rng.integers(3, 200)), grid), SkyMap.healpix(32, grid))
    return kinds[int(rng.integers(3))]


def table(rng: Rng) -> pa.Table:
    n = int(rng.integers(0, 9))
    arrays = [pa.array(rng.normal(size=n)), pa.array([text(rng) for _ in range(n)]), pa.array(rng.random(n) < 0.5)]
    fields = [pa.field("flux", pa.float64(), metadata={"unit": "nJy"}), ("name", pa.string()), ("ok", pa.bool_())]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata={"made": "here"}))


def records(rng: Rng, spec: TableSpec) -> Any:
    rows = spec.empty(int(rng.integers(0, 5)))
    for column in spec.columns:
        match column.kind:
            case "f":
                rows[column.name] = rng.normal(size=len(rows))
            case "i":
                rows[column.name] = rng.integers(1, 9999, len(rows))
            case "b":
                rows[column.name] = rng.random(len(rows)) < 0.5
            case "U":
                rows[column.name] = [text(rng)[:8].strip("\0") for _ in rows]
    return rows


def source_rows(rng: Rng) -> Any:
    count = int(rng.integers(0, 9))
    return source_catalog(stars(rng, Box(0, 0, 50, 50), count), wcs(rng), measured(rng, count))


def plain(rng: Rng, depth: int = 3) -> Any:
    """A mapping or list of anything that text formats hold."""

    def value(level: int) -> Any:
        whole = int(rng.integers(-(1 << 60), 1 << 60))
        choices = [text(rng), number(rng), whole, True, None, "no", "1e3", "2020-01-01"]
        if level and rng.random() < 0.5:
            return plain(rng, level - 1)
        return choices[rng.integers(len(choices))]

    if rng.random() < 0.5:
        return [value(depth) for _ in range(rng.integers(0, 4))]
    return {text(rng) + str(k): value(depth) for k in range(rng.integers(0, 4))}


def note(rng: Rng) -> str:
    return "\r\n".join(text(rng) for _ in range(rng.integers(0, 4)))


#: What makes a value for each format.
def regions(rng: Rng) -> BrightObjects:
    places = [{"ra": float(rng.uniform(0, 360)), "dec": float(rng.uniform(-90, 90))} for _ in range(3)]
    sizes = {"width_arcsec": float(rng.uniform(1, 50)), "height_arcsec": float(rng.uniform(1, 50))}
    disc = SkyDisc(**places[0], radius_arcsec=float(rng.uniform(1, 500)), name="HD 1")
    return BrightObjects((disc, SkyDisc(**places[1], radius_arcsec=0.5), SkyBox(**places[2], **sizes, angle=12.5)))


SAMPLES: dict[str, Any] = {
    "regions": regions,
    "exposure": exposure,
    "characterized": characterized,
    "calexp": calexp,
    "difference": difference,
    "wcs": wcs,
    "psf": psf,
    "mask": lambda rng: rng.integers(0, 2**18, (7, 9)).astype(np.int32),
    "background": background,
    "photo_calib": photo_calib,
    "transmission": transmission,
    **dict.fromkeys(("array", "bias", "dark", "flat", "fringe", "bfKernel"), array),
    "defects": defects,
    "crosstalk": crosstalk,
    "linearity": linearity,
    "photon_transfer": photon_transfer,
    "bits": bits,
    "skymap": skymap,
    "table": table,
    "stars": source_rows,
    "instrumental_stars": source_rows,
    "dia_source": lambda rng: records(rng, DIA_SOURCE),
    "yaml": plain,
    "json": plain,
    "text": note,
}


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal to the last bit; NaN equals NaN, a WCS what maps every pixel alike."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and _bits(a) == _bits(b)
    if isinstance(a, SkyWcs):
        return _same_wcs(a, b)
    if isinstance(a, pa.Table):
        return bool(a.equals(b, check_metadata=True))
    if dataclasses.is_dataclass(a):
        fields = [field.name for field in dataclasses.fields(a)]
        return type(a) is type(b) and all(same(getattr(a, name), getattr(b, name)) for name in fields)
    if isinstance(a, Mapping):
        return set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return bool(type(a) is type(b) and a == b)


def _bits(values: Any) -> bytes:
    return bytes(np.ascontiguousarray(values).tobytes())


def _same_wcs(a: SkyWcs, b: SkyWcs) -> bool:
    y, x = np.mgrid[-1000:5000:997, -300:4000:811].astype(float)
    ra, dec = a.pixel_to_sky(y, x)
    there = np.array_equal(np.stack([ra, dec]), np.stack(b.pixel_to_sky(y, x)))
    back = np.array_equal(np.stack(a.sky_to_pixel(ra, dec)), np.stack(b.sky_to_pixel(ra, dec)), equal_nan=True)
    return there and back


__all__ = ["SAMPLES", "same"]
