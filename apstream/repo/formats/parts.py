"""The parts of an exposure's file, each read by itself: `PARTS` names them as the nouns name their fields."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from apstream.arrays.types import F32, F64, IntArray, Records
from apstream.errors import BadFile, WrongSize
from apstream.model.exposures import STAR_DTYPE, Background, ExposureInfo, MatchingKernel
from apstream.model.filters import FilterLabel
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf, PsfPart
from apstream.model.summary import CalExpSummary
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.layout import OurFits

__all__ = ["PARTS", "background", "image_box", "masked_image", "matched_template", "measured", "psf", "stars"]


#: Pixels along a side of a sample.
_SAMPLE = 256
#: Cards of the SCI header that are not about the sky.
_NO_WCS = re.compile(r"(XTENSION|BITPIX|NAXIS\d?|PCOUNT|GCOUNT|EXTNAME|BUNIT|BOX[XY]0|APSCRPX[12])$")


def masked_image(file: OurFits, box: Box | None = None) -> MaskedImage:
    """Read image, mask and variance, whole or inside `box`, whose rows alone are read."""
    return MaskedImage(
        image=_plane(file, "SCI", box),
        mask=_plane(file, "MASK", box),
        variance=_plane(file, "VAR", box),
        unit=file.hdu("SCI").header["BUNIT"],
        box=box or image_box(file),
    )


def image_box(file: OurFits) -> Box:
    """Read the box of the pixels."""
    sci = file.hdu("SCI")
    return Box.from_shape(sci.shape, sci.header.get("BOXY0", 0), sci.header.get("BOXX0", 0))


def stars(file: OurFits, box: Box | None = None) -> Records:
    """Read the star list, whole or inside `box`."""
    rows = file.records("STARS", STAR_DTYPE)
    return rows if box is None else rows[box.contains(rows["y"], rows["x"])]


def measured(file: OurFits, box: Box | None = None) -> Records | None:
    """Read what else was measured of the stars, whole or of those inside `box`; None if nothing was."""
    if not file.has("MEASURED"):
        return None
    rows = file.records("MEASURED")
    if box is None:
        return rows
    places = file.records("STARS", STAR_DTYPE)
    return rows[box.contains(places["y"], places["x"])]


def matched_template(file: OurFits, box: Box | None = None) -> F32:
    """Read the template as it was matched, whole or inside `box`."""
    return np.asarray(_plane(file, "MATCHED", box))


def _plane(file: OurFits, name: str, box: Box | None = None) -> Any:
    if box is None:
        return file.array(name)
    whole = image_box(file)
    if box.intersect(whole) != box:
        raise WrongSize(f"{box} is not inside {whole}", where=file.where, remedy="ask for a box inside the image")
    rows, columns = box.slices(whole)
    return file.array(name, (rows.start, rows.stop), columns)


def _pixels(file: OurFits) -> F32:
    return np.asarray(_plane(file, "SCI"))


def _mask(file: OurFits) -> IntArray:
    return np.asarray(_plane(file, "MASK"))


def _variance(file: OurFits) -> F32:
    return np.asarray(_plane(file, "VAR"))


def _variance_sample(file: OurFits) -> F32:
    """Read the variance of every so-many-th pixel, about 256 a side: enough for its mean."""
    return np.asarray(file.thinned("VAR", max(1, min(image_box(file).shape) // _SAMPLE)))


def _polygon(file: OurFits) -> F64:
    """Read the outer corners of the corner pixels, (y, x) of each, counter-clockwise from the lowest."""
    box = image_box(file)
    y0, x0, y1, x1 = box.y0 - 0.5, box.x0 - 0.5, box.y1 - 0.5, box.x1 - 0.5
    return np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])


def _wcs(file: OurFits) -> SkyWcs | None:
    header = file.hdu("SCI").header
    if "CTYPE1" not in header:
        return None
    values = {key: header[key] for key in header if not _NO_WCS.match(key)}
    for axis, key in ((1, "BOXX0"), (2, "BOXY0")):
        if origin := header.get(key, 0):
            values[f"CRPIX{axis}"] = header.get(f"APSCRPX{axis}", values[f"CRPIX{axis}"] + origin)
    return SkyWcs.from_values(values)


def psf(file: OurFits) -> Psf:
    """Read the PSF."""
    return Psf(np.asarray(file.array("PSF"), float), _box_of(file, "PSF"))


def _psf_parts(file: OurFits) -> tuple[PsfPart, ...]:
    """Read what each exposure gives to the PSF of a coadd; nothing if the PSF has no steps."""
    if not file.has("PSFPARTS"):
        return ()
    bases, rows = np.asarray(file.array("PSFPARTS"), float), file.array("PSFAREAS")
    return tuple(
        PsfPart(Psf(basis, Box(*(int(v) for v in row[:4]))), row[5:].reshape(-1, 2), float(row[4]))
        for basis, row in zip(bases, rows, strict=True)
    )


def _any_psf(file: OurFits) -> Psf | None:
    """Read the PSF; None only from an exposure that came without one."""
    without = file.header.get("APSTYPE") == "Exposure" and not file.header.get("APSPSF", False)
    return None if without else psf(file)


def _kernel(file: OurFits) -> MatchingKernel:
    return MatchingKernel(
        basis=np.asarray(file.array("KBASIS"), float),
        coefficients=np.asarray(file.array("KCOEFF"), float),
        background=np.asarray(file.array("KBACKGR"), float),
        box=_box_of(file, "KBASIS"),
    )


def background(file: OurFits) -> Background:
    """Read the background mesh."""
    box, cell = _box_of(file, "BGMESH"), int(file.hdu("BGMESH").header["CELL"])
    return Background(file.array("BGMESH"), file.array("BGRMS"), box, cell)


def _box_of(file: OurFits, name: str) -> Box:
    header = file.hdu(name).header
    return Box(header["BOXY0"], header["BOXX0"], header["BOXY1"], header["BOXX1"])


def _photo_calib(file: OurFits) -> PhotoCalib:
    header = file.header
    if "NJYPERU" not in header:
        raise BadFile("the file holds no calexp", where=file.where, remedy="name a calexp")
    known = _texts(file).get("zero_point_map", {"spatial_mag": (), "box": None})
    return PhotoCalib(
        njy_per_unit=float(header["NJYPERU"]),
        error=float(header["NJYERR"]),
        n_stars=header["NJYSTARS"],
        relative=header["NJYREL"],
        spatial_mag=tuple(float(term) for term in known["spatial_mag"]),
        box=None if known["box"] is None else Box(**known["box"]),
    )


def _info(file: OurFits) -> ExposureInfo:
    texts = _texts(file)
    known = texts["info"] if "info" in texts else _info_of_layout_1(file.header, texts)
    numbers = {key: float(known[key]) for key in ("mid_mjd_tai", "exposure_s", "ra", "dec")}
    return ExposureInfo(**{**known, **numbers, "id": VisitDetector(**known["id"])})


def _info_of_layout_1(header: Any, texts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": {"instrument": header["INSTRUME"], "visit": header["VISIT"], "detector": header["DETECTOR"]},
        "band": header["BAND"],
        "physical_filter": header["FILTER"],
        "mid_mjd_tai": header["MIDMJD"],
        "exposure_s": header["EXPTIME"],
        "ra": header["RA"],
        "dec": header["DEC"],
        "object_name": texts["object"],
        "observation_type": header["OBSTYPE"],
        "origin": texts["origin"],
    }


def _detector(file: OurFits) -> VisitDetector:
    return _info(file).id


def _filter(file: OurFits) -> FilterLabel:
    known = _info(file)
    return FilterLabel(known.physical_filter, known.band)


def _metrics(file: OurFits) -> dict[str, float]:
    return {key: float(value) for key, value in _texts(file)["metrics"].items()}


def _summary(file: OurFits) -> CalExpSummary:
    wcs = _wcs(file)
    if wcs is None:
        raise BadFile("the calexp has no WCS", where=file.where, remedy="calibrate it again")
    return CalExpSummary(
        info=_info(file),
        psf=psf(file),
        wcs=wcs,
        photo_calib=_photo_calib(file),
        box=image_box(file),
        metrics=_metrics(file),
        psf_parts=_psf_parts(file),
    )


def _texts(file: OurFits) -> dict[str, Any]:
    return dict(json.loads(file.header["APSMETA"]))


def _convolved(file: OurFits) -> str:
    return str(file.header["CONVOLVD"])


def _aperture_correction(file: OurFits) -> float:
    return float(file.header["APCORR"])


#: Every part by name. Names are those of the nouns' fields, and of what the nouns' fields hold.
PARTS: Mapping[str, Callable[[OurFits], Any]] = {
    "aperture_correction": _aperture_correction,
    "background": background,
    "box": image_box,
    "calib": _photo_calib,
    "convolved": _convolved,
    "detector": _detector,
    "filter": _filter,
    "image": masked_image,
    "info": _info,
    "kernel": _kernel,
    "mask": _mask,
    "matched_template": matched_template,
    "measured": measured,
    "metrics": _metrics,
    "photo_calib": _photo_calib,
    "pixels": _pixels,
    "polygon": _polygon,
    "psf": _any_psf,
    "psf_parts": _psf_parts,
    "stars": stars,
    "summary": _summary,
    "variance": _variance,
    "variance_sample": _variance_sample,
    "wcs": _wcs,
}
