"""``apstream calib``: masters, gains and noise from raw calibration frames."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from apstream.service.calib_settings import CalibSettings

app = typer.Typer(help="Make calibration products from raw frames, of files or in a repository.", no_args_is_help=True)

Sources = Annotated[list[str], typer.Argument(help="A repository, or raw FITS files")]
Out = Annotated[Path | None, typer.Option("--out", help="For files: where to write")]
CameraName = Annotated[str, typer.Option("--camera", help="For files: camera name or YAML file")]
DetectorNumber = Annotated[int | None, typer.Option("--detector", help="For files that hold several detectors")]
Ids = Annotated[
    list[str] | None, typer.Option("--id", help="For a repository: selection, e.g. 'day=20260101 detector=3'")
]
Since = Annotated[str, typer.Option(help="For a repository: holds from this date (ISO, or MJD TAI); default: always")]
Until = Annotated[str, typer.Option(help="... until this one; default: until the next begins")]
ReplaceRun = Annotated[bool, typer.Option(help="Go on with other settings than this repository's last")]
Override = Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. bias.combine.n_sigma=5")]
SettingsFile = Annotated[list[Path] | None, typer.Option("-C", help="Settings file (YAML)")]
Bias = Annotated[Path | None, typer.Option(help="For files: master bias")]
Dark = Annotated[Path | None, typer.Option(help="For files: master dark, ADU per second")]
Flat = Annotated[Path | None, typer.Option(help="For files: master flat")]
DefectsFile = Annotated[Path | None, typer.Option(help="For files: bad pixels, map (nonzero) or boxes")]
CrosstalkFile = Annotated[Path | None, typer.Option(help="For files: crosstalk (YAML)")]
Linearity = Annotated[Path | None, typer.Option(help="For files: linearity (YAML)")]
Ptc = Annotated[Path | None, typer.Option(help="For files: gains and noises (YAML)")]


@app.command()
def bias(
    sources: Sources,
    out: Out = None,
    camera: CameraName = "",
    detector: DetectorNumber = None,
    id: Ids = None,
    since: Since = "",
    until: Until = "",
    replace_run: ReplaceRun = False,
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Make the master bias.

    apstream calib bias raw/bias*.fits --camera mycam.yaml --out bias.fits

    apstream calib bias REPO --id day=20260101 --since 2026-01-01
    """
    _run("bias", sources, (out, camera, detector), (id, since, until, replace_run), (settings, override))


