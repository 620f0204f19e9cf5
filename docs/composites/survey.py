"""The classes and functions that the policy beside this file names; a survey's own module would look like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from apstream.model.exposures import Background, Exposure
from apstream.model.photocalib import PhotoCalib
from apstream.model.wcs import SkyWcs


@dataclass(frozen=True, eq=False)
class ExtendedSources:
    """Sources with what makes positions and fluxes of them."""

    sources: np.ndarray
    wcs: SkyWcs
    calib: PhotoCalib

    def sky(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ra and dec of the sources, ICRS degrees."""
        return self.wcs.pixel_to_sky(self.sources["y"], self.sources["x"])


class OpenSources:
    """The same, filled by attributes."""

    sources: np.ndarray
    wcs: SkyWcs
    calib: PhotoCalib


class SourcesWithSetters:
    """The same, filled by setters."""

    def set_sources(self, sources: np.ndarray) -> None:
        """Take the sources."""
        self._sources = sources

    def set_wcs(self, wcs: SkyWcs) -> None:
        """Take the wcs."""
        self._wcs = wcs

    def set_calib(self, calib: PhotoCalib) -> None:
        """Take the calib."""
        self._calib = calib

    def get_sources(self) -> np.ndarray:
        """Return the sources."""
        return self._sources

    def get_wcs(self) -> SkyWcs:
        """Return the wcs."""
        return self._wcs

    def get_calib(self) -> PhotoCalib:
        """Return the calib."""
        return self._calib


@dataclass(frozen=True, eq=False)
class ExposureWithBackground:
    """An exposure and the background that was, or is to be, subtracted from it."""

    exposure: Exposure
    background: Background | None


@dataclass(frozen=True, eq=False)
class PointedExposure:
    """An exposure and the WCS that it shares with all others of its pointing."""

    exposure: Exposure
    wcs: SkyWcs


def blue_and_green(data_id: Mapping[str, Any], components: Mapping[str, Any], cls: Any) -> pa.Table:
    """Stack two catalogues, with a column that says which each row came from."""
    named = [table.append_column("colour", pa.array([name] * len(table))) for name, table in components.items()]
    return pa.concat_tables(named)
