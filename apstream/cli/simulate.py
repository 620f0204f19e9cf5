"""``apstream simulate``: a night, or a pair of images, of a sky whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from apstream.words import counted

__all__ = ["simulate"]

_NIGHT, _PAIR = "What a night holds", "A pair of images instead of a night"


def simulate(
    out: Annotated[Path, typer.Argument(help="Directory to write into; made if it is not there.")],
    visits: Annotated[int, typer.Option(help="Science visits.", rich_help_panel=_NIGHT)] = 5,
    size: Annotated[int, typer.Option(help="Side of a detector in pixels.")] = 1024,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 1,
    template_visits: Annotated[int, typer.Option(help="Earlier quiet visits per filter.", rich_help_panel=_NIGHT)] = 4,
    detectors: Annotated[int, typer.Option(help="Detectors in the camera.", rich_help_panel=_NIGHT)] = 1,
    filters: Annotated[
        str, typer.Option(help="Filters in turn, out of ugrizy, as in 'gr'.", rich_help_panel=_NIGHT)
    ] = "r",
    transients: Annotated[
        int | None, typer.Option(help="Number of transients; the default grows with the field.")
    ] = None,
    density: Annotated[float, typer.Option(help="Factor on the numbers of stars and galaxies.")] = 1.0,
    amplifiers: Annotated[int, typer.Option(help="Amplifiers per detector.", rich_help_panel=_NIGHT)] = 2,
    pair: Annotated[
        bool, typer.Option("--pair", help="Write science.fits and template.fits.", rich_help_panel=_PAIR)
    ] = False,
    identical: Annotated[
        bool, typer.Option("--identical", help="The two differ by noise alone.", rich_help_panel=_PAIR)
    ] = False,
    cosmic_rays: Annotated[
        bool, typer.Option(help="Cosmic rays in the pair's science image.", rich_help_panel=_PAIR)
    ] = True,
) -> None:
    """Simulate a night of raw exposures: frames, calibrations, reference catalogue and truth.

    [bold]apstream simulate night --visits 20 --size 1024 --seed 7[/bold]

    writes night/raw, night/calib, night/refcat.parquet, night/truth and night/night.yaml, which says which
    visits make the template and which are science. With --pair it writes two calibrated images, to try

    [bold]apstream subtract night/science.fits night/template.fits --out diff[/bold]
    """
    common = {"size": size, "seed": seed, "transients": transients}
    if pair or identical:
        _run_pair(out, density, {**common, "band": filters[:1], "identical": identical, "cosmic_rays": cosmic_rays})
    else:
        night = {"visits": visits, "template_visits": template_visits, "detectors": detectors}
        bands, chip = tuple(filters.replace(",", "")), {"amplifiers": amplifiers}
        _run_night(out, density, {**common, **night, "bands": bands, "chip": chip})


def _config(kind: Any, density: float, settings: dict[str, Any]) -> Any:
    """Return the settings of a night or a pair, with so many times as many stars and galaxies."""
    from pydantic import ValidationError

    from apstream.errors import BadSettings
    from apstream.simulate.config import SkyConfig

    sky = SkyConfig()
    counts = {name: density * getattr(sky, name) for name in ("stars_per_arcmin2", "galaxies_per_arcmin2")}
    try:
        return kind(**settings, sky=sky.model_copy(update=counts))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadSettings(f"{field}: {first['msg']}", remedy="see apstream simulate --help") from None


def _run_night(out: Path, density: float, settings: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from apstream.simulate.config import NightConfig
    from apstream.simulate.night import simulate_night

    config = _config(NightConfig, density, settings)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("simulating", total=None)
        summary = simulate_night(
            out,
            config,
            lambda done, total, what: bar.update(task, completed=done, total=total, description=what),
        )
    typer.echo(
        f"{counted(len(summary.raws), 'raw frame')} ({len(summary.template_visits)} template and "
        f"{len(summary.science_visits)} science visits) of {counted(summary.n_stars, 'star')}, "
        f"{counted(summary.n_galaxies, 'galaxy', 'galaxies')} and {counted(summary.n_transients, 'transient')} "
        f"in {summary.out}"
    )


def _run_pair(out: Path, density: float, settings: dict[str, Any]) -> None:
    from apstream.simulate.config import PairConfig
    from apstream.simulate.pair import simulate_pair

    summary = simulate_pair(out, _config(PairConfig, density, settings))
    typer.echo(
        f"science.fits and template.fits with {counted(summary.n_transients, 'transient')} and "
        f"{counted(summary.n_variables, 'variable')} in {out}"
    )
