import numpy as np
import pytest

from apstream.model.columns import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE
from apstream.model.products import History
from apstream.tasks.associate import AssociateConfig, associate

CONFIG = AssociateConfig()
ARCSEC = 1 / 3600


def sources_at(ra, dec, first_id=1000):
    rows = DIA_SOURCE.empty(len(ra))
    rows["diaSourceId"] = first_id + np.arange(len(ra))
    rows["ra"], rows["dec"], rows["raErr"], rows["decErr"] = ra, dec, 0.05 * ARCSEC, 0.05 * ARCSEC
    return rows


def history_at(ra, dec):
    rows = DIA_OBJECT.empty(len(ra))
    rows["diaObjectId"] = 1 + np.arange(len(ra))
    rows["ra"], rows["dec"], rows["raErr"], rows["decErr"] = ra, dec, 0.02 * ARCSEC, 0.02 * ARCSEC
    return History(rows, DIA_SOURCE.empty(0), DIA_FORCED_SOURCE.empty(0))


def test_first_visit_makes_every_source_an_object_of_its_own_id():
    result = associate(sources_at([1.0, 2.0], [0.0, 0.0]), history_at([], []), CONFIG)
    assert result.sources["diaObjectId"].tolist() == [1000, 1001]
    assert result.object_ids.tolist() == [1000, 1001]
    assert result.is_new.all()


@pytest.mark.parametrize(("ra", "dec"), [(359.99999, 10.0), (180.0, 89.99999), (10.0, -89.99999)])
def test_sources_join_objects_inside_the_gate(ra, dec):
    near = dec - 0.5 * ARCSEC
    result = associate(sources_at([ra, ra], [near, dec - 2 * ARCSEC]), history_at([ra], [dec]), CONFIG)
    assert result.sources["diaObjectId"].tolist() == [1, 1001]
    assert result.object_ids.tolist() == [1, 1001]
    assert result.is_new.tolist() == [False, True]


def test_the_assignment_is_optimal_where_the_nearest_neighbour_is_not():
    # Objects at 0 and 0.6"; sources at 0.4" and 1.1". Taking the nearest first would give 0.4" to 0.6".
    dec = np.array([0.4, 1.1]) * ARCSEC
    result = associate(sources_at([5.0, 5.0], dec), history_at([5.0, 5.0], [0.0, 0.6 * ARCSEC]), CONFIG)
    assert result.sources["diaObjectId"].tolist() == [1, 2]


def test_an_exact_match_is_not_given_away_for_one_pair_more():
    # A source on top of object 1 and another at -0.9": giving 1 to the second would push the first 0.8" away.
    dec = np.array([0.0, -0.9]) * ARCSEC
    result = associate(sources_at([5.0, 5.0], dec), history_at([5.0, 5.0], [0.0, 0.8 * ARCSEC]), CONFIG)
    assert result.sources["diaObjectId"].tolist() == [1, 1001]


def test_an_object_takes_one_source_only():
    dec = np.array([0.3, 0.1, 0.2]) * ARCSEC
    result = associate(sources_at([5.0] * 3, dec), history_at([5.0], [0.0]), CONFIG)
    assert result.sources["diaObjectId"].tolist() == [1000, 1, 1002]


def test_a_random_field_comes_back():
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 0.2, 400), rng.uniform(-0.1, 0.1, 400)
    shuffled = rng.permutation(400)
    noise = rng.normal(0, 0.05 * ARCSEC, (2, 400))
    result = associate(
        sources_at(ra[shuffled] + noise[0], dec[shuffled] + noise[1]), history_at(ra, dec), CONFIG
    )
    assert np.mean(result.sources["diaObjectId"] == 1 + shuffled) > 0.99


def test_solar_system_sources_and_sources_without_position_stay_alone():
    rows = sources_at([1.0, np.nan, 1.0], [0.0, np.nan, 1.0])
    rows["ssObjectId"][0] = 77
    result = associate(rows, history_at([1.0], [0.0]), CONFIG)
    assert result.sources["diaObjectId"].tolist() == [0, 0, 1002]


def test_settings_decide_what_may_begin():
    rows = sources_at([1.0, 2.0, 3.0, 4.0], [0.0] * 4)
    rows["snr"], rows["reliability"] = [9, 9, 3, 9], [0.9, 0.9, 0.9, 0.1]
    rows["pixelFlags_bad"] = [False, True, False, False]
    strict = AssociateConfig(
        new_object_forbidden_flags=("pixelFlags_bad",), new_object_min_snr=5, new_object_min_reliability=0.5
    )
    assert associate(rows, history_at([], []), strict).sources["diaObjectId"].tolist() == [1000, 0, 0, 0]
    joined = associate(rows, history_at([2.0], [0.0]), strict)
    assert joined.sources["diaObjectId"].tolist() == [1000, 1, 0, 0]


def test_the_input_is_left_alone():
    rows = sources_at([1.0], [0.0])
    associate(rows, history_at([1.0], [0.0]), CONFIG)
    assert rows["diaObjectId"].tolist() == [0]
