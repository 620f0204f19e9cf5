"""``apstream isr``, ``characterize`` and ``calibrate``: one stage on one file, or on the frames of a repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from apstream.cli.options import REQUIRED, SettingsFile, as_command
from apstream.words import counted

_Source = Annotated[str, typer.Argument(help="A repository, or one FITS file")]
_Out = Annotated[Path | None, typer.Option("--out", help="For a file: where to write")]
_Ids = Annotated[list[str] | None, typer.Option("--id", help="For a repository: selection, e.g. 'visit=1^2'")]
_Rerun = Annotated[str, typer.Option(help="For a repository: rerun for the products")]
_Output = Annotated[str, typer.Option(help="For a repository: repository elsewhere for the products")]
_ReplaceRun = Annotated[bool, typer.Option(help="Go on with other settings than this rerun began with")]
_Override = Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. characterize.psf.degree=1")]
_PsfFile = Annotated[Path | None, typer.Option("--psf", help="The PSF to use (one of our files, or a FITS image)")]
_Camera = Annotated[str, typer.Option(help="For a file: camera name or YAML file")]
_Refcat = Annotated[
    Path | None, typer.Option(help="For a file: reference catalogue (FITS, CSV, Parquet: ra dec magnitudes)")
]
_PhotometryRefcat = Annotated[
    Path | None, typer.Option(help="For a file: catalogue of magnitudes, where --refcat is for positions alone")
]


def _calib(text: str) -> Any:
    return Annotated[Path | None, typer.Option(help=f"For a file: {text}")]


_COMMON: dict[str, tuple[Any, Any]] = {
    "id": (_Ids, None),
    "rerun": (_Rerun, ""),
    "output": (_Output, ""),
    "replace_run": (_ReplaceRun, False),
    "override": (_Override, None),
    "settings": (SettingsFile, None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """The options that all of these commands have."""

    source: str
    out: Path | None
    id: list[str] | None
    rerun: str
    output: str
    replace_run: bool
    override: list[str] | None
    settings: list[Path] | None

    @property
    def place(self) -> Path:
        """Where the products of a file go; BadSettings if it is not said."""
        found: Path = _needed(self.out, "--out")
        return found

    def build(self, camera: str | None = None, psf: Path | None = None) -> Any:
        """Return the settings for a file."""
        from apstream.service.run_settings import stage_settings
        from apstream.service.single import SingleSettings, with_psf

        chosen = stage_settings(SingleSettings, camera, self.settings or [], self.override or [])
        return with_psf(chosen) if psf else chosen


def _command(**own: tuple[Any, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function: it has the common options, which it gets as one `_Given`, and its `own`."""
    options = {"source": (_Source, REQUIRED), "out": (_Out, None)} | own | _COMMON
    return lambda function: as_command(function, _Given, options)


@_command(
    camera=(_Camera, ""),
    bias=(_calib("master bias"), None),
    dark=(_calib("master dark, ADU per second"), None),
    flat=(_calib("master flat"), None),
    fringe=(_calib("fringe pattern"), None),
    bf_kernel=(_calib("brighter-fatter kernel"), None),
    defects=(_calib("bad pixels, map (nonzero) or boxes"), None),
    crosstalk=(_calib("crosstalk (YAML)"), None),
    linearity=(_calib("linearity (YAML)"), None),
    ptc=(_calib("measured gains and read noises (YAML)"), None),
)
def isr(given: _Given, camera: str, **calibs: Path | None) -> None:
    """Remove the instrument's signature.

    apstream isr RAW.fits --camera decam --flat flat.fits --out isr.fits

    apstream isr REPO --id visit=7 --rerun first     (writes postISRCCD)
    """
    from apstream.service.single import isr_file
    from apstream.service.targets import spare_inputs

    if _is_repository(given.source):
        _refuse("a file", "leave it out: a repository knows its camera and calibrations", camera=camera, **calibs)
        _stage("isr", given)
        return
    _only_in_repository(given)
    spare_inputs([given.place], given.settings or [])
    names = {"bf_kernel": "bfKernel"}
    files = {names.get(name, name): path for name, path in calibs.items() if path}
    chosen = given.build(camera or None)
    exposure = isr_file(Path(given.source), given.place, _needed(camera, "--camera"), files, chosen)
    typer.echo(f"{exposure.info.id} -> {given.place}")
    for line in _numbers("isr", exposure.metrics):
        typer.echo(f"  {line}")


