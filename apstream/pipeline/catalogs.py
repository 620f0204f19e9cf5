"""The catalogue half of the data path: DIA sources and history become objects and alerts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from apstream.alerts.pack import PackConfig, pack
from apstream.arrays.types import Records
from apstream.model.products import CatalogProducts, History, PixelProducts
from apstream.tasks.associate import AssociateConfig, associate
from apstream.tasks.objects import SummarizeConfig, summarize

__all__ = ["CatalogsConfig", "make_alerts"]


class CatalogsConfig(BaseModel):
    """Settings of the catalogue half, stage by stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    associate: AssociateConfig = Field(AssociateConfig(), description="Which object a source belongs to.")
    summarize: SummarizeConfig = Field(SummarizeConfig(), description="What an object is, from its sources.")
    pack: PackConfig = Field(PackConfig(), description="What goes into an alert.")


def make_alerts(
    products: PixelProducts, history: History, now_mjd_tai: float, config: CatalogsConfig
) -> CatalogProducts:
    """Associate the sources of one exposure, sum up the touched objects, pack the alerts.

    Parameters
    ----------
    history
        What the APDB knows of ``products.region``, read under the lock that the commit will hold.
    now_mjd_tai
        Time of processing; written into the rows.
    """
    sources = _processed(products.dia_sources, now_mjd_tai)
    forced = _processed(products.forced, now_mjd_tai)
    association = associate(sources, history, config.associate)
    objects = summarize(association, history, forced, now_mjd_tai, config.summarize)
    alerts = pack(association, objects, history, forced, products.cutouts, products.info, config.pack)
    return CatalogProducts(
        info=products.info,
        sources=association.sources,
        objects=objects,
        forced=forced,
        alerts=alerts,
        region=products.region,
    )


def _processed(rows: Records, now_mjd_tai: float) -> Records:
    rows = rows.copy()
    rows["timeProcessedMjdTai"] = now_mjd_tai
    return rows
