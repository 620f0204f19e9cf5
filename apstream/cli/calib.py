"""``apstream calib``: masters, gains and noise from raw calibration frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from apstream.cli.options import REQUIRED, SettingsFile, as_command
from apstream.words import counted

if TYPE_CHECKING:
    from apstream.service.calib_settings import CalibSettings

app = typer.Typer(help="Make calibration products from raw frames, of files or in a repository.", no_args_is_help=True)

_Sources = Annotated[list[str], typer.Argument(help="A repository, or raw FITS files")]
_Out = Annotated[Path | None, typer.Option("--out", help="For files: where to write")]
_CameraName = Annotated[str, typer.Option("--camera", help="For files: camera name or YAML file")]
_DetectorNumber = Annotated[int | None, typer.Option("--detector", help="For files that hold several detectors")]
_Ids = Annotated[
    list[str] | None, typer.Option("--id", help="For a repository: selection, e.g. 'day=20260101 detector=3'")
]
_Since = Annotated[str, typer.Option(help="For a repository: holds from this date (ISO, or MJD TAI); default: always")]
_Until = Annotated[str, typer.Option(help="... until this one; default: until the next begins")]
_ReplaceRun = Annotated[bool, typer.Option(help="Go on with other settings than this repository's last")]
_Override = Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. bias.combine.n_sigma=5")]
_Bias = Annotated[Path | None, typer.Option(help="For files: master bias")]
_Dark = Annotated[Path | None, typer.Option(help="For files: master dark, ADU per second")]
_Flat = Annotated[Path | None, typer.Option(help="For files: master flat")]
_Defects = Annotated[Path | None, typer.Option(help="For files: bad pixels, map (nonzero) or boxes")]
_Crosstalk = Annotated[Path | None, typer.Option(help="For files: crosstalk (YAML)")]
_Linearity = Annotated[Path | None, typer.Option(help="For files: linearity (YAML)")]
_Ptc = Annotated[Path | None, typer.Option(help="For files: gains and noises (YAML)")]
_LinearityKind = Annotated[
    Literal["polynomial", "table"] | None, typer.Option(help="Measure the linearity too, in this form")
]
_Kernel = Annotated[bool, typer.Option("--kernel", help="Make the brighter-fatter kernel too")]
_Repository = Annotated[list[str] | None, typer.Argument(help="A repository; without it: --dark, --flat and --out")]
_Flats = Annotated[list[Path] | None, typer.Option(help="For files: master flat; may be repeated")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """The options that all of these commands have."""

    sources: list[str] | None
    out: Path | None
    id: list[str] | None
    since: str
    until: str
    replace_run: bool
    override: list[str] | None
    settings: list[Path] | None

    def build(self, camera: str) -> CalibSettings:
        from apstream.service.calib_settings import load_calib

        return load_calib(camera, self.settings or [], self.override or [])


#: Calibrations that a command of raw frames may be given as files.
_FILES: dict[str, Any] = {
    "bias": _Bias,
    "dark": _Dark,
    "flat": _Flat,
    "defects": _Defects,
    "crosstalk": _Crosstalk,
    "linearity": _Linearity,
    "ptc": _Ptc,
}
_DEFAULTS: dict[str, Any] = {"camera": "", "kernel": False}
_COMMON: dict[str, tuple[Any, Any]] = {
    "id": (_Ids, None),
    "since": (_Since, ""),
    "until": (_Until, ""),
    "replace_run": (_ReplaceRun, False),
    "override": (_Override, None),
    "settings": (SettingsFile, None),
}


def _command(sources: Any = _Sources, **own: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function: it has the common options, which it gets as one `_Given`, and its `own`."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        empty = REQUIRED if sources is _Sources else None
        options = {"sources": (sources, empty), "out": (_Out, None)}
        options |= {name: (option, _DEFAULTS.get(name)) for name, option in own.items()}
        app.command()(as_command(function, _Given, options | _COMMON))
        return function

    return decorate


def _of_frames(*calibs: str, **own: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of raw frames, which takes these calibrations as files."""
    return _command(camera=_CameraName, detector=_DetectorNumber, **{name: _FILES[name] for name in calibs}, **own)


@_of_frames()
def bias(given: _Given, **files: Any) -> None:
    """Make the master bias.

    apstream calib bias raw/bias*.fits --camera mycam.yaml --out bias.fits

    apstream calib bias REPO --id day=20260101 --since 2026-01-01
    """
    _run("bias", given, **files)


@_of_frames("bias", "linearity", "ptc")
def dark(given: _Given, **files: Any) -> None:
    """Make the master dark, ADU per second.

    apstream calib dark raw/dark*.fits --camera mycam.yaml --bias bias.fits --out dark.fits

    apstream calib dark REPO --since 2026-01-01     (with the bias that the repository has)
    """
    _run("dark", given, **files)


@_of_frames("bias", "dark", "linearity", "ptc")
def flat(given: _Given, **files: Any) -> None:
    """Make the master flat of a band, mean one.

    apstream calib flat raw/flat_r*.fits --camera mycam.yaml --bias bias.fits --out flat_r.fits

    apstream calib flat REPO --id filter=r --since 2026-01-01
    """
    _run("flat", given, **files)


