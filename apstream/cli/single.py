"""``apstream isr``, ``characterize`` and ``calibrate``: one stage on one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Override = Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. characterize.psf.degree=1")]
SettingsFile = Annotated[list[Path] | None, typer.Option("-C", help="Settings file (YAML)")]


def isr(
    raw: Annotated[Path, typer.Argument(help="Raw frame, FITS")],
    out: Annotated[Path, typer.Option("--out", help="File to write, in electrons with mask and variance")],
    camera: Annotated[str, typer.Option(help="Camera name, or the path of a camera YAML file")],
    bias: Annotated[Path | None, typer.Option(help="Master bias")] = None,
    dark: Annotated[Path | None, typer.Option(help="Master dark, ADU per second")] = None,
    flat: Annotated[Path | None, typer.Option(help="Master flat")] = None,
    defects: Annotated[Path | None, typer.Option(help="Bad-pixel map, nonzero is bad")] = None,
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Remove the instrument's signature of one raw frame."""
    from apstream.service.single import SingleSettings, isr_file
    from apstream.settings import load_settings

    chosen = load_settings(SingleSettings, files=settings or [], overrides=override or [])
    given = {"bias": bias, "dark": dark, "flat": flat, "defects": defects}
    exposure = isr_file(raw, out, camera, {name: path for name, path in given.items() if path}, chosen)
    typer.echo(f"{exposure.info.id} -> {out}")


def characterize(
    image: Annotated[Path, typer.Argument(help="Any FITS image, or the output of apstream isr")],
    out: Annotated[Path, typer.Option("--out", help="Folder for characterized.fits and sources.parquet")],
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Find sky, cosmic rays, stars and PSF of one image; write its source list."""
    from apstream.service.single import SingleSettings, characterize_file
    from apstream.settings import load_settings

    chosen = load_settings(SingleSettings, files=settings or [], overrides=override or [])
    found = characterize_file(image, out, chosen)
    typer.echo(f"{len(found.stars)} sources, PSF FWHM {found.psf.fwhm():.2f} pixels -> {out}")


def calibrate(
    image: Annotated[Path, typer.Argument(help="Any FITS image with a rough WCS, or the output of apstream isr")],
    refcat: Annotated[Path, typer.Option(help="Reference catalogue (FITS, CSV, Parquet: ra dec magnitudes)")],
    out: Annotated[Path, typer.Option("--out", help="Folder for calexp.fits and sources.parquet")],
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Characterize one image and calibrate it on a catalogue; write the calexp and its source list in nJy."""
    from apstream.service.single import SingleSettings, calibrate_file
    from apstream.settings import load_settings

    chosen = load_settings(SingleSettings, files=settings or [], overrides=override or [])
    calexp = calibrate_file(image, out, refcat, chosen)
    rms = calexp.metrics["calibrate.astrometry_rms_arcsec"]
    typer.echo(
        f"{len(calexp.stars)} sources, zero point {calexp.photo_calib.zero_point:.3f}, "
        f"astrometric scatter {rms:.3f} arcsec -> {out}"
    )
