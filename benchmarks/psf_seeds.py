"""How far our PSF and PSFEx's are from the true one over many fields of a kind: what is systematic, and what is drawn.

    python -m benchmarks.psf_seeds [--seeds 12] [--kinds 0 1 2 3 4 5 6] [--size 1536]

The kinds are those of `benchmarks.characterize`, in its order, with other seeds. A field has one median over places
spread over it; printed are mean and rms over the fields of these medians, model less truth, per mille: relative size,
e1, e2; then the rms over all places. Beside ours the ellipticity error that the photons of its stars leave the best
of polynomial fits. Ours sees cosmic rays; SExtractor and PSFEx see the image without them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from benchmarks.characterize import FIELDS, Shot, expose, ours
from benchmarks.psf_truth import ellipticity_floor, moments
from benchmarks.psfex import PsfexModel, find_peers, run_psfex, run_sextractor
from benchmarks.star_fields import FieldConfig, StarField

__all__ = ["places", "residuals", "rows"]

_FIRST_SEED, _STEP = 7000, 37
_SIDE = 7  # places along each axis


def places(size: int) -> tuple[Any, Any]:
    """Return (y, x) of places spread over a field, anywhere on their pixels."""
    line = np.linspace(0.06, 0.94, _SIDE) * size
    rng = np.random.default_rng(0)
    y, x = (side + rng.uniform(-0.5, 0.5, side.shape) for side in np.meshgrid(line, line, indexing="ij"))
    return y.ravel(), x.ravel()


def residuals(field: StarField, model: Callable[[float, float, int], Any], y: Any, x: Any) -> Any:
    """Return (n, 3), per mille: relative size, e1 and e2 of the model less those of the truth."""
    half, sigma = int(3 * field.config.fwhm) + 2, np.hypot(field.config.fwhm / 2.355, 0.3)
    out = []
    for a, b in zip(y, x, strict=True):
        found, true = (moments(stamp, sigma) for stamp in (model(a, b, half), field.psf(a, b, half)))
        out.append((found[0] / true[0] - 1, found[1] - true[1], found[2] - true[2]))
    return 1000 * np.array(out)


def _psfex(shot: Shot) -> PsfexModel:
    fwhm = shot.field.config.fwhm
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        fits.writeto(work / "image.fits", np.asarray(shot.field.image, np.float32))
        run_sextractor(work / "image.fits", work, fwhm=fwhm)
        return run_psfex(work, fwhm=fwhm)


def rows(kind: int, count: int, size: int) -> Iterator[str]:
    """Measure `count` fields of a kind."""
    found: dict[str, list[Any]] = {"apstream": [], "PSFEx": []}
    floors, y, x = [], *places(size)
    peers = {"sextractor", "psfex"} <= set(find_peers())
    for number in range(count):
        shot = expose(FieldConfig(seed=_FIRST_SEED + _STEP * number, size=size, **FIELDS[kind]))
        done, char = ours(shot)
        used = char.stars[char.stars["psf_used"]]
        floors.append(1000 * ellipticity_floor(shot.field, used["y"], used["x"], (y, x), char.psf.degree))
        models = {"apstream": done.psf, **({"PSFEx": _psfex(shot).at} if peers else {})}
        for name, model in models.items():
            if model is not None:
                found[name].append(residuals(shot.field, model, y, x))
    for name, parts in found.items():
        floor = f"{np.sqrt(np.mean(np.square(floors))):8.2f}" if name == "apstream" else ""
        if parts:
            yield f"{kind:2d} {name:9}{_numbers(parts)}{floor}"


def _numbers(parts: list[Any]) -> str:
    medians = np.median(parts, axis=1)
    triples = [medians.mean(axis=0), *(np.sqrt(np.mean(np.square(a), axis=0)) for a in (medians, np.vstack(parts)))]
    return "".join("".join(f"{value:8.2f}" for value in triple) + "  |" for triple in triples)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--kinds", type=int, nargs="+", default=list(range(len(FIELDS))))
    parser.add_argument("--size", type=int, default=1536)
    options = parser.parse_args()
    print(f"{'kind':12}{'mean of medians: size, e1, e2':<28}{'rms of medians':<28}{'rms of places':<28}floor of e")
    for kind in options.kinds:
        print("\n".join(rows(kind, options.seeds, options.size)), flush=True)


if __name__ == "__main__":
    main()
