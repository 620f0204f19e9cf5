"""What every store of files promises, on a local folder with and without hard links and on a real S3 server."""

from __future__ import annotations

import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from apstream.errors import BadFile, BadSettings, FileMissing
from apstream.repo.store import LocalStore, Store, open_store

BACKENDS = ["folder", "folder-without-links", pytest.param("s3", marks=pytest.mark.s3)]
ODD = "a b/ü~1+2#x?%20&=[*].fits"


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3_url") + "/night one")
    return LocalStore(tmp_path / "root", hard_links=request.param == "folder")


def put(store: Store, path: str, content: bytes) -> bool:
    with store.temporary(".bin") as source:
        source.write_bytes(content)
        return store.create(path, source)


def content_of(store: Store, path: str) -> bytes:
    with store.open(path) as file:
        return file.read()


@pytest.mark.parametrize("path", ["x", "calexp/v1/d2.fits", ODD])
def test_a_created_file_is_read_back(store: Store, path: str) -> None:
    assert not store.exists(path)
    assert put(store, path, b"content")
    assert store.exists(path)
    assert store.size(path) == 7
    assert content_of(store, path) == b"content"
    assert list(store.walk()) == [path]


def test_an_empty_file_is_a_file(store: Store) -> None:
    assert put(store, "e", b"")
    assert (store.exists("e"), store.size("e"), content_of(store, "e")) == (True, 0, b"")


def test_create_keeps_what_is_there(store: Store) -> None:
    assert put(store, "a/x", b"first")
    assert not put(store, "a/x", b"second")
    assert content_of(store, "a/x") == b"first"


def test_a_removed_path_can_be_taken_again(store: Store) -> None:
    put(store, "a/x", b"first")
    store.remove("a/x")
    assert not store.exists("a/x")
    assert list(store.walk()) == []
    assert put(store, "a/x", b"second")
    assert content_of(store, "a/x") == b"second"


def test_removing_what_is_not_there_is_no_error(store: Store) -> None:
    store.remove("a/x")


def test_what_is_not_there_is_missing_and_named(store: Store) -> None:
    put(store, "a/other", b"x")
    for act in (store.open, store.size, lambda path: store.fetch(path).__enter__()):
        with pytest.raises(FileMissing) as caught:
            act("a/x")
        assert caught.value.where == store.location("a/x")
    assert store.read_text("a/x") is None


def test_a_folder_is_no_file(store: Store) -> None:
    put(store, "a/x", b"1")
    assert not store.exists("a")
    with pytest.raises(FileMissing):
        store.size("a")


def test_reads_are_random_access(store: Store) -> None:
    content = np.random.default_rng(1).bytes(300_000)
    put(store, "x", content)
    with store.open("x") as file:
        assert file.seekable()
        for start, count in [(0, 80), (200_000, 100), (199_000, 2_000), (5, 250_000), (299_990, 80), (400_000, 1)]:
            assert file.seek(start) == start
            assert file.read(count) == content[start : start + count]
        file.seek(-5, os.SEEK_END)
        assert file.read() == content[-5:]


def test_fetch_gives_a_local_file_with_the_same_content(store: Store) -> None:
    put(store, "a/x.fits", b"content")
    with store.fetch("a/x.fits") as local:
        assert local.suffix == ".fits"
        assert local.read_bytes() == b"content"
    assert content_of(store, "a/x.fits") == b"content"


def test_walk_lists_files_in_order_and_hides_hidden_ones(store: Store) -> None:
    for path in ["b/2", "b.x", "b/1", "a/c/1", "z", ".hidden/x", "b/.tmp-1", "bb/1"]:
        put(store, path, b"x")
    assert list(store.walk()) == ["a/c/1", "b.x", "b/1", "b/2", "bb/1", "z"]
    assert list(store.walk("b")) == ["b/1", "b/2"]
    assert list(store.walk("nothing")) == []


def test_a_store_never_written_is_empty(store: Store) -> None:
    assert list(store.walk()) == []


def test_a_temporary_file_is_gone_afterwards_and_never_listed(store: Store) -> None:
    with store.temporary(".fits") as path:
        assert path.suffix == ".fits"
        assert path.stat().st_size == 0
        path.write_bytes(b"half")
        assert list(store.walk()) == []
    assert not path.exists()


