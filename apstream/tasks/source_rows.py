"""Rows of the star list and of further measurements, from sources whose light has been told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from apstream.arrays.deblend import strip_order, symmetric_templates, template_shares
from apstream.arrays.polynomial import poly_terms
from apstream.arrays.sources import LocalPsf, Photometry, aperture_sums, flags_near
from apstream.arrays.stamps import add_models, gather_stamps, stamp_corners
from apstream.arrays.stars import contamination
from apstream.arrays.types import F32, F64, BoolArray, IntArray, Records
from apstream.model.exposures import STAR_DTYPE, CharacterizedExposure
from apstream.model.geometry import Box
from apstream.model.mask import MaskPlane
from apstream.tasks.deblend import Deblended
from apstream.tasks.measure_list import MeasureListConfig, measure_listed
from apstream.tasks.source_peaks import Peaks, Pixels
from apstream.tasks.source_view import SourceView, psf_moments
from apstream.tasks.star_list import FLAGGED

__all__ = ["measured_rows"]

_BLENDED = 0.1  # light of neighbours relative to the source's own
_CHUNK = 512  # stamps that a processor's cache holds
_FEWEST_WIDE = 3.0  # misfit from which a member of a blend may be extended
_LARGEST_BLEND, _MOST_MEMBERS = 240, 20  # pixels, sources: larger blends are not divided by templates


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """All that views are cut from."""

    box: Box
    pixels: Pixels
    sources: Deblended
    facts: dict[str, Any]
    shapes: F64
    own: dict[int, F32]
    side: int


def measured_rows(
    char: CharacterizedExposure, pixels: Pixels, sources: Deblended, peaks: Peaks, config: MeasureListConfig,
    *, aperture_fwhm: float, divide: bool,
) -> tuple[Records, Records | None]:  # fmt: skip
    """Return rows of `STAR_DTYPE`, absolute, and what `config` lists, brightest first.

    Parameters
    ----------
    char
        Whose stars shaped the PSF.
    pixels, sources, peaks
        Array coordinates.
    aperture_fwhm
        Radius of `ap_flux`.
    divide
        Whether blends with extended sources are divided by templates.
    """
    facts = _facts(pixels, sources, peaks)
    shapes = psf_moments(pixels.psf, sources.y, sources.x)
    side = 2 * int(np.ceil(max((*config.apertures_px, 2.5 * pixels.fwhm)) + 1)) + 1
    own = _template_light(pixels, sources, facts, side) if divide else {}
    scene = _Scene(char.box, pixels, sources, facts, shapes, own, side)
    stars = np.zeros(len(sources), STAR_DTYPE)
    parts = []
    order, typical = strip_order(sources.y, sources.x), float(np.median(_area(shapes)))
    for first in range(0, len(sources), _CHUNK):
        rows = order[first : first + _CHUNK]
        view = _view(scene, rows)
        _fill_shapes(stars, rows, view, typical)
        parts.append(measure_listed(view, config))
    _fill(stars, char, pixels, sources, aperture_fwhm * pixels.fwhm)
    brightest = np.argsort(-stars["flux"], kind="stable")
    if parts[0] is None:
        return stars[brightest], None
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    measured = np.concatenate([part for part in parts if part is not None])
    return stars[brightest], measured[place[brightest]]


def _facts(pixels: Pixels, sources: Deblended, peaks: Peaks) -> dict[str, Any]:
    """Return by column what detection and deblending know of each source."""
    from scipy.spatial import cKDTree

    near = cKDTree(np.column_stack([peaks.y, peaks.x])).query(np.column_stack([sources.y, sources.x]))[1]
    _, parent, counts = np.unique(peaks.parent[near], return_inverse=True, return_counts=True)
    snr = np.where(sources.hidden, sources.flux / sources.flux_err, peaks.snr[near])
    return {
        "parent": parent + 1,
        "n_children": counts[parent],
        "too_many_peaks": peaks.crowded[near],
        "peak_snr": snr,
        "psf_chi2": sources.chi2,
    }


def _view(scene: _Scene, rows: IntArray) -> SourceView:
    pixels, sources, side = scene.pixels, scene.sources, scene.side
    y, x = sources.y[rows], sources.x[rows]
    corners = stamp_corners(y, x, side)
    left = gather_stamps(sources.residual, *corners, side=side, fill=0.0)
    variance = gather_stamps(pixels.variance, *corners, side=side, fill=np.nan)
    good = variance > 0
    variance[~good] = 1
    data = left.copy()
    add_models(data, sources.cube, rows, sources.flux)
    for k, row in enumerate(rows.tolist()):
        if row in scene.own:
            data[k] = scene.own[row]
    middle_y, middle_x = corners[0] + side // 2, corners[1] + side // 2
    facts = {name: values[rows] for name, values in scene.facts.items()}
    facts["blendedness"] = _blendedness(pixels.image, (middle_y, middle_x), data, sources.cube, rows)
    return SourceView(
        data=data, variance=variance, good=good, left=left,
        y=y - middle_y, x=x - middle_x, row=middle_y + scene.box.y0, col=middle_x + scene.box.x0,
        flux=sources.flux[rows], flux_err=sources.flux_err[rows], psf_shape=scene.shapes[rows],
        fwhm=pixels.fwhm, facts=facts,
    )  # fmt: skip


def _blendedness(image: F32, middle: tuple[IntArray, IntArray], data: F32, cube: F32, rows: IntArray) -> F64:
    """Return the part of the PSF-weighted light at each source that is not its own."""
    n = min(data.shape[1], cube.shape[1], 15)
    a, b = (data.shape[1] - n) // 2, (cube.shape[1] - n) // 2
    weight = cube[rows, b : b + n, b : b + n]
    here = gather_stamps(image, middle[0] - n // 2, middle[1] - n // 2, side=n, fill=0.0)
    whole = np.einsum("nij,nij->n", weight, here)
    own = np.einsum("nij,nij->n", weight, data[:, a : a + n, a : a + n])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.clip(np.nan_to_num(1 - own / whole), 0, 1))


def _template_light(pixels: Pixels, sources: Deblended, facts: dict[str, Any], side: int) -> dict[int, F32]:
    """Divide the blends that hold extended sources by templates; return the stamps of their members by row."""
    from apstream.arrays.hidden import misfit

    blended = np.flatnonzero((facts["n_children"] > 1) & ~facts["too_many_peaks"])
    wide = misfit(
        pixels.image, sources.residual, pixels.variance, sources.y[blended], sources.x[blended],
        radius=1.5 * pixels.fwhm, model_error=0.03,
    ) > _FEWEST_WIDE  # fmt: skip
    out: dict[int, F32] = {}
    families = np.unique(facts["parent"][blended[wide]])
    order = np.argsort(facts["parent"], kind="stable")
    first, last = (np.searchsorted(facts["parent"][order], families, side=end) for end in ("left", "right"))
    for a, b in zip(first, last, strict=True):
        out.update(_divide(pixels.image, sources, order[a:b], side))
    return out


def _divide(image: F32, sources: Deblended, members: IntArray, side: int) -> dict[int, F32]:
    row, col = (np.floor(v[members] + 0.5).astype(int) for v in (sources.y, sources.x))
    half = side // 2
    y0, x0 = max(row.min() - half, 0), max(col.min() - half, 0)
    y1, x1 = min(row.max() + half + 1, image.shape[0]), min(col.max() + half + 1, image.shape[1])
    if max(y1 - y0, x1 - x0) > _LARGEST_BLEND or len(members) > _MOST_MEMBERS:
        return {}
    light = image[y0:y1, x0:x1]
    templates = symmetric_templates(light, row - y0, col - x0)
    shares = template_shares(light, templates)
    out = {}
    for k, member in enumerate(members):
        corner = np.array([row[k] - y0 - half]), np.array([col[k] - x0 - half])
        out[int(member)] = gather_stamps(light * shares[k], *corner, side=side, fill=0.0)[0]
    return out


def _fill_shapes(stars: Records, rows: IntArray, view: SourceView, typical: float) -> None:
    """Fill size, ellipticity, peak and whether a source looks like the PSF, whose FWHM is that of a `typical` area."""
    m, p = view.moments, view.psf_shape
    with np.errstate(invalid="ignore", divide="ignore"):
        stars["fwhm"][rows] = view.fwhm * np.sqrt(view.size_ratio * _area(p) / typical)
        stars["ellipticity"][rows] = np.hypot(m["ixx"] - m["iyy"], 2 * m["iyx"]) / (m["ixx"] + m["iyy"])
        offset = np.abs(np.log(view.size_ratio) / 2)
        tolerance = np.hypot(0.08, 2 / np.maximum(view.flux / view.flux_err, 1))
        stars["is_star"][rows] = offset < tolerance
    middle = view.data.shape[1] // 2
    core = view.data[:, middle - 1 : middle + 2, middle - 1 : middle + 2]
    stars["peak"][rows] = core.max(axis=(1, 2))


def _area(shape: F64) -> F64:
    """Return the root of the determinant of second moments iyy, ixx, iyx."""
    return np.asarray(np.sqrt(shape[:, 0] * shape[:, 1] - shape[:, 2] ** 2))


def _fill(stars: Records, char: CharacterizedExposure, pixels: Pixels, sources: Deblended, radius: float) -> None:
    """Fill positions, fluxes and flags."""
    for name in ("y", "x", "y_err", "x_err", "flux", "flux_err"):
        stars[name] = getattr(sources, name)
    terms = np.ascontiguousarray(poly_terms(*pixels.psf.box.normalize(sources.y, sources.x), pixels.psf.degree).T)
    fits = Photometry(sources.y, sources.x, sources.y_err, sources.x_err, sources.flux, sources.flux_err, sources.chi2)
    stars["ap_flux"], stars["ap_flux_err"] = aperture_sums(
        sources.residual, pixels.variance, fits, LocalPsf(pixels.psf.basis, terms), radius=radius
    )
    flags = flags_near(pixels.mask, y=sources.y, x=sources.x, radius=max(1.0, pixels.fwhm / 2))
    light = contamination(sources.y, sources.x, sources.flux, radius=5 * pixels.fwhm, scale=pixels.fwhm)
    stars["saturated"] = (flags & int(MaskPlane.SAT)) != 0
    stars["flagged"] = (flags & FLAGGED) != 0
    stars["blended"] = light > _BLENDED
    stars["y"] += char.box.y0
    stars["x"] += char.box.x0
    stars["psf_used"] = _near_psf_stars(char.stars, stars, pixels.fwhm / 2)


def _near_psf_stars(old: Records, new: Records, radius: float) -> BoolArray:
    """Tell which sources are those that shaped the PSF."""
    from scipy.spatial import cKDTree

    out = np.zeros(len(new), bool)
    used = old[old["psf_used"]]
    if len(used):
        gap, index = cKDTree(np.column_stack([new["y"], new["x"]])).query(np.column_stack([used["y"], used["x"]]))
        out[index[gap < radius]] = True
    return out
