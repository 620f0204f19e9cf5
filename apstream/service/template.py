"""The template of one exposure on its own pixels: which inputs it would have, and made."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from apstream.cameras import load_camera
from apstream.model.exposures import STAR_DTYPE, CalExp, RawExposure, Template
from apstream.model.photocalib import PhotoCalib
from apstream.model.products import KnownObjects
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.pixels import calibrate_raw
from apstream.pipeline.stages import stages_of
from apstream.repo.repository import Repository
from apstream.service.batch import BatchJob
from apstream.service.calexps import calexp_entry
from apstream.service.footprint import Footprint, overlap_fractions, template_entries, template_name
from apstream.service.gather import footprint_of, gather_inputs
from apstream.service.roots import read_raw_at
from apstream.service.save import data_id_of, raw_input
from apstream.tasks.template import TemplateInput

__all__ = ["TemplateSeen", "TemplateShop", "make_template_of", "show_template_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateShop:
    """Where templates come from and go to.

    Parameters
    ----------
    output
        Exposures are read through it, products go into it.
    templates
        Where coadds or calexps are.
    template_id
        Calexps to use instead of coadds.
    """

    output: Repository
    templates: Repository
    config: PixelConfig
    template_id: dict[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSeen:
    """A template: its inputs with the fraction of the exposure that each lies under, and all of them together.

    `location` is where it was written; empty if it was not made.
    """

    name: str
    inputs: list[tuple[str, float]] = field(default_factory=list)
    coverage: float
    location: str = ""


def show_template_of(shop: TemplateShop, job: BatchJob) -> TemplateSeen:
    """Say what the template of an exposure would be made of, by outlines; opens no pixels of them.

    Of a raw all are named that the margin of its header's pointing reaches; the fractions are of the detector itself.

    Raises
    ------
    NoTemplateOverlap
        If nothing lies under it.
    """
    entry = calexp_entry(shop.output, job.id)
    if entry is not None:
        own = where = Footprint.of(shop.output.peek(entry, "wcs"), shop.output.peek(entry, "box"))
        band = shop.output.peek(entry, "info").band
    else:
        raw = _raw(shop, job)
        where, band = footprint_of(raw), raw.info.band
        own = where if raw.wcs is None else Footprint.of(raw.wcs, raw.detector.box)
    entries = template_entries(shop.templates, where, band, shop.template_id, whom=str(job.id))
    fractions, together = overlap_fractions(shop.templates, entries, own)
    return TemplateSeen(
        name=str(job.id),
        inputs=[(template_name(one), share) for one, share in zip(entries, fractions, strict=True)],
        coverage=together,
    )


def make_template_of(shop: TemplateShop, job: BatchJob) -> TemplateSeen:
    """Make the template of an exposure and store it as ``deepDiff_templateExp``.

    An exposure without a calexp is calibrated first, as `apstream run` does, and not stored.

    Raises
    ------
    NoTemplateOverlap
        If nothing lies under it, or too little of it is covered.
    """
    with shop.output.tracking() as here, shop.templates.tracking() as there:
        from_calexp = calexp_entry(shop.output, job.id) is not None
        science, inputs = _from_calexp(shop, job) if from_calexp else _from_raw(shop, job)
        made = stages_of(shop.config.replace).template(inputs, science, shop.config.template)
    read = [*here, *(one for one in there if one not in here)]
    sources = read if from_calexp else [raw_input(shop.output, job.id, job.path), *read]
    product = _as_calexp(made, science)
    location = shop.output.put(product, "deepDiff_templateExp", inputs=sources, **data_id_of(science.info))
    shares = [(name, float("nan")) for name in made.inputs]
    return TemplateSeen(name=str(job.id), inputs=shares, coverage=made.coverage, location=location)


def _from_calexp(shop: TemplateShop, job: BatchJob) -> tuple[CalExp, list[TemplateInput]]:
    science: CalExp = shop.output.get("calexp", visit=job.id.visit, detector=job.id.detector)
    where = Footprint.of(science.wcs, science.box)
    entries = template_entries(shop.templates, where, science.info.band, shop.template_id, whom=str(job.id))
    return science, [
        TemplateInput.from_image(shop.templates.get_entry(entry), template_name(entry)) for entry in entries
    ]


def _from_raw(shop: TemplateShop, job: BatchJob) -> tuple[CalExp, list[TemplateInput]]:
    raw = _raw(shop, job)
    inputs = gather_inputs(
        shop.output,
        raw,
        KnownObjects.none(),
        templates=shop.templates,
        config=shop.config,
        template_id=shop.template_id,
    )
    return calibrate_raw(raw, inputs.calibs, inputs.reference, shop.config), list(inputs.templates)


def _as_calexp(made: Template, science: CalExp) -> CalExp:
    return CalExp(
        image=made.image,
        info=science.info,
        psf=made.psf,
        wcs=science.wcs,
        photo_calib=PhotoCalib(njy_per_unit=1.0, n_stars=0, relative=science.photo_calib.relative),
        stars=np.zeros(0, STAR_DTYPE),
        metrics={"template.coverage": made.coverage, "template.n_inputs": float(len(made.inputs))},
    )


def _raw(shop: TemplateShop, job: BatchJob) -> RawExposure:
    return read_raw_at(job.path, load_camera(shop.output.camera), detector=job.id.detector)
