"""One stage on one file: what ``apstream isr``, ``characterize`` and ``calibrate`` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, Field

from apstream import __version__
from apstream.cameras import load_camera
from apstream.errors import ApstreamError, BadCatalog, BadSettings, naming
from apstream.model.calibs import IsrCalibs, defect_map
from apstream.model.exposures import CalExp, CharacterizedExposure, Exposure
from apstream.model.sources import source_catalog
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.stages import stages_of
from apstream.repo.atomic import atomic_path
from apstream.repo.checksums import checksum_of
from apstream.repo.formats.external import ExternalOptions, read_external
from apstream.repo.formats.fits import read_characterized, read_exposure, write_exposure, write_image
from apstream.repo.formats.hdus import open_fits
from apstream.repo.formats.raw import read_raw
from apstream.repo.formats.registry import FITS, get_format
from apstream.repo.formats.single import read_any_psf
from apstream.service.calib_files import read_calibs, require_usable
from apstream.service.references import notes_on, read_references, region_of, warn_of
from apstream.service.targets import files_of, require_ending, spare_inputs, spare_inputs_in
from apstream.tasks.external import ExternalConfig, enter
from apstream.tasks.isr import BrighterFatterConfig, IsrConfig
from apstream.tasks.isr_fringe import FringeConfig

_Settings = TypeVar("_Settings", bound=PixelConfig)

__all__ = [
    "CALIBRATED",
    "CHARACTERIZED",
    "SingleSettings",
    "calibrate_file",
    "characterize_file",
    "isr_file",
    "with_psf",
]

_SOURCES = "sources.parquet"
#: What the commands of folders write there.
CHARACTERIZED, CALIBRATED = ("characterized.fits", _SOURCES), ("calexp.fits", _SOURCES)


class SingleSettings(PixelConfig):
    """Settings of the single stages: the pipeline's own, and what the headers do not say."""

    image: ExternalOptions = Field(ExternalOptions(), description="What the header of the image does not say")
    external: ExternalConfig = Field(ExternalConfig(), description="Variance and mask of external images")


def isr_file(raw: Path, out: Path, camera: str, calibs: dict[str, Path], settings: SingleSettings) -> Exposure:
    """Remove the instrument's signature of a raw file and write ``out``, in electrons.

    Parameters
    ----------
    calibs
        Files by dataset type: ``bias``, ``dark``, ``flat``, ``fringe``, ``bfKernel``, ``defects``, ``crosstalk``,
        ``linearity`` and ``ptc``, those that there are. A fringe pattern or a kernel that is given is also used.

    Raises
    ------
    BadSettings
        If `out` is one of the files that are read, or does not end like FITS.
    """
    spare_inputs([out], [raw, *calibs.values(), Path(camera)])
    require_ending(out, FITS, "the product of apstream isr")
    try:
        frame = read_raw(raw, load_camera(camera))
        config = _use_given(settings.isr, calibs, frame.info.band)
        found = _calibs(calibs, frame.detector.shape)
        if "isr" not in settings.replace:
            require_usable(found, frame.detector, str(raw), {name: str(path) for name, path in calibs.items()})
        exposure = stages_of(settings.replace).isr(frame, found, config)
    except ApstreamError as error:
        raise error.at(str(raw)) from error
    write_image(out, exposure, _history("isr", raw, calibs, config))
    return exposure


def characterize_file(
    image: Path, out: Path, settings: SingleSettings, psf: Path | None = None
) -> CharacterizedExposure:
    """Characterize an image; write ``characterized.fits`` (sky subtracted, with its PSF) and ``sources.parquet``.

    Parameters
    ----------
    psf
        A file with the PSF to use; the settings must then let it be supplied, as `with_psf` does.

    Raises
    ------
    BadSettings
        If `out` holds a file that is read and would be written over.
    StorageUnavailable
        If `out` is a file or cannot be written.
    """
    spare_inputs_in(out, CHARACTERIZED, [image, psf, *files_of(settings.image)])
    try:
        exposure = _supply(_read(image, settings), psf)
        found = stages_of(settings.replace).characterize(exposure, settings.characterize)
    except ApstreamError as error:
        raise error.at(str(image)) from error
    history = _history("characterize", image, {"psf": psf}, settings.characterize)
    _write_both(out, CHARACTERIZED, found, history)
    return found


