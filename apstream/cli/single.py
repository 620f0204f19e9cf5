"""``apstream isr``, ``characterize`` and ``calibrate``: one stage on one file, or on the frames of a repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Source = Annotated[str, typer.Argument(help="A repository, or one FITS file")]
Out = Annotated[Path | None, typer.Option("--out", help="For a file: where to write")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="For a repository: selection, e.g. 'visit=1^2'")]
Rerun = Annotated[str, typer.Option(help="For a repository: rerun for the products")]
Output = Annotated[str, typer.Option(help="For a repository: repository elsewhere for the products")]
ReplaceRun = Annotated[bool, typer.Option(help="Go on with other settings than this rerun began with")]
Override = Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. characterize.psf.degree=1")]
PsfFile = Annotated[Path | None, typer.Option("--psf", help="The PSF to use (one of our files, or a FITS image)")]
SettingsFile = Annotated[list[Path] | None, typer.Option("-C", help="Settings file (YAML)")]


def isr(
    source: Source,
    out: Out = None,
    camera: Annotated[str, typer.Option(help="For a file: camera name or YAML file")] = "",
    bias: Annotated[Path | None, typer.Option(help="For a file: master bias")] = None,
    dark: Annotated[Path | None, typer.Option(help="For a file: master dark, ADU per second")] = None,
    flat: Annotated[Path | None, typer.Option(help="For a file: master flat")] = None,
    fringe: Annotated[Path | None, typer.Option(help="For a file: fringe pattern")] = None,
    bf_kernel: Annotated[Path | None, typer.Option(help="For a file: brighter-fatter kernel")] = None,
    defects: Annotated[Path | None, typer.Option(help="For a file: bad pixels, map (nonzero) or boxes")] = None,
    crosstalk: Annotated[Path | None, typer.Option(help="For a file: crosstalk (YAML)")] = None,
    linearity: Annotated[Path | None, typer.Option(help="For a file: linearity (YAML)")] = None,
    ptc: Annotated[Path | None, typer.Option(help="For a file: measured gains and read noises (YAML)")] = None,
    id: Ids = None,
    rerun: Rerun = "",
    output: Output = "",
    replace_run: ReplaceRun = False,
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Remove the instrument's signature.

    apstream isr RAW.fits --camera decam --flat flat.fits --out isr.fits

    apstream isr REPO --id visit=7 --rerun first     (writes postISRCCD)
    """
    from apstream.service.single import isr_file

    if _is_repository(source):
        _stage("isr", source, id, (rerun, output, replace_run), (settings, override))
        return
    _only_in_repository(id, rerun, output, replace_run)
    given = {"bias": bias, "dark": dark, "flat": flat, "fringe": fringe, "bfKernel": bf_kernel}
    given |= {"defects": defects, "crosstalk": crosstalk, "linearity": linearity, "ptc": ptc}
    files = {name: path for name, path in given.items() if path}
    chosen = _settings(camera or None, settings, override)
    out = _needed(out, "--out")
    exposure = isr_file(Path(source), out, _needed(camera, "--camera"), files, chosen)
    typer.echo(f"{exposure.info.id} -> {out}")
    for line in _numbers("isr", exposure.metrics):
        typer.echo(f"  {line}")


