"""What every store of files promises, on a local folder with and without hard links and on a real S3 server."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from s3_server import S3Server

from apstream.errors import BadFile, BadSettings, Disposition, FileMissing, StorageUnavailable
from apstream.repo.object_store import BLOCK, ObjectStore
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


RACER = """
import sys
from apstream.repo.store import open_store
store, name = open_store(sys.argv[1]), sys.argv[2]
store.exists("warm")
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    with store.temporary() as source:
        source.write_bytes(name.encode() * 1000)
        print(int(store.create(f"race/{number}", source)))
"""


def _start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A Python process that has said that it is ready."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_of_racing_processes_exactly_one_creates(store: Store) -> None:
    racers = [_start(RACER, store.url, name) for name in "ab"]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"go\n")
        racer.stdin.flush()
    won = [[int(word) for word in racer.communicate()[0].split()] for racer in racers]
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


def test_a_missing_package_is_named() -> None:
    with pytest.raises(BadSettings, match=r"oci://.*ocifs"):
        open_store("oci://bucket/prefix")


def test_any_fsspec_file_system_serves() -> None:
    store = open_store("memory://some/where")
    assert put(store, "a/x", b"first")
    assert not put(store, "a/x", b"second")
    assert store.write_text("t", "text", exclusive=False)
    assert (content_of(store, "a/x"), store.read_text("t"), list(store.walk())) == (b"first", "text", ["a/x", "t"])
    store.remove("a/x")
    store.remove("a/x")
    assert not store.exists("a/x")


WRITER = """
import hashlib, random, sys
from apstream.repo.store import open_store
store, seed = open_store(sys.argv[1]), int(sys.argv[2])
draw = random.Random(seed)
print("ready", flush=True)
for number in range(100_000):
    content = draw.randbytes(draw.randrange(300_000))
    with store.temporary(".bin") as source:
        source.write_bytes(hashlib.sha256(content).digest() + content)
        store.create(f"{seed // 2}/{number}", source)
"""


def _write_until_killed(store: Store, seed: int, seconds: float) -> None:
    """Two writers of the same paths, killed in the midst of it."""
    writers = [_start(WRITER, store.url, str(seed + step)) for step in range(2)]
    time.sleep(seconds)
    for writer in writers:
        writer.kill()
        writer.communicate()


def test_killed_writers_leave_nothing_half_written(store: Store) -> None:
    draw = random.Random(20)
    rounds, longest = (2, 0.5) if isinstance(store, ObjectStore) else (8, 0.2)
    for seed in range(rounds):
        _write_until_killed(store, 2 * seed, draw.uniform(0.03, longest))
    paths = list(store.walk())
    assert len(paths) > rounds
    for path in paths:
        content = content_of(store, path)
        assert hashlib.sha256(content[32:]).digest() == content[:32], path
    leftovers = list(store.leftovers(time.time() + 60))
    assert len(leftovers) <= 2 * rounds
    assert list(store.leftovers(time.time() - 600)) == []
    for path in leftovers:
        store.remove(path)
    assert list(store.walk()) == paths
    assert list(store.leftovers(time.time() + 60)) == []


class Meter:
    """Passes connections on to a server; counts the bytes that come back and the requests."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received = self.requests = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                threading.Thread(target=self._copy, args=(client, server, 0), daemon=True).start()
                threading.Thread(target=self._copy, args=(server, client, 1), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, counted: int) -> None:
        with suppress(OSError), source, target:
            while content := source.recv(1 << 16):
                self.received += counted * len(content)
                self.requests += content.startswith((b"GET ", b"HEAD "))
                target.sendall(content)