def calibrate_file(
    image: Path,
    out: Path,
    refcat: Path,
    settings: SingleSettings,
    *,
    photometry_refcat: Path | None = None,
    psf: Path | None = None,
) -> CalExp:
    """Calibrate an image; write ``calexp.fits`` (nJy) and ``sources.parquet`` to `out`.

    What `characterize_file` wrote is taken as it is, any other image is characterized first. `photometry_refcat` is
    the catalogue of magnitudes, where it is not that of positions. StorageUnavailable refuses an `out` that is a file,
    BadSettings one where a file that is read would be written over.
    """
    read = [image, refcat, photometry_refcat, psf, *files_of(settings.image)]
    spare_inputs_in(out, CALIBRATED, read)
    stages = stages_of(settings.replace)
    try:
        if _type_of(image) == CharacterizedExposure.__name__:
            if psf is not None:
                raise BadSettings("the image has its PSF already", where="--psf", remedy="characterize with it")
            characterized = read_characterized(image)
        else:
            exposure = _supply(_read(image, settings), psf)
            characterized = stages.characterize(exposure, settings.characterize)
        info, wcs, box = characterized.info, characterized.wcs, characterized.box
        region = region_of((refcat, photometry_refcat), wcs, box, settings.calibrate)
        catalog = read_references(refcat, photometry_refcat, info, settings.calibrate, region=region)
        warn_of(notes_on(catalog, info.band))
        calexp = stages.calibrate(characterized, catalog, settings.calibrate)
    except BadCatalog:
        raise
    except ApstreamError as error:
        raise error.at(str(image)) from error
    catalogs = {"refcat": refcat, "photometry_refcat": photometry_refcat, "psf": psf}
    _write_both(out, CALIBRATED, calexp, _history("calibrate", image, catalogs, settings.calibrate))
    return calexp


def _calibs(files: dict[str, Path], shape: tuple[int, int]) -> IsrCalibs:
    found = read_calibs(files)
    defects, kernel = found.pop("defects", None), found.pop("bfKernel", None)
    with naming(str(files.get("defects", ""))):
        bad = None if defects is None else defect_map(defects, shape)
    return IsrCalibs(
        defects=bad,
        brighter_fatter=None if kernel is None else kernel.astype(np.float64),
        transfer=found.pop("ptc", None),
        **found,
    )


def _use_given(config: IsrConfig, files: dict[str, Path], band: str) -> IsrConfig:
    """Switch the steps on that are off by default and whose files are given."""
    use: dict[str, object] = {}
    if "fringe" in files:
        fringe = config.fringe or FringeConfig(bands=(band,))
        use["fringe"] = fringe.model_copy(update={"bands": (*fringe.bands, band)})
    if "bfKernel" in files:
        use["brighter_fatter"] = config.brighter_fatter or BrighterFatterConfig()
    return config.model_copy(update=use)


def _read(path: Path, settings: SingleSettings) -> Exposure:
    """Read an image: one of ours after ISR as it is, any other as an external one."""
    if _type_of(path) in (Exposure.__name__, CharacterizedExposure.__name__):
        return read_exposure(path)
    return enter(read_external(path, settings.image), settings.external)


def _type_of(path: Path) -> str:
    """Return which of our nouns a file holds, empty if it is another's."""
    with open_fits(path) as hdus:
        return str(hdus[0].header.get("APSTYPE", ""))


def with_psf(settings: _Settings) -> _Settings:
    """Return the settings with a supplied PSF; BadSettings if they ask for a Gaussian."""
    if settings.characterize.psf_source == "gaussian":
        raise BadSettings("--psf and psf_source=gaussian exclude each other", remedy="leave one of them out")
    chosen = settings.characterize.model_copy(update={"psf_source": "supplied"})
    return settings.model_copy(update={"characterize": chosen})


def _supply(exposure: Exposure, psf: Path | None) -> Exposure:
    return exposure if psf is None else replace(exposure, psf=read_any_psf(psf, exposure.box))


def _history(stage: str, image: Path, inputs: Mapping[str, Path | None], config: BaseModel) -> list[str]:
    """Return what is known of the image's making, and this stage: software, inputs, settings that are not default."""
    with open_fits(image) as hdus:
        before = [str(line) for line in hdus[0].header.get("HISTORY", [])] if "APSTYPE" in hdus[0].header else []
    files = {"image": image, **{name: path for name, path in inputs.items() if path is not None}}
    lines = [f"{name} {path.name} sha256 {checksum_of(path)}" for name, path in files.items() if path.is_file()]
    chosen = config.model_dump_json(exclude_defaults=True)
    return [*before, f"apstream {__version__} {stage}", *lines, *([f"{stage} {chosen}"] if chosen != "{}" else [])]


def _write_both(
    out: Path, names: tuple[str, str], image: CharacterizedExposure | CalExp, history: Sequence[str]
) -> None:
    """Write an image and its sources, or neither, so that they always belong together."""
    rows = source_catalog(image.stars, image.wcs, image.measured)
    kind = "stars" if isinstance(image, CalExp) else "instrumental_stars"
    with atomic_path(out / names[0]) as pixels, atomic_path(out / names[1]) as table:
        write_exposure(pixels, image, history)
        get_format(kind).write(table, rows)