@app.command()
def dark(
    sources: Sources,
    out: Out = None,
    camera: CameraName = "",
    detector: DetectorNumber = None,
    bias: Bias = None,
    linearity: Linearity = None,
    ptc: Ptc = None,
    id: Ids = None,
    since: Since = "",
    until: Until = "",
    replace_run: ReplaceRun = False,
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Make the master dark, ADU per second.

    apstream calib dark raw/dark*.fits --camera mycam.yaml --bias bias.fits --out dark.fits

    apstream calib dark REPO --since 2026-01-01     (with the bias that the repository has)
    """
    files = {"bias": bias, "linearity": linearity, "ptc": ptc}
    _run("dark", sources, (out, camera, detector), (id, since, until, replace_run), (settings, override), files)


@app.command()
def flat(
    sources: Sources,
    out: Out = None,
    camera: CameraName = "",
    detector: DetectorNumber = None,
    bias: Bias = None,
    dark: Dark = None,
    linearity: Linearity = None,
    ptc: Ptc = None,
    id: Ids = None,
    since: Since = "",
    until: Until = "",
    replace_run: ReplaceRun = False,
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Make the master flat of a band, mean one.

    apstream calib flat raw/flat_r*.fits --camera mycam.yaml --bias bias.fits --out flat_r.fits

    apstream calib flat REPO --id filter=r --since 2026-01-01
    """
    files = {"bias": bias, "dark": dark, "linearity": linearity, "ptc": ptc}
    _run("flat", sources, (out, camera, detector), (id, since, until, replace_run), (settings, override), files)


@app.command()
def fringe(
    sources: Sources,
    out: Out = None,
    camera: CameraName = "",
    detector: DetectorNumber = None,
    bias: Bias = None,
    dark: Dark = None,
    flat: Flat = None,
    defects: DefectsFile = None,
    crosstalk: CrosstalkFile = None,
    linearity: Linearity = None,
    ptc: Ptc = None,
    id: Ids = None,
    since: Since = "",
    until: Until = "",
    replace_run: ReplaceRun = False,
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Make the fringe pattern of a band from sky frames.

    apstream calib fringe raw/sky_z*.fits --camera mycam.yaml --bias bias.fits --flat flat_z.fits --out fringe_z.fits

    apstream calib fringe REPO --id 'filter=z day=20260101' --since 2026-01-01
    """
    files = {"bias": bias, "dark": dark, "flat": flat, "defects": defects, "crosstalk": crosstalk}
    files |= {"linearity": linearity, "ptc": ptc}
    _run("fringe", sources, (out, camera, detector), (id, since, until, replace_run), (settings, override), files)


@app.command()
def crosstalk(
    sources: Sources,
    out: Out = None,
    camera: CameraName = "",
    detector: DetectorNumber = None,
    bias: Bias = None,
    id: Ids = None,
    since: Since = "",
    until: Until = "",
    replace_run: ReplaceRun = False,
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Measure the crosstalk between amplifiers on frames with bright stars.

    apstream calib crosstalk raw/science*.fits --camera mycam.yaml --out crosstalk.yaml

    apstream calib crosstalk REPO --id 'visit=1..50' --since 2026-01-01
    """
    files = {"bias": bias}
    _run("crosstalk", sources, (out, camera, detector), (id, since, until, replace_run), (settings, override), files)


@app.command()
def ptc(
    sources: Sources,
    out: Out = None,
    camera: CameraName = "",
    detector: DetectorNumber = None,
    bias: Bias = None,
    linearity: Annotated[
        Literal["polynomial", "table"] | None, typer.Option(help="Measure the linearity too, in this form")
    ] = None,
    kernel: Annotated[bool, typer.Option("--kernel", help="Make the brighter-fatter kernel too")] = False,
    id: Ids = None,
    since: Since = "",
    until: Until = "",
    replace_run: ReplaceRun = False,
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Measure gain, read noise and turn-off from pairs of flats, the linearity and the brighter-fatter kernel.

    apstream calib ptc raw/flat*.fits --camera kast-blue --out ptc.yaml

    apstream calib ptc REPO --id observation_type=flat^bias --linearity polynomial --since 2026-01-01
    """
    override = [*(override or []), *([f"ptc.linearity.kind={linearity}"] if linearity else [])]
    override += ["ptc.kernel.lags=5"] if kernel and not any("ptc.kernel." in word for word in override) else []
    files = {"bias": bias}
    _run("ptc", sources, (out, camera, detector), (id, since, until, replace_run), (settings, override), files)


@app.command()
def defects(
    repository: Annotated[str, typer.Argument(help="A repository; without it give --dark, --flat and --out")] = "",
    out: Out = None,
    dark: Dark = None,
    flat: Annotated[list[Path] | None, typer.Option(help="For files: master flat; may be repeated")] = None,
    id: Ids = None,
    since: Since = "",
    until: Until = "",
    replace_run: ReplaceRun = False,
    override: Override = None,
    settings: SettingsFile = None,
) -> None:
    """Find hot and dead pixels and bad columns in master darks and flats.

    apstream calib defects --dark dark.fits --flat flat_r.fits --out defects.yaml

    apstream calib defects REPO --id detector=3 --since 2026-01-01     (of its masters valid then)
    """
    from apstream.errors import BadSettings
    from apstream.service.calib_defects import defects_of_files

    if repository:
        raise typer.Exit(_in_repository("defects", repository, (id, since, until, replace_run), (settings, override)))
    if out is None:
        raise BadSettings("needed for files", where="--out", remedy="or name a repository")
    _show(defects_of_files(dark, flat or [], out, _settings("", (settings, override))))


def _run(
    kind: str,
    sources: list[str],
    files: tuple[Path | None, str, int | None],
    choice: tuple[list[str] | None, str, str, bool],
    settings: tuple[list[Path] | None, list[str] | None],
    calibs: dict[str, Path | None] | None = None,
) -> None:
    from apstream.errors import BadSettings
    from apstream.repo.repository import is_repository

    if is_repository(sources[0]):
        if len(sources) > 1:
            raise BadSettings("one repository, and nothing beside it", where=sources[1], remedy="select with --id")
        raise typer.Exit(_in_repository(kind, sources[0], choice, settings))
    _of_files(kind, sources, files, settings, calibs or {})


def _of_files(
    kind: str,
    sources: list[str],
    files: tuple[Path | None, str, int | None],
    settings: tuple[list[Path] | None, list[str] | None],
    calibs: dict[str, Path | None],
) -> None:
    from apstream.errors import BadSettings
    from apstream.service.calib import make_of_files
    from apstream.service.calib_files import read_calibs

    out, camera, detector = files
    for option, value in (("--out", out), ("--camera", camera)):
        if not value:
            raise BadSettings("needed for files", where=option, remedy="or name a repository instead of the files")
    assert out is not None
    made = make_of_files(
        kind,
        [Path(source) for source in sources],
        out,
        camera=camera,
        calibs=read_calibs({name: path for name, path in calibs.items() if path}),
        settings=_settings(camera, settings),
        detector=detector,
    )
    _show(made)


def _in_repository(
    kind: str,
    root: str,
    choice: tuple[list[str] | None, str, str, bool],
    settings: tuple[list[Path] | None, list[str] | None],
) -> int:
    from apstream.repo.data_ids import parse_date
    from apstream.repo.repository import Repository
    from apstream.repo.validity import ALWAYS
    from apstream.service.calib import make_of_raws
    from apstream.service.calib_defects import defects_of_masters
    from apstream.service.calib_settings import settings_of
    from apstream.service.outputs import keep_record

    ids, since, until, replace_run = choice
    valid = (parse_date(since) if since else ALWAYS[0], parse_date(until) if until else ALWAYS[1])
    repository = Repository(root)
    chosen = _settings(repository.camera, settings)
    run = keep_record(repository, f"calib-{kind}", settings_of(chosen, kind), {}, replace=replace_run)
    failed = 0
    make = defects_of_masters if kind == "defects" else partial(make_of_raws, kind)
    for outcome in make(repository, ids or [], settings=chosen, valid=valid, run=run):
        _show(outcome)
        failed += outcome.error is not None
    return min(failed, 125)


def _settings(camera: str, sources: tuple[list[Path] | None, list[str] | None]) -> CalibSettings:
    from apstream.service.calib_settings import load_calib

    return load_calib(camera, sources[0] or [], sources[1] or [])


def _show(outcome: Any) -> None:
    if outcome.error is not None:
        typer.echo(f"apstream: {outcome.what}: {type(outcome.error).__name__}: {outcome.error}", err=True)
        return
    for product, location in zip(outcome.products, outcome.locations, strict=True):
        report = product.report
        typer.echo(f"{outcome.what}: {product.type} of {len(report.used)} frames -> {location}")
        for one in report.rejected:
            typer.echo(f"  left out {one.name}: {one.reason}")
        for name, value in report.metrics.items():
            typer.echo(f"  {name} {value:.6g}")