@pytest.mark.s3
def test_reading_a_header_transfers_little(
    s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = np.random.default_rng(3).bytes(50_000_000)
    assert put(open_store(s3_url), "calexp.fits", content)
    with closing(Meter(s3_server.port)) as meter:
        s3_server.export(monkeypatch, AWS_ENDPOINT_URL=meter.url)
        with open_store(s3_url).open("calexp.fits") as file:
            blocks = [file.read(2880) for _ in range(4)]
            head = meter.received
            file.seek(40_000_000)
            middle = file.read(1_000_000)
            after, requests = meter.received, meter.requests
            file.seek(45_000_000)
            rest = file.read()
    assert rest == content[45_000_000:]
    assert meter.requests == requests + 1
    assert b"".join(blocks) == content[: 4 * 2880]
    assert middle == content[40_000_000:41_000_000]
    assert BLOCK <= head < BLOCK + 4096
    assert after - head < 1_000_000 + 2 * BLOCK


@pytest.mark.slow
@pytest.mark.s3
def test_a_large_upload_in_parts_is_exclusive_too(s3_url: str, tmp_path: Path) -> None:
    store, source = open_store(s3_url), tmp_path / "coadd.fits"
    with source.open("wb") as file:
        file.truncate(105_000_000)  # above 100 MiB s3fs uploads in parts
    assert store.create("coadd.fits", source)
    assert not store.create("coadd.fits", source)
    assert store.size("coadd.fits") == 105_000_000


@pytest.mark.s3
def test_what_others_wrote_is_seen_at_once(s3_url: str) -> None:
    mine, theirs = open_store(s3_url), open_store(s3_url)
    assert list(mine.walk()) == []
    assert not mine.exists("a/x")
    with ThreadPoolExecutor(1) as other:
        assert other.submit(put, theirs, "a/x", b"1").result()
    assert list(mine.walk()) == ["a/x"]
    assert mine.exists("a/x")


@pytest.mark.s3
def test_wrong_keys_are_refused_with_the_variables_to_set(
    s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.export(monkeypatch, AWS_SECRET_ACCESS_KEY="wrong")
    store = open_store(s3_url)
    for act in (store.exists, store.open, store.read_text, lambda path: put(store, path, b"x")):
        with pytest.raises(BadSettings, match="AWS_SECRET_ACCESS_KEY") as caught:
            act("a/x")
        assert caught.value.where == f"{s3_url}/a/x"
    with pytest.raises(BadSettings, match="AWS_SECRET_ACCESS_KEY"):
        list(store.walk())


@pytest.mark.s3
def test_missing_keys_are_asked_for(s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    s3_server.export(monkeypatch, AWS_EC2_METADATA_DISABLED="true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadSettings, match="AWS_ACCESS_KEY_ID") as caught:
        open_store(s3_url).exists("a/x")
    assert caught.value.disposition is Disposition.STOP


@pytest.mark.s3
def test_a_missing_bucket_is_a_wrong_url(s3_url: str) -> None:
    store = open_store("s3://no-such-bucket/x")
    with pytest.raises(BadSettings, match="create the bucket"):
        put(store, "a", b"1")


@pytest.mark.s3
def test_a_server_that_is_away_is_a_transient_failure(own_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    own_s3.export(monkeypatch, AWS_MAX_ATTEMPTS="1")
    store = open_store(own_s3.create_bucket("bucket"))
    assert put(store, "a/x", b"1" * 100_000)
    file = store.open("a/x")
    own_s3.kill()
    for act in (store.exists, lambda _: file.read(10)):
        with pytest.raises(StorageUnavailable) as caught:
            act("a/x")
        assert caught.value.where == "s3://bucket/a/x"
        assert caught.value.disposition is Disposition.RETRY
    own_s3.start()
    assert content_of(store, "a/x") == b"1" * 100_000


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    put(store, "a", b"a file")
    with pytest.raises(StorageUnavailable) as caught:
        put(store, "a/x", b"1")
    assert caught.value.where == str(tmp_path / "a" / "x")


def test_a_source_on_another_disk_is_copied_whole(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    for store in (LocalStore(tmp_path / "links"), LocalStore(tmp_path / "none", hard_links=False)):
        with TemporaryDirectory(dir=memory) as folder:
            source = Path(folder, "source")
            source.write_bytes(b"first")
            assert store.create("a/x", source)
            source.write_bytes(b"second")
            assert not store.create("a/x", source)
        assert content_of(store, "a/x") == b"first"
        assert list(store.leftovers(time.time() + 60)) == []