@_of_frames(*_FILES)
def fringe(given: _Given, **files: Any) -> None:
    """Make the fringe pattern of a band from sky frames.

    apstream calib fringe raw/sky_z*.fits --camera mycam.yaml --bias bias.fits --flat flat_z.fits --out fringe_z.fits

    apstream calib fringe REPO --id 'filter=z day=20260101' --since 2026-01-01
    """
    _run("fringe", given, **files)


@_of_frames("bias")
def crosstalk(given: _Given, **files: Any) -> None:
    """Measure the crosstalk between amplifiers on frames with bright stars.

    apstream calib crosstalk raw/science*.fits --camera mycam.yaml --out crosstalk.yaml

    apstream calib crosstalk REPO --id 'visit=1..50' --since 2026-01-01
    """
    _run("crosstalk", given, **files)


@_of_frames("bias", linearity=_LinearityKind, kernel=_Kernel)
def ptc(given: _Given, linearity: str | None, kernel: bool, **files: Any) -> None:
    """Measure gain, read noise and turn-off from pairs of flats, the linearity and the brighter-fatter kernel.

    apstream calib ptc raw/flat*.fits --camera kast-blue --out ptc.yaml

    apstream calib ptc REPO --id observation_type=flat^bias --linearity polynomial --since 2026-01-01
    """
    override = [*(given.override or []), *([f"ptc.linearity.kind={linearity}"] if linearity else [])]
    override += ["ptc.kernel.lags=5"] if kernel and not any("ptc.kernel." in word for word in override) else []
    _run("ptc", replace(given, override=override), **files)


@_command(_Repository, dark=_Dark, flat=_Flats)
def defects(given: _Given, dark: Path | None, flat: list[Path] | None) -> None:
    """Find hot and dead pixels and bad columns in master darks and flats.

    apstream calib defects --dark dark.fits --flat flat_r.fits --out defects.yaml

    apstream calib defects REPO --id detector=3 --since 2026-01-01     (of its masters valid then)
    """
    from apstream.errors import BadSettings
    from apstream.service.calib_defects import defects_of_files
    from apstream.service.targets import spare_inputs

    if given.sources:
        _in_repository("defects", given, given.sources)
    if given.out is None:
        raise BadSettings("needed for files", where="--out", remedy="or name a repository")
    spare_inputs([given.out], given.settings or [])
    _show(defects_of_files(dark, flat or [], given.out, given.build("")))


def _run(kind: str, given: _Given, **files: Any) -> None:
    from apstream.repo.repository import is_repository

    sources = given.sources or []
    if is_repository(sources[0]):
        _in_repository(kind, given, sources)
    _of_files(kind, given, **files)


def _of_files(kind: str, given: _Given, *, camera: str, detector: int | None, **calibs: Path | None) -> None:
    from apstream.errors import BadSettings
    from apstream.service.calib import make_of_files
    from apstream.service.targets import spare_inputs

    for option, value in (("--out", given.out), ("--camera", camera)):
        if not value:
            raise BadSettings("needed for files", where=option, remedy="or name a repository instead of the files")
    assert given.out is not None
    spare_inputs([given.out], given.settings or [])
    made = make_of_files(
        kind,
        [Path(source) for source in given.sources or []],
        given.out,
        camera=camera,
        calibs={name: path for name, path in calibs.items() if path},
        settings=given.build(camera),
        detector=detector,
    )
    _show(made)


def _in_repository(kind: str, given: _Given, roots: list[str]) -> NoReturn:
    from apstream.errors import BadSettings
    from apstream.repo.data_ids import parse_date
    from apstream.repo.repository import Repository
    from apstream.repo.validity import ALWAYS
    from apstream.service.calib import make_of_raws
    from apstream.service.calib_defects import defects_of_masters
    from apstream.service.calib_settings import settings_of
    from apstream.service.outputs import keep_record

    if len(roots) > 1:
        raise BadSettings("one repository, and nothing beside it", where=roots[1], remedy="select with --id")
    since, until = (
        parse_date(word) if word else end for word, end in zip((given.since, given.until), ALWAYS, strict=True)
    )
    repository = Repository(roots[0])
    chosen = given.build(repository.camera)
    run = keep_record(repository, f"calib-{kind}", settings_of(chosen, kind), {}, replace=given.replace_run)
    failed = 0
    make = defects_of_masters if kind == "defects" else partial(make_of_raws, kind)
    for outcome in make(repository, given.id or [], settings=chosen, valid=(since, until), run=run):
        _show(outcome)
        failed += outcome.error is not None
    raise typer.Exit(min(failed, 125))


def _show(outcome: Any) -> None:
    if outcome.error is not None:
        typer.echo(f"apstream: {outcome.what}: {type(outcome.error).__name__}: {outcome.error}", err=True)
        return
    for product, location in zip(outcome.products, outcome.locations, strict=True):
        report = product.report
        typer.echo(f"{outcome.what}: {product.type} of {counted(len(report.used), 'frame')} -> {location}")
        for one in report.rejected:
            typer.echo(f"  left out {one.name}: {one.reason}")
        for name, value in report.metrics.items():
            typer.echo(f"  {name} {value:.6g}")
