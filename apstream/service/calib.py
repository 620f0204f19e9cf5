"""Calibration products from raw frames: what ``apstream calib`` does, on files or in a repository."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from apstream.arrays.types import F32
from apstream.cameras import load_camera
from apstream.errors import ApstreamError
from apstream.model.calibs import IsrCalibs, defect_map
from apstream.model.frames import CalibReport, Master, RawFrames
from apstream.repo.atomic import atomic_path
from apstream.repo.formats.calibs import write_master
from apstream.repo.formats.rawrows import open_frames
from apstream.repo.formats.registry import FITS, YAML, get_format
from apstream.repo.repository import Repository
from apstream.service.calib_files import FORMAT_OF, read_calibs, read_stored
from apstream.service.calib_select import FrameGroup, group_files, group_raws
from apstream.service.calib_settings import CalibSettings
from apstream.service.roots import local_file
from apstream.service.targets import require_ending, spare_inputs
from apstream.tasks.make_bias import make_bias
from apstream.tasks.make_crosstalk import make_crosstalk
from apstream.tasks.make_dark import make_dark
from apstream.tasks.make_flat import make_flat
from apstream.tasks.make_fringe import make_fringe
from apstream.tasks.make_ptc import PtcConfig, make_ptc

__all__ = ["KINDS", "CalibOutcome", "Product", "make_of_files", "make_of_raws", "report_values"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """A dataset that was made; `noise` is the error of an image."""

    type: str
    value: Any
    report: CalibReport
    noise: Any = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibOutcome:
    """How one detector (and band) ended: the products and where they are, or the error."""

    what: str
    products: tuple[Product, ...] = ()
    locations: tuple[str, ...] = ()
    error: ApstreamError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """How a product is made.

    Parameters
    ----------
    observed
        Kinds of raw frames (``observation_type``) that it is made of by default.
    needs
        Dataset types that go in where there are any.
    by_band
        Whether each band has one of its own.
    """

    make: Callable[[RawFrames, IsrCalibs, CalibSettings], Sequence[Product]]
    observed: tuple[str, ...]
    needs: tuple[str, ...] = ()
    by_band: bool = False


def make_of_files(
    kind: str,
    paths: Sequence[Path],
    out: Path,
    *,
    camera: str,
    calibs: Mapping[str, Path],
    settings: CalibSettings,
    detector: int | None = None,
) -> CalibOutcome:
    """Make a product of raw files and write it to `out`; further products lie beside it, ``OUT-linearity.yaml``.

    Parameters
    ----------
    calibs
        Files by dataset type.

    Raises
    ------
    BadSettings
        If a file would be written over that is read, a frame is given twice, or `out` ends like another kind of file.
    """
    further = _further(out, settings.ptc) if kind == "ptc" else {}
    spare_inputs([out, *further.values()], [*paths, *calibs.values(), Path(camera)])
    endings = YAML if kind in ("crosstalk", "ptc") else (*FITS, ".fits.gz")
    require_ending(out, endings, f"the product of apstream calib {kind}")
    group = group_files(paths, detector)
    products = _make(kind, group, camera, _isr_calibs(read_calibs(calibs)), settings)
    places = [out, *(further[one.type] for one in products[1:])]
    for product, place in zip(products, places, strict=True):
        with atomic_path(place) as temporary:
            _write_product(temporary, product)
    return CalibOutcome(what=kind, products=tuple(products), locations=tuple(map(str, places)))


def _further(out: Path, config: PtcConfig) -> dict[str, Path]:
    """Return where the products beside photon transfer go, by type, those that are asked for."""
    asked = {"linearity": (config.linearity, ".yaml"), "bfKernel": (config.kernel, ".fits")}
    return {name: out.with_name(f"{out.stem}-{name}{end}") for name, (own, end) in asked.items() if own is not None}


def make_of_raws(
    kind: str,
    repository: Repository,
    words: Sequence[str],
    *,
    settings: CalibSettings,
    valid: tuple[float, float],
    run: str = "",
) -> Iterator[CalibOutcome]:
    """Make a product for each detector (and band) of the raws selected and store it, with what it was made from.

    One that cannot be made does not stop the others.

    Parameters
    ----------
    valid
        Span (MJD TAI) that the products will hold for.

    Raises
    ------
    DatasetNotFound
        If the selection names no raw frame.
    """
    for group in group_raws(repository, words, KINDS[kind].observed, by_band=KINDS[kind].by_band):
        try:
            yield _store(kind, repository, group, settings=settings, valid=valid, run=run)
        except ApstreamError as error:
            yield CalibOutcome(what=f"{kind} {group.name}", error=error)


def _store(
    kind: str,
    repository: Repository,
    group: FrameGroup,
    *,
    settings: CalibSettings,
    valid: tuple[float, float],
    run: str,
) -> CalibOutcome:
    at = {"detector": group.detector, "band": group.band, "mjd": max(group.mjd, valid[0])}
    with repository.tracking() as read:
        calibs = _isr_calibs(_read_calibs(repository, KINDS[kind].needs, at))
    products = _make(kind, group, repository.camera, calibs, settings)
    used = {name for product in products for name in product.report.used}
    inputs = (*(one for path, one in zip(group.paths, group.inputs, strict=True) if path in used), *read)
    locations = []
    for product in products:
        band = {"band": group.band} if "band" in repository.policy.keys(product.type) else {}
        data_id = {"detector": group.detector, **band}
        name = "_".join([product.type, *band.values()])
        location = repository.put(
            product.value, product.type, inputs=inputs, run=run, valid=valid, suffix=_suffix_of(product), **data_id
        )
        report = report_values(product.report)
        repository.put(report, "calib_report", inputs=inputs, run=run, valid=valid, name=name, detector=group.detector)
        locations.append(location)
    return CalibOutcome(what=f"{kind} {group.name}", products=tuple(products), locations=tuple(locations))


def report_values(report: CalibReport) -> dict[str, Any]:
    """Return a report as plain values."""
    return {
        "kind": report.kind,
        "used": list(report.used),
        "rejected": [{"name": one.name, "reason": one.reason} for one in report.rejected],
        "metrics": {key: float(value) for key, value in report.metrics.items()},
    }


def _suffix_of(product: Product) -> str:
    """Return how the name of a product's file ends."""
    return ".fits" if isinstance(product.value, np.ndarray) else ".yaml"


