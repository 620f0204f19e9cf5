"""What every registry does, whichever database is behind it."""

import multiprocessing
import pickle
import re
import shutil
import sqlite3
import tempfile
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from helpers.registry_jobs import add_many, add_through, dataset, open_each, read_as_guest, replace_one
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apstream.errors import BadSettings, DatabaseUnavailable, SchemaMismatch
from apstream.model.products import SkyCircle
from apstream.model.wcs import separation
from apstream.repo.registry import Entry, Input, Registry
from apstream.repo.selection import Selection, Span
from benchmarks.registry import compare, fill

FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/registry.sqlite3"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def registry(url):
    opened = Registry(url)
    yield opened
    opened.close()


def ids(entries):
    return [tuple(entry.identity.values()) for entry in entries]


FULL = Entry(
    type="bias",
    identity={"detector": 3, "serial": "A-1"},
    path="bias/3.fits",
    extra={"band": "g", "exptime": 1.5, "note": "ünï", "flags": [1, 2], "none": None},
    region=SkyCircle(359.99, -89.5, 0.25),
    checksum="ab" * 32,
    size=2**40,
    valid=(float("-inf"), 60000.5),
    run="run-1",
)


def test_what_is_added_comes_back(registry):
    assert registry.add([FULL]) == []
    assert registry.get("bias", {"serial": "A-1", "detector": 3}) == FULL
    assert registry.find("bias") == [FULL]
    assert registry.get("bias", {"detector": 3}) is None
    assert registry.get("flat", FULL.identity) is None
    assert registry.add([]) == []


def test_values_of_numpy_and_numbers_as_text_are_numbers(registry):
    identity, extra = {"visit": np.int64(7), "detector": "03"}, {"x": np.float64(2)}
    registry.add([Entry(type="raw", identity=identity, path="a", extra=extra)])
    found = registry.get("raw", {"visit": "007", "detector": 3})
    assert dict(found.identity) == {"visit": 7, "detector": 3}
    assert found.extra == {"x": 2.0}


def test_a_dataset_is_replaced_and_the_old_one_handed_over(registry):
    first, second = dataset(1, 2, path="a", band="g", ra=10.0), dataset(1, 2, path="b", band="r", ra=50.0)
    registry.add([first], [Input("raw", {"visit": 1}, "x")])
    assert registry.add([second]) == [first]
    assert registry.find("calexp") == [second]
    assert registry.find("calexp", band="g") == []
    assert registry.overlapping("calexp", first.region) == []
    assert registry.inputs("calexp", first.identity) == ()


def test_a_path_still_in_use_is_not_handed_over(registry):
    registry.add([dataset(1, 2, band="g")])
    assert registry.add([dataset(1, 2, band="r")]) == []
    assert registry.find("calexp")[0].extra == {"band": "r"}


def test_of_two_equal_identities_in_one_call_the_later_stays(registry):
    twice = [dataset(1, 2, path="a"), dataset(1, 3), dataset(1, 2, path="b")]
    assert registry.add(twice) == twice[:1]
    assert registry.find("calexp") == [twice[2], twice[1]]


def test_entries_come_in_order_of_their_numbers(registry):
    visits = [10, 9, 100, -1]
    registry.add([dataset(visit, detector) for visit in visits for detector in (10, 9)])
    assert ids(registry.find("calexp")) == [(visit, detector) for visit in sorted(visits) for detector in (9, 10)]


def test_selection_and_what_is_known_both_hold(registry):
    registry.add([dataset(visit, detector, band="gr"[visit % 2]) for visit in range(6) for detector in range(3)])
    selection = Selection.parse(["visit=1^3..5 ccdnum=0..2:2"])
    found = ids(registry.find("calexp", selection, band="r", detector=None))
    assert found == [(1, 0), (1, 2), (3, 0), (3, 2), (5, 0), (5, 2)]
    assert ids(registry.find("calexp", selection, visit=4)) == [(4, 0), (4, 2)]


def test_thousands_of_alternatives_are_one_question(registry):
    registry.add([dataset(visit, 1, name=f"n{visit}") for visit in range(0, 1500, 3)])
    values = Selection.parse(["visit=" + "^".join(map(str, range(0, 10000, 2)))])
    assert len(registry.find("calexp", values)) == 250
    spans = Selection.parse(["visit=" + "^".join(f"{low}..{low + 4}" for low in range(0, 10000, 10))])
    assert len(registry.find("calexp", spans)) == 250
    names = Selection.parse(["name=" + "^".join(f"n{visit}" for visit in range(10000))])
    assert len(registry.find("calexp", names)) == 500