def characterize(
    source: Source,
    out: Out = None,
    psf: PsfFile = None,
    id: Ids = None,
    rerun: Rerun = "",
    output: Output = "",
    replace_run: ReplaceRun = False,
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Find sky, cosmic rays, stars and PSF.

    apstream characterize ANY.fits --out folder     (characterized.fits, sources.parquet)

    apstream characterize REPO --id visit=7 --rerun first     (postISRCCD to icExp and icSrc)
    """
    from apstream.service.single import characterize_file

    if _is_repository(source):
        _stage("characterize", source, id, (rerun, output, replace_run), (settings, override), psf)
        return
    _only_in_repository(id, rerun, output, replace_run)
    out = _needed(out, "--out")
    found = characterize_file(Path(source), out, _settings(None, settings, override, psf), psf)
    typer.echo(f"{len(found.stars)} sources, PSF FWHM {found.psf.fwhm():.2f} pixels -> {out}")


def calibrate(
    source: Source,
    out: Out = None,
    refcat: Annotated[
        Path | None, typer.Option(help="For a file: reference catalogue (FITS, CSV, Parquet: ra dec magnitudes)")
    ] = None,
    photometry_refcat: Annotated[
        Path | None, typer.Option(help="For a file: catalogue of magnitudes, where --refcat is for positions alone")
    ] = None,
    psf: PsfFile = None,
    id: Ids = None,
    rerun: Rerun = "",
    output: Output = "",
    replace_run: ReplaceRun = False,
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Calibrate on a catalogue; write calexp and source list in nJy.

    apstream calibrate ANY.fits --refcat stars.csv --out folder     (what was not characterized is, first)

    apstream calibrate REPO --id visit=7 --rerun first     (icExp to calexp and src)
    """
    from apstream.service.single import calibrate_file

    if _is_repository(source):
        _refuse("a file", "give it to apstream characterize", psf=psf)
        _stage("calibrate", source, id, (rerun, output, replace_run), (settings, override))
        return
    _only_in_repository(id, rerun, output, replace_run)
    out = _needed(out, "--out")
    chosen = _settings(None, settings, override, psf)
    catalog = _needed(refcat, "--refcat")
    calexp = calibrate_file(Path(source), out, catalog, chosen, photometry_refcat=photometry_refcat, psf=psf)
    rms = calexp.metrics["calibrate.astrometry_rms_arcsec"]
    typer.echo(
        f"{len(calexp.stars)} sources, zero point {calexp.photo_calib.zero_point:.3f}, "
        f"astrometric scatter {rms:.3f} arcsec -> {out}"
    )


def _numbers(stage: str, metrics: Mapping[str, float]) -> list[str]:
    """Return the numbers of a stage: a line for each, and a line for all those of one amplifier."""
    groups: dict[str, list[str]] = {}
    for name in sorted(metrics):
        head, *rest = name.split(".", maxsplit=2)
        if head == stage:
            of, key = (rest[0], rest[1]) if rest[1:] else ("", rest[0])
            groups.setdefault(of, []).append(f"{key} {metrics[name]:.6g}")
    whole = groups.pop("", [])
    return [*(f"{of}: {', '.join(numbers)}" for of, numbers in groups.items()), *whole]


def _is_repository(source: str) -> bool:
    from apstream.repo.repository import is_repository

    return is_repository(source)


def _settings(
    camera: str | None, files: list[Path] | None, overrides: list[str] | None, psf: Path | None = None
) -> Any:
    from apstream.service.run_settings import stage_settings
    from apstream.service.single import SingleSettings, with_psf

    chosen = stage_settings(SingleSettings, camera, files or [], overrides or [])
    return with_psf(chosen) if psf else chosen


def _needed(value: Any, option: str) -> Any:
    from apstream.errors import BadSettings

    if not value:
        raise BadSettings("needed for a file", where=option, remedy="or name a repository instead of the file")
    return value


def _refuse(scope: str, remedy: str, **given: Any) -> None:
    """Refuse options that mean nothing here, rather than pass over them."""
    from apstream.errors import BadSettings

    for name, value in given.items():
        if value:
            raise BadSettings(f"for {scope} only", where=f"--{name.replace('_', '-')}", remedy=remedy)


def _only_in_repository(id: list[str] | None, rerun: str, output: str, replace_run: bool) -> None:
    remedy = "leave it out, or name a repository"
    _refuse("a repository", remedy, id=id, rerun=rerun, output=output, replace_run=replace_run)


def _stage(
    stage: str,
    root: str,
    ids: list[str] | None,
    places: tuple[str, str, bool],
    settings: Any,
    psf: Path | None = None,
) -> None:
    from apstream.cli.run import show_progress, show_summary
    from apstream.pipeline.config import PixelConfig
    from apstream.repo.repository import Repository
    from apstream.service.batch import select_raws
    from apstream.service.outputs import BatchPlaces
    from apstream.service.run_settings import stage_settings
    from apstream.service.single import with_psf
    from apstream.service.stage_job import run_stage

    files, overrides = settings
    repository = Repository(root)
    config = stage_settings(PixelConfig, repository.camera, files or [], overrides or [])
    config = with_psf(config) if psf else config
    where, jobs = BatchPlaces(root=root, rerun=places[0], output=places[1]), select_raws(repository, ids or [])
    with show_progress(stage, len(jobs)) as on_end:
        results = run_stage(stage, where, jobs, config, replace_run=places[2], psf=psf, on_end=on_end)
    show_summary(results, counted=() if stage == "isr" else ("sources",))
    raise typer.Exit(min(sum(not result.good for result in results), 125))
