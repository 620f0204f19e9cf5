import numpy as np
import pytest

from apstream.model.columns import BANDS, DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, TABLES, Column, TableSpec


def test_every_column_has_a_meaning_and_a_known_type():
    for table in TABLES.values():
        for column in table.columns:
            assert column.doc.endswith("."), column.name
            assert column.dtype in {"f4", "f8", "i2", "i4", "i8", "?"} or column.dtype.startswith("U")


def test_empty_rows_hold_null():
    rows = DIA_SOURCE.empty(2)
    assert np.isnan(rows["psfFlux"]).all()
    assert (rows["diaObjectId"] == 0).all()
    assert not rows["isDipole"].any()
    assert (rows["band"] == "").all()


@pytest.mark.parametrize("table", list(TABLES.values()), ids=lambda t: t.name)
def test_rows_survive_the_way_through_plain_columns(table):
    rng = np.random.default_rng(1)
    rows = table.empty(5)
    for column in table.columns[::2]:
        if column.kind == "f":
            rows[column.name] = rng.normal(size=5)
        elif column.kind == "i":
            rows[column.name] = rng.integers(1, 100, 5)
        elif column.kind == "U":
            rows[column.name] = "Ω1"
        else:
            rows[column.name] = rng.random(5) > 0.5
    again = table.from_columns(table.columns_of(rows), 5)
    assert again.tobytes() == rows.tobytes()


def test_null_is_none_only_where_allowed():
    plain = DIA_SOURCE.columns_of(DIA_SOURCE.empty(1))
    assert plain["diaObjectId"] == [None]
    assert plain["psfFlux"] == [None]
    assert plain["psfNdata"] == [0]
    assert plain["isNegative"] == [False]


def test_objects_have_statistics_in_every_band():
    for band in BANDS:
        assert f"{band}_psfFluxMean" in DIA_OBJECT
        assert f"{band}_psfFluxMaxSlope" in DIA_OBJECT
    assert DIA_OBJECT.key == ("diaObjectId", "validityStartMjdTai")


def test_a_table_refuses_rows_of_another():
    with pytest.raises(ValueError, match="DiaObject"):
        DIA_OBJECT.require(DIA_FORCED_SOURCE.empty(1))


def test_a_table_refuses_twins_and_missing_keys():
    a = Column("a", "f4", "", "A.")
    with pytest.raises(ValueError, match="twice"):
        TableSpec("t", "", (a, a), ("a",))
    with pytest.raises(ValueError, match="key"):
        TableSpec("t", "", (a,), ("b",))
    with pytest.raises(ValueError, match="no place"):
        Column("a", "c8", "", "A.")