KEYS = ["visit", "detector", "tract", "patch", "day", "band", "name", "seq"]
ODD = ["g", "r", "7", "007", "3,4", "2026-01-05", "3.0"]
VALUES = st.one_of(st.integers(-2, 9), st.sampled_from([*ODD, 20260105, 2**63, 2**63 - 1, 3.0, None]))
SPANS = st.builds(Span, st.integers(-3, 4), st.integers(4, 12), st.integers(1, 3))
CHOICES = st.one_of(
    st.sampled_from([*ODD, "-1", "20260105", str(2**63), str(2**63 - 1), "None"]),
    st.integers(-2, 9).map(str),
    SPANS,
    st.just(Span(-(2**70), 2**70)),
)
SELECTIONS = st.dictionaries(st.sampled_from(KEYS), st.lists(CHOICES, min_size=1, max_size=4).map(tuple), max_size=4)
DATA_IDS = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), max_size=25)
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(data_ids=DATA_IDS, choices=st.lists(SELECTIONS, min_size=1, max_size=5))
def test_the_database_selects_what_python_selects(registry, data_ids, choices):
    for old in registry.find("thing"):
        registry.remove("thing", old.identity)
    registry.add([Entry(type="thing", identity={"n": n}, path=str(n), extra=known) for n, known in enumerate(data_ids)])
    for chosen in map(Selection, choices):
        expected = [(n,) for n, known in enumerate(data_ids) if chosen.matches(known)]
        assert ids(registry.find("thing", chosen)) == expected


@pytest.mark.parametrize("centre", [(0.0, 0.0), (359.99, 60.0), (120.0, 89.9), (10.0, -90.0)])
@pytest.mark.parametrize("radius", [0.0, 0.3, 5.0, 60.0, 180.0])
def test_overlaps_are_those_of_brute_force(registry, centre, radius):
    rng = np.random.default_rng(5)
    circles = [SkyCircle(*place) for place in _around(rng, *centre)]
    others = [Entry(type="a", identity={"n": -1}, path="nowhere")]
    others.append(Entry(type="b", identity={"n": 1}, path="b", region=circles[0]))
    for n, circle in enumerate(circles):
        others.append(Entry(type="a", identity={"n": n}, path=str(n), region=circle, extra={"band": "gr"[n % 2]}))
    registry.add(others)
    apart = [float(separation(*centre, c.ra, c.dec)) for c in circles]
    near = sorted((apart[n], str(n)) for n, c in enumerate(circles) if apart[n] <= radius + c.radius)
    region = SkyCircle(*centre, radius)
    assert ids(registry.overlapping("a", region)) == [(int(n),) for _, n in near]
    assert ids(registry.overlapping("a", region, band="g")) == [(int(n),) for _, n in near if int(n) % 2 == 0]


def _around(rng, ra, dec):
    for scale in (0.2, 2.0, 20.0):
        for _ in range(30):
            east, north = rng.normal(0, scale, 2)
            yield (ra + east) % 360, float(np.clip(dec + north, -90, 90)), rng.uniform(0, 0.3)


def test_validity_is_half_open(registry):
    def bias(number, valid, detector=3):
        return Entry(type="bias", identity={"detector": detector, "n": number}, path=str(number), valid=valid)

    inf = float("inf")
    registry.add([bias(1, (-inf, 100.0)), bias(2, (100.0, 200.0)), bias(3, (200.0, inf))])
    registry.add([bias(4, (0.0, inf), 4), bias(5, None, 5)])
    for mjd, number in ((99.0, 1), (100.0, 2), (199.999, 2), (200.0, 3)):
        assert ids(registry.valid_at("bias", mjd, detector=3)) == [(3, number)]
    assert ids(registry.valid_at("bias", 150.0)) == [(3, 2), (4, 4), (5, 5)]
    assert registry.valid_at("bias", -1.0, detector=4) == []