def _write_product(path: Path, product: Product) -> None:
    """Write a product to a plain file: an image with its error and its numbers in the header, the rest as YAML."""
    if isinstance(product.value, np.ndarray):
        numbers, used = product.report.metrics, product.report.used
        write_master(path, product.value, product.noise, kind=product.type, numbers=numbers, used=used)
    else:
        get_format(FORMAT_OF[product.type]).write(path, product.value)


def _make(kind: str, group: FrameGroup, camera: str, calibs: IsrCalibs, settings: CalibSettings) -> Sequence[Product]:
    with ExitStack() as stack:
        paths = [stack.enter_context(local_file(path)) for path in group.paths]
        frames = stack.enter_context(
            open_frames(paths, load_camera(camera), detector=group.detector, names=group.paths)
        )
        return KINDS[kind].make(frames, calibs, settings)


def _read_calibs(repository: Repository, needs: Sequence[str], at: Mapping[str, Any]) -> dict[str, Any]:
    """Read the calibrations of these types that hold at a time; those that the repository never had are left out."""
    found = {}
    for name in needs:
        keys = {key: at[key] for key in (*repository.policy.keys(name), "mjd") if key in at}
        entry = repository.entry(name, **keys)
        if entry is None and "band" in keys:
            entry = repository.entry(name, **(keys | {"band": "any"}))
        if entry is not None:
            found[name] = read_stored(repository, entry)
    return found


def _isr_calibs(found: Mapping[str, Any]) -> IsrCalibs:
    known = {key: value for key, value in found.items() if key in ("bias", "dark", "flat", "crosstalk", "linearity")}
    defects, kernel = found.get("defects"), found.get("bfKernel")
    shapes = [found[key].shape for key in ("bias", "dark", "flat") if key in found]
    return IsrCalibs(
        **known,
        transfer=found.get("ptc"),
        defects=None if defects is None or not shapes else defect_map(defects, shapes[0]),
        brighter_fatter=None if kernel is None else np.asarray(kernel, np.float64),
    )


def _of_master(master: Master) -> list[Product]:
    return [Product(type=master.report.kind, value=master.image, report=master.report, noise=master.noise)]


def _bias(frames: RawFrames, calibs: IsrCalibs, settings: CalibSettings) -> list[Product]:
    return _of_master(make_bias(frames, settings.isr, settings.bias))


def _dark(frames: RawFrames, calibs: IsrCalibs, settings: CalibSettings) -> list[Product]:
    return _of_master(make_dark(frames, calibs, settings.isr, settings.dark))


def _flat(frames: RawFrames, calibs: IsrCalibs, settings: CalibSettings) -> list[Product]:
    return _of_master(make_flat(frames, calibs, settings.isr, settings.flat))


def _fringe(frames: RawFrames, calibs: IsrCalibs, settings: CalibSettings) -> list[Product]:
    with tempfile.TemporaryDirectory(prefix="apstream-") as folder:

        def scratch(shape: tuple[int, ...]) -> F32:
            return np.memmap(Path(folder) / "sky", np.float32, "w+", shape=shape)

        return _of_master(make_fringe(frames, calibs, settings.isr, settings.fringe, scratch=scratch))


def _crosstalk(frames: RawFrames, calibs: IsrCalibs, settings: CalibSettings) -> list[Product]:
    made = make_crosstalk(frames, calibs, settings.isr, settings.crosstalk)
    return [Product(type="crosstalk", value=made.crosstalk, report=made.report)]


def _ptc(frames: RawFrames, calibs: IsrCalibs, settings: CalibSettings) -> list[Product]:
    made = make_ptc(frames, calibs, settings.isr, settings.ptc)
    products = [Product(type="ptc", value=made.transfer, report=made.report)]
    if made.linearity is not None:
        report = replace(made.report, kind="linearity")
        products.append(Product(type="linearity", value=made.linearity, report=report))
    if made.kernel is not None:
        products.append(Product(type="bfKernel", value=made.kernel, report=replace(made.report, kind="bfKernel")))
    return products


#: What ISR applies before there are fringes.
_ALL = ("bias", "dark", "flat", "defects", "crosstalk", "linearity", "bfKernel", "ptc")
#: The products, by the name of their command.
KINDS: dict[str, _Kind] = {
    "bias": _Kind(make=_bias, observed=("bias",)),
    "dark": _Kind(make=_dark, observed=("dark",), needs=("bias", "linearity", "ptc")),
    "flat": _Kind(make=_flat, observed=("flat",), needs=("bias", "dark", "linearity", "ptc"), by_band=True),
    "fringe": _Kind(make=_fringe, observed=("science",), needs=_ALL, by_band=True),
    "crosstalk": _Kind(make=_crosstalk, observed=("science",), needs=("bias",)),
    "ptc": _Kind(make=_ptc, observed=("flat",), needs=("bias", "linearity")),
}
