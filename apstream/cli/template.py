"""``apstream template``: the template of an exposure, shown or made."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from apstream.cli import making
from apstream.cli.options import SettingsFile


def template(
    root: making.Root,
    id: Annotated[list[str] | None, typer.Option("--id", help="Exposures, e.g. 'visit=7 detector=0'")] = None,
    visit: Annotated[int | None, typer.Option(help="The same as --id visit=N")] = None,
    show: Annotated[bool, typer.Option("--show", help="Say what it would be made of; make none")] = False,
    templates: Annotated[str, typer.Option("--template", help="Repository with templates; default: the same")] = "",
    template_id: Annotated[str, typer.Option(help="Calexps as template, e.g. 'visit=234567'")] = "",
    rerun: making.Rerun = "",
    output: making.Output = "",
    override: Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. template.min_coverage=0.5")] = None,
    settings: SettingsFile = None,
    replace_run: making.ReplaceRun = False,
) -> None:
    """Make the template of an exposure on its own pixels, as apstream run would, and store it as deepDiff_templateExp.

    With --show only its inputs are named: the patches (or calexps) that lie under the exposure, the fraction
    of it that each covers, and all together.
    """
    from apstream.errors import ApstreamError
    from apstream.pipeline.config import PixelConfig
    from apstream.repo.repository import Repository
    from apstream.service.choice import select_calexps
    from apstream.service.outputs import BatchPlaces, keep_record
    from apstream.service.run_settings import stage_settings
    from apstream.service.template import TemplateShop, make_template_of, show_template_of

    places = BatchPlaces(root=root, rerun=rerun, output=output, template=templates, template_id=template_id)
    choices, products = places.choices(), places.open_output()
    chosen = stage_settings(PixelConfig, products.camera, settings or [], override or [])
    words = [*(id or []), *([f"visit={visit}"] if visit is not None else [])]
    selected = select_calexps(products, words, "raw")
    shop = TemplateShop(
        output=products,
        templates=Repository(templates) if templates else products,
        config=chosen,
        template_id=choices.get("template_id"),
    )
    if not show:
        products.run = keep_record(products, "template", chosen, choices, replace=replace_run)
    failed = 0
    typer.echo("exposure\ttemplate\tfraction covered")
    for job in selected:
        try:
            _tell(show_template_of(shop, job) if show else make_template_of(shop, job))
        except ApstreamError as error:
            failed += 1
            typer.echo(f"apstream: {type(error).__name__}: {error.at(str(job.id))}", err=True)
    raise typer.Exit(min(failed, 125))


def _tell(seen: Any) -> None:
    for name, share in seen.inputs:
        typer.echo(f"{seen.name}\t{name}" + (f"\t{share:.3f}" if share == share else ""))
    typer.echo(f"{seen.name}\t{seen.location or 'all together'}\t{seen.coverage:.3f}")
