"""``apstream subtract``: two FITS images in, a difference and its sources out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from apstream.cli.options import SettingsFile


def subtract(
    science: Annotated[Path, typer.Argument(help="Science image, FITS (compressed too)")],
    template: Annotated[Path, typer.Argument(help="Template image, FITS")],
    out: Annotated[Path, typer.Option("--out", help="Folder for difference.fits and dia_sources.parquet")],
    refcat: Annotated[
        Path | None, typer.Option(help="Reference catalogue (FITS, CSV, Parquet: ra dec magnitudes)")
    ] = None,
    photometry_refcat: Annotated[
        Path | None, typer.Option(help="Catalogue of magnitudes, where --refcat is for positions alone")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("-c", help="Setting, e.g. image.gain=1.9 or detect.threshold_sigma=5.5")
    ] = None,
    settings: SettingsFile = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only")] = False,
) -> None:
    """Subtract TEMPLATE from SCIENCE and measure what changed.

    Writes [bold]difference.fits[/] (image, mask, variance and PSF on the science pixels) and
    [bold]dia_sources.parquet[/]. Gain, read noise and saturation come from the headers or from -c image.gain=1.9;
    a WCS is used where there is one, star patterns where there is none.
    """
    from apstream.service.pair import PRODUCTS, PairSettings, run_pair
    from apstream.service.targets import spare_inputs_in
    from apstream.settings import load_settings

    spare_inputs_in(out, PRODUCTS, settings or [])
    chosen = load_settings(PairSettings, files=settings or [], overrides=override or [])
    started = time.perf_counter()
    with _stages(quiet) as watch:
        summary = run_pair(science, template, out, refcat, chosen, watch, photometry_refcat=photometry_refcat)
    if not quiet:
        typer.echo(f"{summary} in {time.perf_counter() - started:.1f} s -> {out}")


@contextmanager
def _stages(quiet: bool) -> Iterator[Callable[[str], AbstractContextManager[None]]]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:

        @contextmanager
        def watch(stage: str) -> Iterator[None]:
            task = progress.add_task(stage, total=1)
            yield
            progress.update(task, completed=1)

        yield watch
