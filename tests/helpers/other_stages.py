"""Stages of a user's own, named by the settings of tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from apstream.model.calibs import IsrCalibs
from apstream.model.exposures import CharacterizedExposure, Exposure, RawExposure
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.tasks.characterize import CharacterizeConfig, characterize
from apstream.tasks.isr import IsrConfig, isr


def doubled(exposure: Exposure, config: CharacterizeConfig) -> CharacterizedExposure:
    """Characterize as ever, of an image twice as bright."""
    image = exposure.image.scaled(2.0, exposure.image.unit)
    return characterize(replace(exposure, image=image), config)


def wrong_type(raw: Any, calibs: Any, config: Any) -> Any:
    """Return what is no exposure."""
    return isr(raw, calibs, config).image


def one_argument(raw: Any) -> Any:
    """Take less than a stage is given."""
    return raw


NOTHING = 3


def plain_isr(raw: RawExposure, calibs: IsrCalibs, config: IsrConfig) -> Exposure:
    """Subtract one level from each amplifier, apply its gain, and that is all: an ISR of a camera's own."""
    detector, whole = raw.detector, Box.from_shape(raw.pixels.shape)
    image = np.zeros(detector.shape, np.float32)
    for a in detector.amplifiers:
        assert a.overscan is not None
        level = np.median(raw.pixels[a.overscan.slices(whole)])
        image[a.target.slices(detector.box)] = (raw.pixels[a.data.slices(whole)] - level) * a.gain
    if calibs.flat is not None:
        image /= calibs.flat
    mask = np.where(calibs.defects, int(MaskPlane.BAD), 0) if calibs.defects is not None else np.zeros(image.shape)
    done = MaskedImage.make(image, mask, np.maximum(image, 0) + 25, "electron", detector.box)
    return Exposure(image=done, info=raw.info, wcs=raw.wcs, metrics={"isr.mine": 1.0})
