import io

import fastavro
import numpy as np
import pytest
from helpers.catalog_samples import make_cutouts, make_history, make_info, make_sources

from apstream.alerts.codec import decode, object_key
from apstream.alerts.cutouts import render
from apstream.alerts.pack import PackConfig, pack
from apstream.alerts.schema import alert_schema
from apstream.model.columns import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE
from apstream.model.products import Association, CutoutTriplet, History

CUTOUTS = CutoutTriplet(science=b"S", template=b"T", difference=b"D")


def pack_sources(sources, objects, history=None, forced=None, config=None, info=None):
    ids = np.unique(sources["diaObjectId"][sources["diaObjectId"] != 0])
    return pack(
        Association(sources, ids, np.zeros(len(ids), bool)),
        objects,
        history or make_history(0, 0),
        DIA_FORCED_SOURCE.empty(0) if forced is None else forced,
        [CUTOUTS] * len(sources),
        info or make_info(),
        config or PackConfig(),
    )


def test_an_alert_holds_source_object_history_and_cutouts():
    history, sources = make_history(3, 4), make_sources(3)
    sources["diaObjectId"] = [3, 1, 2]
    forced = DIA_FORCED_SOURCE.empty(1)
    forced["diaForcedSourceId"], forced["diaObjectId"], forced["midpointMjdTai"] = 9, 1, 60100.25
    alerts = pack_sources(sources, history.objects, history, forced)
    record = decode(alerts[1].payload)
    assert record["diaSourceId"] == alerts[1].id == sources["diaSourceId"][1]
    assert alerts[1].key == object_key(1)
    assert record["target_name"] == "COSMOS"
    assert record["diaSource"]["psfFlux"] == sources["psfFlux"][1]
    assert record["diaSource"]["ssObjectId"] is None
    assert record["diaSource"]["trailFlux"] is None
    assert record["diaObject"]["diaObjectId"] == 1
    assert [row["midpointMjdTai"] for row in record["prvDiaSources"]] == [60000, 60001, 60002, 60003]
    assert {row["diaObjectId"] for row in record["prvDiaSources"]} == {1}
    assert len(record["prvDiaForcedSources"]) == 5
    assert record["prvDiaForcedSources"][-1]["diaForcedSourceId"] == 9
    assert (record["cutoutDifference"], record["cutoutScience"], record["cutoutTemplate"]) == (
        b"D",
        b"S",
        b"T",
    )


def test_an_alert_is_what_fastavro_would_write():
    history, sources = make_history(2, 3), make_sources(2)
    sources["diaObjectId"] = [2, 1]
    alerts = pack_sources(sources, history.objects, history)
    assert len(alerts) == 2
    for alert in alerts:
        again = io.BytesIO()
        fastavro.schemaless_writer(again, fastavro.parse_schema(alert_schema()), decode(alert.payload))
        assert again.getvalue() == alert.payload[5:]


def test_a_new_object_has_no_history():
    objects = DIA_OBJECT.empty(1)
    sources = make_sources(1)
    objects["diaObjectId"] = sources["diaObjectId"] = 1000
    (alert,) = pack_sources(sources, objects, info=make_info(name=""))
    record = decode(alert.payload)
    assert record["prvDiaSources"] is None
    assert record["prvDiaForcedSources"] is None
    assert record["target_name"] is None


def test_solar_system_sources_are_keyed_by_their_object_and_lonely_ones_are_silent():
    sources = make_sources(2)
    sources["ssObjectId"] = [77, 0]
    (alert,) = pack_sources(sources, DIA_OBJECT.empty(0))
    assert alert.key == object_key(77)
    assert decode(alert.payload)["diaObject"] is None


def test_the_latest_history_is_kept():
    history, sources = make_history(1, 6), make_sources(1)
    sources["diaObjectId"] = 1
    (alert,) = pack_sources(sources, history.objects, history, config=PackConfig(max_history_rows=2))
    assert [row["midpointMjdTai"] for row in decode(alert.payload)["prvDiaSources"]] == [60004, 60005]


def test_same_input_same_bytes_whatever_the_order_of_the_history():
    history, sources = make_history(3, 4), make_sources(3)
    sources["diaObjectId"] = [3, 1, 2]
    turned = History(history.objects, history.sources[::-1].copy(), history.forced[::-1].copy())
    assert pack_sources(sources, history.objects, history) == pack_sources(sources, history.objects, turned)


def test_a_real_alert_fits_a_message():
    history, sources = make_history(2, 60), make_sources(2)
    sources["diaObjectId"] = [1, 2]
    triplets = render(make_cutouts(2))
    ids = np.array([1, 2])
    alerts = pack(
        Association(sources, ids, np.zeros(2, bool)), history.objects, history,
        DIA_FORCED_SOURCE.empty(0), triplets, make_info(), PackConfig(),
    )  # fmt: skip
    assert max(len(alert.payload) for alert in alerts) < 130_000


def test_rows_of_the_wrong_table_are_refused():
    with pytest.raises(ValueError, match="DiaObject"):
        pack_sources(make_sources(0), DIA_SOURCE.empty(0))
