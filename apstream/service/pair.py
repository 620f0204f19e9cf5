"""Two plain images, start to finish: gather, compute, save."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from apstream.errors import naming
from apstream.model.columns import DIA_SOURCE
from apstream.model.external import ExternalImage
from apstream.model.geometry import Box
from apstream.model.refcat import RefCat, References
from apstream.pipeline.config import PairConfig
from apstream.pipeline.pixels import PairResult, subtract_pair
from apstream.pipeline.watch import Watch, unwatched
from apstream.repo.atomic import atomic_path
from apstream.repo.formats.external import ExternalOptions, read_external
from apstream.repo.formats.fits import write_image
from apstream.repo.formats.parquet import write_records
from apstream.service.references import notes_on, read_references, region_of, warn_of
from apstream.service.targets import files_of, spare_inputs_in
from apstream.words import counted

__all__ = ["PRODUCTS", "PairSettings", "run_pair"]

PRODUCTS = ("difference.fits", "dia_sources.parquet")


class PairSettings(PairConfig):
    """Settings of ``apstream subtract``: the stages' and what the headers do not say."""

    image: ExternalOptions = Field(ExternalOptions(), description="What the headers of both images do not say")
    science_image: ExternalOptions = Field(ExternalOptions(), description="The same for the science image alone")
    template_image: ExternalOptions = Field(ExternalOptions(), description="The same for the template alone")
    magnitude: str | None = Field(None, description="Magnitude column of the reference catalogue")


def run_pair(
    science: Path,
    template: Path,
    out: Path,
    refcat: Path | None,
    settings: PairSettings,
    watch: Watch = unwatched,
    *,
    photometry_refcat: Path | None = None,
) -> str:
    """Subtract two FITS files and write ``difference.fits`` and ``dia_sources.parquet`` to `out`.

    `photometry_refcat` is the catalogue of magnitudes, where it is not that of positions.

    Returns
    -------
    str
        A summary in one line.

    Raises
    ------
    BadSettings
        If `out` holds a file that is read and would be written over.
    StorageUnavailable
        If `out` is a file or cannot be written.
    """
    further = files_of(settings.image, settings.science_image, settings.template_image)
    spare_inputs_in(out, PRODUCTS, [science, template, refcat, photometry_refcat, *further])
    with watch("read"):
        image = read_external(science, _options(settings.image, settings.science_image))
        reference = read_external(template, _options(settings.image, settings.template_image))
        catalog = _catalog(refcat, photometry_refcat, image, settings) if refcat else None
    result = _subtract(image, reference, catalog, settings, watch)
    with watch("write"):
        _write(out, result)
    negative = int(result.dia_sources["isNegative"].sum())
    return f"{counted(len(result.dia_sources), 'DIA source')} ({negative} negative)"


def _catalog(
    refcat: Path, photometry: Path | None, image: ExternalImage, settings: PairSettings
) -> RefCat | References:
    region = region_of((refcat, photometry), image.wcs, Box.from_shape(image.pixels.shape), settings.calibrate)
    found = read_references(
        refcat, photometry, image.info, settings.calibrate, region=region, magnitude=settings.magnitude
    )
    warn_of(notes_on(found, image.info.band))
    return found


def _write(out: Path, result: PairResult) -> None:
    """Write both files or neither, so that they always belong together."""
    with atomic_path(out / PRODUCTS[0]) as image, atomic_path(out / PRODUCTS[1]) as table:
        write_image(image, result.difference)
        write_records(table, result.dia_sources, DIA_SOURCE)


def _options(both: ExternalOptions, one: ExternalOptions) -> ExternalOptions:
    return ExternalOptions(**{**both.model_dump(exclude_unset=True), **one.model_dump(exclude_unset=True)})


def _subtract(
    science: ExternalImage,
    template: ExternalImage,
    refcat: RefCat | References | None,
    settings: PairSettings,
    watch: Watch,
) -> PairResult:
    with naming(f"{science.path} - {template.path}"):
        return subtract_pair(science, template, refcat, settings, watch)
