import numpy as np
from helpers.catalog_samples import make_history, make_info, make_sources

from apstream.alerts.codec import decode
from apstream.model.columns import DIA_FORCED_SOURCE
from apstream.model.products import CutoutTriplet, PixelProducts, SkyCircle
from apstream.pipeline.catalogs import CatalogsConfig, make_alerts


def make_products(n):
    return PixelProducts(
        info=make_info(),
        dia_sources=make_sources(n),
        forced=DIA_FORCED_SOURCE.empty(0),
        cutouts=(CutoutTriplet(science=b"s", template=b"t", difference=b"d"),) * n,
        region=SkyCircle(150.0, 2.0, 0.5),
    )


def test_sources_become_objects_and_alerts():
    products = make_alerts(make_products(5), make_history(3, 4), 60101.0, CatalogsConfig())
    assert products.sources["diaObjectId"].tolist() == [1, 2, 3, 1003, 1004]
    assert products.objects["diaObjectId"].tolist() == [1, 2, 3, 1003, 1004]
    assert products.objects["nDiaSources"].tolist() == [5, 5, 5, 1, 1]
    assert (products.sources["timeProcessedMjdTai"] == 60101.0).all()
    assert [alert.id for alert in products.alerts] == products.sources["diaSourceId"].tolist()
    record = decode(products.alerts[0].payload)
    assert record["diaObject"]["nDiaSources"] == 5
    assert record["diaSource"]["diaObjectId"] == 1


def test_no_sources_give_no_alerts():
    products = make_alerts(make_products(0), make_history(3, 4), 60101.0, CatalogsConfig())
    assert (len(products.alerts), len(products.objects)) == (0, 0)


def test_same_input_same_bytes():
    first, second = (
        make_alerts(make_products(4), make_history(2, 3), 60101.0, CatalogsConfig()) for _ in "ab"
    )
    assert first.alerts == second.alerts
    assert np.array_equal(first.objects.tobytes(), second.objects.tobytes())
