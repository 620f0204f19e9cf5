"""The pixel half: a raw frame, or a pair of plain images, becomes DIA sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apstream.alerts.cutouts import render
from apstream.arrays.types import Records
from apstream.errors import naming
from apstream.model.calibs import IsrCalibs
from apstream.model.cutouts import Cutouts
from apstream.model.exposures import (
    CalExp,
    CharacterizedExposure,
    DifferenceImage,
    RawExposure,
    Template,
)
from apstream.model.external import ExternalImage
from apstream.model.products import KnownObjects, PixelProducts, SkyCircle
from apstream.model.refcat import RefCat, References
from apstream.pipeline.config import DifferenceConfig, PairConfig, PixelConfig
from apstream.pipeline.report import counts
from apstream.pipeline.stages import stages_of
from apstream.pipeline.watch import Watch, unwatched
from apstream.tasks.astrometry import with_first_guess
from apstream.tasks.external import enter
from apstream.tasks.register import calibrate_to_reference, nominal_calexp
from apstream.tasks.template import TemplateInput

__all__ = ["PairResult", "PixelInputs", "PixelResult", "calibrate_raw", "find_dia_sources", "subtract_pair"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PixelInputs:
    """What a raw frame needs beside itself.

    `reference` fixes positions and fluxes: a catalogue, one for each, or an image that the frame is registered on.
    """

    calibs: IsrCalibs
    reference: RefCat | References | CalExp
    templates: Sequence[TemplateInput]
    known: KnownObjects


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PairResult:
    """Two images subtracted: the stages' images and the sources measured on the difference."""

    science: CalExp | CharacterizedExposure
    template: Template
    difference: DifferenceImage
    dia_sources: Records


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PixelResult:
    """All that came of one raw frame; `products` is what leaves the process."""

    calexp: CalExp
    pair: PairResult
    products: PixelProducts


def find_dia_sources(
    raw: RawExposure, inputs: PixelInputs, config: PixelConfig, watch: Watch = unwatched
) -> PixelResult:
    """Turn a raw frame into DIA sources with forced photometry and cutouts."""
    stages = stages_of(config.replace)
    calexp = calibrate_raw(raw, inputs.calibs, inputs.reference, config, watch)
    pair = _difference(calexp, inputs.templates, config, watch)
    with watch("forced"):
        forced = stages.forced(inputs.known, pair.difference, calexp, config.forced)
    with watch("cutouts"):
        y, x = pair.dia_sources["y"], pair.dia_sources["x"]
        cutouts = stages.cutouts(pair.difference, calexp, pair.template, y, x, config.cutouts)
        products = _products(calexp, pair, forced, cutouts)
    return PixelResult(calexp=calexp, pair=pair, products=products)


def calibrate_raw(
    raw: RawExposure,
    calibs: IsrCalibs,
    reference: RefCat | References | CalExp | None,
    config: PixelConfig,
    watch: Watch = unwatched,
) -> CalExp:
    """Turn a raw frame into a calexp; without a reference it becomes one itself, in instrumental flux."""
    stages = stages_of(config.replace)
    with watch("isr"):
        exposure = stages.isr(raw, calibs, config.isr)
    with watch("characterize"):
        characterized = stages.characterize(exposure, config.characterize)
    with watch("calibrate"):
        match reference:
            case RefCat() | References():
                guessed = with_first_guess(characterized, config.calibrate.astrometry, raw.detector.pixel_scale_arcsec)
                return stages.calibrate(guessed, reference, config.calibrate)
            case CalExp():
                return calibrate_to_reference(characterized, reference, config.registration)
            case None:
                return nominal_calexp(characterized, pixel_scale_arcsec=raw.detector.pixel_scale_arcsec)


def subtract_pair(
    science: ExternalImage,
    template: ExternalImage,
    refcat: RefCat | References | None,
    config: PairConfig,
    watch: Watch = unwatched,
) -> PairResult:
    """Subtract one plain image from another and measure what changed."""
    stages = stages_of(config.replace)
    with watch("characterize"), naming(science.path):
        characterized = stages.characterize(enter(science, config.external), config.characterize)
    with watch("characterize template"), naming(template.path):
        reference = stages.characterize(enter(template, config.external), config.characterize_template)
    calibrated: CalExp | CharacterizedExposure = characterized
    if refcat is not None:
        with watch("calibrate"), naming(f"{science.path} with {refcat.origin}"):
            calibrated = stages.calibrate(characterized, refcat, config.calibrate)
    return _difference(calibrated, [TemplateInput.from_image(reference, template.path)], config, watch)


def _difference(
    science: CalExp | CharacterizedExposure,
    templates: Sequence[TemplateInput],
    config: DifferenceConfig,
    watch: Watch,
) -> PairResult:
    stages = stages_of(config.replace)
    with watch("template"):
        template = stages.template(templates, science, config.template)
    with watch("subtract"):
        difference = stages.subtract(science, template, config.subtract)
    with watch("detect"):
        detections = stages.detect(difference, config.detect)
    difference = detections.difference  # flat, its variance rescaled, DETECTED set
    with watch("measure"):
        dia_sources = stages.measure(detections, difference, science, template, config.measure)
    return PairResult(science=science, template=template, difference=difference, dia_sources=dia_sources)


def _products(calexp: CalExp, pair: PairResult, forced: Records, cutouts: Cutouts) -> PixelProducts:
    found = {"template": pair.template, "measure": pair.dia_sources, "forced": forced, "cutouts": cutouts}
    metrics = {name: value for stage, result in found.items() for name, value in counts(stage, result).items()}
    return PixelProducts(
        info=calexp.info,
        dia_sources=pair.dia_sources,
        forced=forced,
        cutouts=render(cutouts),
        region=SkyCircle(*calexp.wcs.circle(calexp.box)),
        metrics={**calexp.metrics, **pair.difference.metrics, **metrics},
    )