def test_a_link_reads_as_its_source_which_stays(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "raw.fits"
    source.write_bytes(b"raw")
    assert store.link("raw/1.fits", source)
    assert not store.link("raw/1.fits", source)
    assert not put(store, "raw/1.fits", b"other")
    assert (content_of(store, "raw/1.fits"), store.size("raw/1.fits")) == (b"raw", 3)
    assert list(store.walk()) == ["raw/1.fits"]
    store.remove("raw/1.fits")
    assert source.read_bytes() == b"raw"
    with pytest.raises(FileMissing, match="raw2"):
        store.link("raw/2.fits", tmp_path / "raw2.fits")


def test_text_is_written_once_or_replaced(store: Store) -> None:
    assert store.write_text("repository.yaml", "id: ü\n", exclusive=True)
    assert not store.write_text("repository.yaml", "id: other\n", exclusive=True)
    assert store.read_text("repository.yaml") == "id: ü\n"
    assert store.write_text("repository.yaml", "id: new\n", exclusive=False)
    assert store.read_text("repository.yaml") == "id: new\n"


def test_text_that_is_not_utf8_is_a_bad_file(store: Store) -> None:
    put(store, "policy.yaml", b"ab\xff")
    with pytest.raises(BadFile, match="byte 2"):
        store.read_text("policy.yaml")


@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "../x", "a/../../x", "a\0b"])
def test_no_path_leaves_the_root(store: Store, path: str) -> None:
    for act in (store.open, store.exists, store.size, store.remove, store.location, store.read_text):
        with pytest.raises(BadSettings, match="inside the repository"):
            act(path)
    with pytest.raises(BadSettings, match="inside the repository"):
        put(store, path, b"x")


def test_a_pickled_store_is_the_same_store(store: Store) -> None:
    put(store, "x", b"1")
    assert content_of(pickle.loads(pickle.dumps(store)), "x") == b"1"


def _race(store: Store, barrier: threading.Barrier, name: str) -> list[bool]:
    won = []
    for number in range(12):
        barrier.wait()
        won.append(put(store, f"race/{number}", name.encode() * 1000))
    return won


def test_of_racing_threads_exactly_one_creates(store: Store) -> None:
    names = ["a", "b", "c", "d"]
    barrier = threading.Barrier(len(names))
    with ThreadPoolExecutor(len(names)) as pool:
        won = list(pool.map(lambda name: _race(store, barrier, name), names))
    assert np.sum(won, axis=0).tolist() == [1] * 12
    for number in range(12):
        winner = names[[row[number] for row in won].index(True)]
        assert content_of(store, f"race/{number}") == winner.encode() * 1000


def _process_race(store: Store, name: str) -> list[bool]:
    return [put(store, f"race/{number}", name.encode() * 1000) for number in range(40)]


def test_of_racing_processes_exactly_one_creates(store: Store) -> None:
    put(store, "before the fork", b"a connection is open")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        won = list(pool.map(_process_race, [store, store], ["a", "b"]))
    assert np.sum(won, axis=0).tolist() == [1] * 40
    for number in range(40):
        assert content_of(store, f"race/{number}") == b"ab"[won[1][number] : won[1][number] + 1] * 1000


def test_urls_choose_the_store(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path), LocalStore)
    assert open_store(str(tmp_path)).url == str(tmp_path)
    assert open_store(f"file://{tmp_path}/a%20b").url == f"{tmp_path}/a b"
    assert open_store("memory://x/").location("y") == "memory://x/y"


@pytest.mark.parametrize("url", ["s3://", "nosuch://x/y"])
def test_an_impossible_url_is_refused_with_a_remedy(url: str) -> None:
    with pytest.raises(BadSettings) as caught:
        open_store(url)
    assert caught.value.where == url
    assert "BUCKET" in caught.value.remedy or "s3://bucket" in caught.value.remedy


def test_any_fsspec_file_system_serves() -> None:
    store = open_store("memory://some/where")
    assert put(store, "a/x", b"first")
    assert not put(store, "a/x", b"second")
    assert store.write_text("t", "text", exclusive=False)
    assert (content_of(store, "a/x"), store.read_text("t"), list(store.walk())) == (b"first", "text", ["a/x", "t"])
    store.remove("a/x")
    store.remove("a/x")
    assert not store.exists("a/x")