def test_inputs_and_users_are_two_ends_of_one_line(registry):
    raws = [Input("raw", {"detector": 1, "visit": n}, f"sum{n}", "/parent") for n in (2, 1, 2)]
    registry.add([dataset(1, 1), dataset(1, 2)], raws)
    registry.add([dataset(1, 1, type="diff")], [Input("calexp", {"visit": 1, "detector": 1}, "c")])
    expected = tuple(Input("raw", {"visit": i.data_id["visit"], "detector": 1}, i.checksum, i.root) for i in raws)
    assert registry.inputs("calexp", {"visit": 1, "detector": 2}) == expected
    assert ids(registry.users("raw", {"visit": 2, "detector": 1})) == [(1, 1), (1, 2)]
    assert [e.type for e in registry.users("calexp", {"visit": "1", "detector": 1})] == ["diff"]
    assert registry.users("raw", {"visit": 3, "detector": 1}) == []
    assert registry.remove("calexp", {"visit": 1, "detector": 1}) == dataset(1, 1)
    assert registry.remove("calexp", {"visit": 1, "detector": 1}) is None
    assert ids(registry.users("raw", {"visit": 2, "detector": 1})) == [(1, 2)]
    assert registry.inputs("calexp", {"visit": 1, "detector": 1}) == ()
    assert registry.inputs("nothing", {}) == ()


def test_types_runs_and_paths(registry):
    registry.add([dataset(1, 1), dataset(1, 2), dataset(1, 1, type="raw")])
    assert registry.types() == {"calexp": 2, "raw": 1}
    assert sorted(registry.paths()) == ["calexp/1/1.fits", "calexp/1/2.fits", "raw/1/1.fits"]
    registry.add_run("r1", {"settings": {"a": 1}})
    registry.add_run("r1", {"settings": {"a": 2}})
    assert registry.run("r1") == {"settings": {"a": 1}}
    assert registry.run("r2") is None


def test_repositories_in_one_database_know_nothing_of_each_other(url):
    one, two = Registry(url, "one"), Registry(url, "two")
    one.add([dataset(1, 1)], [Input("raw", {"visit": 1}, "")])
    two.add([dataset(1, 1, path="other"), dataset(1, 2)])
    one.add_run("r", {"of": "one"})
    assert two.get("calexp", {"visit": 1, "detector": 1}).path == "other"
    assert (one.types(), two.types()) == ({"calexp": 1}, {"calexp": 2})
    assert list(one.paths()) == ["calexp/1/1.fits"]
    assert two.run("r") is None
    assert two.users("raw", {"visit": 1}) == []
    assert two.remove("calexp", {"visit": 1, "detector": 1})
    assert len(one.find("calexp")) == 1
    one.close()
    two.close()


def test_every_replaced_row_goes_to_one_of_many_writers(url):
    jobs = [(url, writer, 15) for writer in range(8)]
    with ProcessPoolExecutor(8, mp_context=FORK) as pool:
        done = list(pool.map(replace_one, jobs))
    registry = Registry(url)
    written = Counter(path for paths, _ in done for path in paths)
    returned = Counter(path for _, paths in done for path in paths)
    assert returned + Counter(entry.path for entry in registry.find("calexp")) == written
    registry.close()


def test_writers_of_the_same_datasets_in_other_orders_do_not_block_each_other(url):
    visits, writers = 12, 4
    with ProcessPoolExecutor(writers, mp_context=FORK) as pool:
        replaced = [path for paths in pool.map(add_many, [(url, w, visits) for w in range(writers)]) for path in paths]
    registry = Registry(url, "shared")
    final = [entry.path for entry in registry.find("calexp")]
    assert len(final) == visits * 3
    expected = [f"{d}/{v}~{w}.fits" for d in (1, 2, 3) for v in range(visits) for w in range(writers)]
    assert sorted(replaced + final) == sorted(expected)
    registry.close()


