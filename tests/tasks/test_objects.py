import numpy as np
import pytest

from apstream.model.columns import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE
from apstream.model.products import Association, History
from apstream.tasks.objects import SummarizeConfig, summarize

CONFIG = SummarizeConfig()


def sources_of(obj, time, flux, band="r", ra=0.0):
    rows = DIA_SOURCE.empty(len(time))
    rows["diaSourceId"] = obj * 100 + np.arange(len(time))
    rows["diaObjectId"], rows["midpointMjdTai"], rows["psfFlux"], rows["psfFluxErr"] = obj, time, flux, 2.0
    rows["band"], rows["ra"], rows["dec"], rows["raErr"], rows["decErr"] = band, ra, 10.0, 1e-5, 1e-5
    rows["scienceFlux"], rows["scienceFluxErr"] = np.asarray(flux) + 100, 4.0
    return rows


def new(*tables):
    rows = np.concatenate(tables)
    ids = np.unique(rows["diaObjectId"])
    return Association(rows, ids, np.ones(len(ids), bool))


NOTHING = History(DIA_OBJECT.empty(0), DIA_SOURCE.empty(0), DIA_FORCED_SOURCE.empty(0))


def test_statistics_run_over_history_and_new_sources():
    before = DIA_OBJECT.empty(1)
    before["diaObjectId"], before["nDiaSources"], before["validityStartMjdTai"] = 7, 5, 60010.0
    before["firstDiaSourceMjdTai"], before["lastDiaSourceMjdTai"] = 59000.0, 60000.0
    history = History(before, sources_of(7, [60000.0], [10.0]), DIA_FORCED_SOURCE.empty(0))
    rows = summarize(
        new(sources_of(7, [60002.0], [30.0])), history, DIA_FORCED_SOURCE.empty(0), 60020.0, CONFIG
    )
    row = rows[0]
    assert row["r_psfFluxMean"] == pytest.approx(20)
    assert row["r_psfFluxMeanErr"] == pytest.approx(np.sqrt(2))
    assert row["r_psfFluxMaxSlope"] == pytest.approx(10)
    assert row["r_scienceFluxMean"] == pytest.approx(120)
    assert (row["r_psfFluxMin"], row["r_psfFluxMax"], row["r_psfFluxNdata"]) == (10, 30, 2)
    assert row["nDiaSources"] == 6
    assert (row["firstDiaSourceMjdTai"], row["lastDiaSourceMjdTai"]) == (59000.0, 60002.0)
    assert row["validityStartMjdTai"] == 60020.0
    assert row["g_psfFluxNdata"] == 0
    assert np.isnan(row["g_psfFluxMean"])


def test_a_version_never_starts_before_the_one_it_replaces():
    before = DIA_OBJECT.empty(1)
    before["diaObjectId"], before["validityStartMjdTai"] = 7, 60100.0
    history = History(before, DIA_SOURCE.empty(0), DIA_FORCED_SOURCE.empty(0))
    rows = summarize(new(sources_of(7, [1.0], [1.0])), history, DIA_FORCED_SOURCE.empty(0), 60050.0, CONFIG)
    assert rows["validityStartMjdTai"][0] > 60100.0


def test_flagged_sources_and_unknown_bands_stay_out_of_the_statistics():
    rows = np.concatenate([sources_of(7, [1.0, 2.0], [10.0, 1e6]), sources_of(7, [3.0], [5.0], "w")])
    rows["psfFlux_flag"] = [False, True, False]
    result = summarize(new(rows), NOTHING, DIA_FORCED_SOURCE.empty(0), 5.0, CONFIG)
    assert result["r_psfFluxNdata"][0] == 1
    assert result["nDiaSources"][0] == 3


def test_forced_fluxes_have_means_of_their_own():
    forced = DIA_FORCED_SOURCE.empty(3)
    forced["diaObjectId"], forced["band"] = [7, 7, 8], "g"
    forced["psfFlux"], forced["psfFluxErr"] = [1.0, 3.0, 50.0], 1.0
    rows = summarize(new(sources_of(7, [1.0], [1.0])), NOTHING, forced, 5.0, CONFIG)
    assert rows["g_fpFluxMean"][0] == pytest.approx(2)
    assert rows["g_fpFluxMeanErr"][0] == pytest.approx(np.sqrt(0.5))


def test_the_position_is_a_weighted_mean_across_the_meridian():
    a, b = sources_of(7, [1.0], [1.0], ra=359.9999), sources_of(7, [2.0], [1.0], ra=0.0001)
    rows = summarize(new(a, b), NOTHING, DIA_FORCED_SOURCE.empty(0), 5.0, CONFIG)
    assert (rows["ra"][0] + 180) % 360 - 180 == pytest.approx(0, abs=1e-9)
    assert rows["raErr"][0] == pytest.approx(np.hypot(1e-5, 0.02 / 3600) / np.sqrt(2), rel=1e-5)


def test_nothing_gives_nothing():
    empty = Association(DIA_SOURCE.empty(0), np.zeros(0, np.int64), np.zeros(0, bool))
    assert len(summarize(empty, NOTHING, DIA_FORCED_SOURCE.empty(0), 5.0, CONFIG)) == 0
