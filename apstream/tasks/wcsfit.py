"""Making a `SkyWcs` from a fit, and from another WCS seen through a pixel map."""

from __future__ import annotations

from typing import Any

import numpy as np

from apstream.arrays.sip import SipFit, fit_sip, sip_inverse
from apstream.arrays.transform import PolyMap
from apstream.model.geometry import Box
from apstream.model.wcs import SkyWcs

__all__ = ["compose_wcs", "fit_wcs_to_grid", "wcs_from_sip"]


def wcs_from_sip(fit: SipFit, crpix: tuple[float, float], box: Box) -> SkyWcs:
    """Return the WCS of a fit about a 0-based reference pixel (y, x), its inverse terms fitted on `box`."""
    suffix = "-SIP" if fit.degree > 1 else ""
    header: dict[str, Any] = {
        "NAXIS": 2,
        "CTYPE1": f"RA---TAN{suffix}",
        "CTYPE2": f"DEC--TAN{suffix}",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "RADESYS": "ICRS",
        "CRVAL1": fit.crval[0],
        "CRVAL2": fit.crval[1],
        "CRPIX1": crpix[1] + 1,
        "CRPIX2": crpix[0] + 1,
    }
    header |= {f"CD{i + 1}_{j + 1}": float(fit.cd[i, j]) for i in (0, 1) for j in (0, 1)}
    if fit.degree > 1:
        inverse = sip_inverse(
            fit, (box.x0 - crpix[1], box.x1 - 1 - crpix[1]), (box.y0 - crpix[0], box.y1 - 1 - crpix[0])
        )
        for name, terms in zip(("A", "B", "AP", "BP"), (fit.a, fit.b, *inverse), strict=True):
            order = len(terms) - 1
            header[f"{name}_ORDER"] = order
            header |= {f"{name}_{p}_{q}": float(terms[p, q]) for p in range(order + 1) for q in range(order + 1 - p)}
    wcs = SkyWcs.from_header(header)
    if wcs is None:
        raise ValueError("the fit gives no celestial WCS")
    return wcs


def compose_wcs(reference: SkyWcs, to_reference: PolyMap, box: Box) -> SkyWcs:
    """Return the WCS of an image whose pixels `to_reference` maps to pixels of `reference`.

    Exact for an affine map on a plain TAN; otherwise a TAN-SIP fit over `box`.
    """
    if to_reference.degree > 1 or reference.kind != "TAN":
        return fit_wcs_to_grid(reference, to_reference, box)
    matrix, offset = to_reference.affine_at(0.0, 0.0)
    flip = matrix[::-1, ::-1]  # (x, y) order
    cd = reference.wcs.pixel_scale_matrix @ flip
    ref_y, ref_x = reference.wcs.wcs.crpix[1] - 1, reference.wcs.wcs.crpix[0] - 1
    crpix = np.linalg.solve(matrix, np.array([ref_y, ref_x]) - offset)
    crval = (float(reference.wcs.wcs.crval[0]), float(reference.wcs.wcs.crval[1]))
    empty = np.zeros((2, 2))
    return wcs_from_sip(SipFit(crval, cd, empty, empty), (float(crpix[0]), float(crpix[1])), box)


def fit_wcs_to_grid(reference: SkyWcs, to_reference: PolyMap, box: Box, *, degree: int = 4) -> SkyWcs:
    """Fit a TAN-SIP to sky positions of a grid of pixels over `box`, seen through `to_reference`."""
    sides = (np.linspace(box.y0 - 1, box.y1, 21), np.linspace(box.x0 - 1, box.x1, 21))
    y, x = (a.ravel() for a in np.meshgrid(*sides, indexing="ij"))
    sky = reference.pixel_to_sky(*to_reference(y, x))
    return wcs_from_sip(fit_sip((y, x), sky, crpix=box.center, degree=degree), box.center, box)