def test_all_who_make_a_registry_at_the_same_moment_get_it(tmp_path):
    urls, together = [f"sqlite:///{tmp_path}/{n}.sqlite3" for n in range(100)], FORK.Barrier(4, timeout=20)
    processes = [FORK.Process(target=open_each, args=(urls, together)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]


def test_large_transactions_that_cross_each_other_end(url):
    def write(order):
        mine = Registry(url)
        for _ in range(4):
            mine.add([dataset(visit, 1, path=f"{id(mine)}{visit}") for visit in order])
        mine.close()

    orders = (range(300), range(299, -1, -1), range(150, 450))
    threads = [threading.Thread(target=write, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    registry = Registry(url)
    assert len(registry.find("calexp")) == 450
    registry.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_open_registry_may_be_taken_into_another_process(registry, method):
    registry.add([dataset(1, 1)])
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(add_through, registry).result(60) == 2
    assert len(registry.find("calexp")) == 2
    assert len(pickle.loads(pickle.dumps(registry)).find("calexp")) == 2


def test_another_version_is_refused_with_the_remedy(registry, url):
    registry._database.write(lambda connection: connection.execute(sa.text("UPDATE registry_schema SET version = 99")))
    with pytest.raises(SchemaMismatch, match="version 99"):
        Registry(url)


WITHOUT_INDEX = ("SCAN registry", "SCAN found", "Seq Scan on registry_datasets", "(type=?)")
LOOKUPS = {
    "get": ("datasets", lambda r: r.get("calexp", {"visit": 5, "detector": 1})),
    "visit": ("visit", lambda r: r.find("calexp", visit=5, detector=1)),
    "visits": ("visit", lambda r: r.find("calexp", Selection.parse(["visit=5^6^7 detector=1 band=r"]))),
    "ranges": ("visit", lambda r: r.find("calexp", Selection.parse(["visit=5^7..9^1..9:2 detector=1^2..5 band=r"]))),
    "range": ("visit", lambda r: r.find("calexp", Selection.parse(["visit=5..9 detector=1 band=r"]), visit=5)),
    "name": ("name", lambda r: r.find("calexp", name="n5", band="r")),
    "day": ("day", lambda r: r.find("calexp", Selection.parse(["day=20260005 visit=0..99"]), band="r")),
    "patch": ("tract", lambda r: r.find("calexp", tract=3, patch=3)),
    "band and patch": ("tract", lambda r: r.find("calexp", Selection.parse(["tract=3 patch=3^8..9 band=r"]))),
    "overlapping": ("pixel", lambda r: r.overlapping("calexp", SkyCircle(5.0, -9.0, 0.1))),
    "overlapping of a band": ("pixel", lambda r: r.overlapping("calexp", SkyCircle(5.0, -9.0, 0.1), band="r", visit=5)),
    "valid": ("detector", lambda r: r.valid_at("calexp", 60000.0, detector=1, band="r")),
    "inputs": ("datasets inputs", lambda r: r.inputs("calexp", {"visit": 5, "detector": 1})),
    "users": ("users", lambda r: r.users("raw", {"visit": 5, "detector": 1})),
}


@pytest.fixture
def filled(registry):
    entries = [
        dataset(n, d, ra=n % 300, band="gr"[n % 2], name=f"n{n}", day=20260000 + n, tract=n % 5, patch=n)
        for n in range(1500)
        for d in (1, 2)
    ]
    registry.add(entries[:2], [Input("raw", {"visit": 5, "detector": 1}, "")])
    registry.add(entries[2:], [Input("raw", {"visit": 6, "detector": 1}, "")])
    return registry


@pytest.mark.parametrize("name", LOOKUPS)
def test_every_look_up_goes_through_an_index(filled, name):
    statements = []

    def note(connection, cursor, statement, parameters, context, many):
        if "registry_datasets" in statement and "EXPLAIN" not in statement:
            statements.append((statement, parameters))

    engine = filled._database._engine()
    sa.event.listen(engine, "before_cursor_execute", note)
    index, look = LOOKUPS[name]
    assert look(filled)
    explain = "EXPLAIN QUERY PLAN" if filled._sqlite else "EXPLAIN"
    with engine.connect() as connection:
        plans = ["\n".join(str(row) for row in connection.exec_driver_sql(f"{explain} {s}", p)) for s, p in statements]
    assert plans
    for plan in plans:
        assert not [bad for bad in WITHOUT_INDEX if bad in plan], plan
    taken = set(re.findall(r"INDEX \w*(?:registry|sqlite)_(\w+)", plans[-1]))
    assert not filled._sqlite or {word.split("_")[0] for word in taken} == set(index.split())


def test_sqlite_names_the_file_when_it_is_locked(tmp_path):
    file = tmp_path / "registry.sqlite3"
    registry = Registry(f"sqlite:///{file}", lock_timeout_s=0.1)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable, match="locked") as refused:
        registry.add([dataset(1, 1)])
    assert refused.value.where == str(file)
    other.rollback()
    other.close()
    assert registry.add([dataset(1, 1)]) == []
    registry.close()


@pytest.mark.parametrize("damage", ["head", "pages", "text"])
def test_sqlite_names_the_file_when_it_is_damaged(tmp_path, damage):
    file = tmp_path / "registry.sqlite3"
    registry = Registry(f"sqlite:///{file}")
    registry.add([dataset(visit, 1) for visit in range(500)])
    registry.close()
    content = bytearray(file.read_bytes())
    damaged = slice(0, 100) if damage == "head" else slice(8192, len(content))
    content[damaged] = b"\xa5" * (damaged.stop - damaged.start)
    file.write_bytes(b"no database at all\n" * 999 if damage == "text" else content)
    with pytest.raises(DatabaseUnavailable, match="damaged") as refused:
        Registry(f"sqlite:///{file}").find("calexp", visit=3)
    assert refused.value.where == str(file)
    assert refused.value.remedy


def test_sqlite_says_when_the_disk_is_full(tmp_path):
    file = tmp_path / "registry.sqlite3"
    registry = Registry(f"sqlite:///{file}")
    engine = registry._database._engine()
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=40"))
    with pytest.raises(DatabaseUnavailable, match="disk is full"):
        registry.add([dataset(visit, 1) for visit in range(2000)])
    assert registry.find("calexp") == []
    registry.close()


def test_sqlite_of_the_first_kind_is_recognised(tmp_path):
    file = tmp_path / "registry.sqlite3"
    with sqlite3.connect(file) as old:
        old.execute("CREATE TABLE datasets (type TEXT, data_id TEXT, path TEXT)")
    old.close()
    with pytest.raises(SchemaMismatch, match="ingest again"):
        Registry(f"sqlite:///{file}")


def test_sqlite_paths_may_have_any_letters(tmp_path):
    folder = tmp_path / "a b?c#d%20é"
    folder.mkdir()
    Registry(f"sqlite:///{folder}/registry.sqlite3").add([dataset(1, 1)])
    assert (folder / "registry.sqlite3").is_file()
    with pytest.raises(DatabaseUnavailable, match="cannot be opened"):
        Registry(f"sqlite:///{tmp_path}/absent/registry.sqlite3")


@pytest.mark.parametrize("busy", [False, True])
def test_sqlite_of_somebody_else_can_be_read(busy):
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    url = f"sqlite:///{folder}/registry.sqlite3"
    theirs = Registry(url)
    theirs.add([dataset(1, 1)])
    if not busy:
        theirs.close()
    folder.chmod(0o555)
    (folder / "registry.sqlite3").chmod(0o444)
    try:
        with ProcessPoolExecutor(1, mp_context=FORK) as pool:
            found, refusal = pool.submit(read_as_guest, url).result(60)
    finally:
        folder.chmod(0o755)
        theirs.close()
        shutil.rmtree(folder)
    assert found == [(1, 1)]
    assert "cannot be opened or written" in refusal


@pytest.mark.parametrize("wrong", ["", "registry.sqlite3", "mysql://u:secret@h/d", "sqlite:///", "sqlite:///:memory:"])
def test_what_is_no_url_is_refused(wrong):
    with pytest.raises(BadSettings) as refused:
        Registry(wrong)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg"])
def test_no_password_stands_in_an_error(scheme):
    with pytest.raises((DatabaseUnavailable, BadSettings)) as refused:
        Registry(f"{scheme}://user:secret@127.0.0.1:1/none?password=secret")
    assert "secret" not in str(refused.value)
    assert "127.0.0.1:1" in str(refused.value)


@pytest.mark.postgres
def test_postgres_that_goes_away_is_a_transient_failure(own_postgres):
    registry = Registry(own_postgres.url(own_postgres.create_database()))
    registry.add([dataset(1, 1)])
    own_postgres.stop()
    with pytest.raises(DatabaseUnavailable):
        registry.find("calexp")
    own_postgres.restart()
    assert len(registry.find("calexp")) == 1
    registry.close()


@pytest.mark.slow
def test_look_ups_in_a_million_datasets_take_no_longer_than_in_ten_thousand(tmp_path):
    sizes = (10_000, 1_000_000)
    registries = [(Registry(f"sqlite:///{tmp_path}/{size}.sqlite3"), size) for size in sizes]
    for registry, size in registries:
        fill(registry, size)
    medians = compare(registries, repeats=101)
    grown = {name: large / small for name, (small, large) in medians.items()}
    assert all(ratio < 1.5 for ratio in grown.values()), grown
    for registry, _ in registries:
        registry.close()