@_command(psf=(_PsfFile, None))
def characterize(given: _Given, psf: Path | None) -> None:
    """Find sky, cosmic rays, stars and PSF.

    apstream characterize ANY.fits --out folder     (characterized.fits, sources.parquet)

    apstream characterize REPO --id visit=7 --rerun first     (postISRCCD to icExp and icSrc)
    """
    from apstream.service.single import CHARACTERIZED, characterize_file
    from apstream.service.targets import spare_inputs_in

    if _is_repository(given.source):
        _stage("characterize", given, psf)
        return
    _only_in_repository(given)
    spare_inputs_in(given.place, CHARACTERIZED, given.settings or [])
    found = characterize_file(Path(given.source), given.place, given.build(psf=psf), psf)
    typer.echo(f"{counted(len(found.stars), 'source')}, PSF FWHM {found.psf.fwhm():.2f} pixels -> {given.place}")


@_command(refcat=(_Refcat, None), photometry_refcat=(_PhotometryRefcat, None), psf=(_PsfFile, None))
def calibrate(given: _Given, refcat: Path | None, photometry_refcat: Path | None, psf: Path | None) -> None:
    """Calibrate on a catalogue; write calexp and source list in nJy.

    apstream calibrate ANY.fits --refcat stars.csv --out folder     (what was not characterized is, first)

    apstream calibrate REPO --id visit=7 --rerun first     (icExp to calexp and src; isr and characterize go before)
    """
    from apstream.service.single import CALIBRATED, calibrate_file
    from apstream.service.targets import spare_inputs_in

    if _is_repository(given.source):
        _refuse("a file", "give it to apstream characterize", psf=psf)
        catalogs = {"refcat": refcat, "photometry_refcat": photometry_refcat}
        _refuse("a file", "ingest it and name it: -c calibrate.astrometry_refcat=NAME", **catalogs)
        _stage("calibrate", given)
        return
    _only_in_repository(given)
    spare_inputs_in(given.place, CALIBRATED, given.settings or [])
    catalog, settings = _needed(refcat, "--refcat"), given.build(psf=psf)
    calexp = calibrate_file(
        Path(given.source), given.place, catalog, settings, photometry_refcat=photometry_refcat, psf=psf
    )
    rms = calexp.metrics["calibrate.astrometry_rms_arcsec"]
    typer.echo(
        f"{counted(len(calexp.stars), 'source')}, zero point {calexp.photo_calib.zero_point:.3f}, "
        f"astrometric scatter {rms:.3f} arcsec -> {given.place}"
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


def _only_in_repository(given: _Given) -> None:
    options = {"id": given.id, "rerun": given.rerun, "output": given.output, "replace_run": given.replace_run}
    _refuse("a repository", "leave it out, or name a repository", **options)


def _stage(stage: str, given: _Given, psf: Path | None = None) -> None:
    from apstream.cli.run import show_progress, show_summary
    from apstream.pipeline.config import PixelConfig
    from apstream.repo.repository import Repository
    from apstream.service.batch import select_raws
    from apstream.service.outputs import BatchPlaces
    from apstream.service.run_settings import stage_settings
    from apstream.service.single import with_psf
    from apstream.service.stage_job import run_stage

    _refuse("a file", "use --rerun or --output", out=given.out)
    repository = Repository(given.source)
    config = stage_settings(PixelConfig, repository.camera, given.settings or [], given.override or [])
    config = with_psf(config) if psf else config
    where = BatchPlaces(root=given.source, rerun=given.rerun, output=given.output)
    jobs = select_raws(repository, given.id or [])
    with show_progress(stage, len(jobs)) as on_end:
        results = run_stage(stage, where, jobs, config, replace_run=given.replace_run, psf=psf, on_end=on_end)
    show_summary(results, columns=() if stage == "isr" else ("sources",))
    raise typer.Exit(min(sum(not result.good for result in results), 125))
