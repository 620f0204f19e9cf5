"""Time look-ups in a registry of a million datasets against those in one of ten thousand.

    python -m benchmarks.registry [--sizes 10000 1000000] [--postgres URL] [--work DIR]

Every look-up has the same number of results in both. The repetitions alternate between the registries and go to
visits all over each of them, so that neither is asked for what lies at hand. With ``--postgres`` two databases are
made on that server and dropped afterwards.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from apstream.model.products import SkyCircle
from apstream.repo.registry import Entry, Registry
from apstream.repo.selection import Selection

__all__ = ["compare", "fill", "table"]

DETECTORS = 50
_CHUNK = 20_000
_TYPE = "calexp"
_BANDS = "grizy"
_FIELDS = 10  # visits that lie in the field looked at; all others lie elsewhere on the sky
_GOLDEN = 137.50776405


def fill(registry: Registry, count: int) -> float:
    """Add `count` datasets, 50 per visit, and return the seconds that took."""
    start = time.perf_counter()
    for first in range(0, count, _CHUNK):
        registry.add([_dataset(*divmod(n, DETECTORS)) for n in range(first, min(first + _CHUNK, count))])
    return time.perf_counter() - start


def compare(registries: Sequence[tuple[Registry, int]], *, repeats: int) -> dict[str, list[float]]:
    """Return the median milliseconds of every look-up in each registry of so many datasets.

    Raises
    ------
    ValueError
        If a look-up finds another number of datasets in one registry than in another.
    """
    rng = np.random.default_rng(3)
    medians: dict[str, list[float]] = {}
    for name, look in _LOOKUPS.items():
        times: list[list[float]] = [[] for _ in registries]
        sizes = set()
        for _ in range(repeats + 3):
            for (registry, count), spent in zip(registries, times, strict=True):
                visit = int(rng.integers(0, count // DETECTORS - 5))
                start = time.perf_counter()
                found = look(registry, visit)
                spent.append(time.perf_counter() - start)
                sizes.add(found)
        if len(sizes) > 1 or sizes == {0}:
            raise ValueError(f"{name} finds {sizes} datasets")
        medians[name] = [1e3 * statistics.median(spent[3:]) for spent in times]
    return medians


def table(title: str, sizes: Sequence[int], loads: Sequence[float], medians: dict[str, list[float]]) -> str:
    """Return the medians and their growth from the first registry to the last."""
    lines = [title, f"{'look-up, ms':<24}" + "".join(f"{size:>12,}" for size in sizes) + f"{'growth':>10}"]
    for name, values in medians.items():
        lines.append(f"{name:<24}" + "".join(f"{v:>12.3f}" for v in values) + f"{values[-1] / values[0]:>9.2f}x")
    rates = (size / load for size, load in zip(sizes, loads, strict=True))
    return "\n".join([*lines, f"{'added per second':<24}" + "".join(f"{rate:>12,.0f}" for rate in rates)])


def _dataset(visit: int, detector: int) -> Entry:
    band = _BANDS[visit // 10 % 5]
    return Entry(
        type=_TYPE,
        identity={"visit": visit, "detector": detector},
        path=f"calexp/{visit}/{detector}.fits",
        extra={"band": band, "day": 20_000_000 + visit // 10, "name": f"visit-{visit}", "mjd": 60000 + visit / 500},
        region=_place(visit, detector),
        checksum=f"{visit:032x}{detector:032x}",
        size=100_000_000,
        run="benchmark",
    )


def _place(visit: int, detector: int) -> SkyCircle:
    row, column = divmod(detector, 10)
    if visit < _FIELDS:
        return SkyCircle(10 + 0.25 * column + 0.01 * visit, -20 + 0.25 * row, 0.17)
    return SkyCircle((_GOLDEN * visit + 0.25 * column) % 360, (visit * 0.617) % 80 + 0.25 * row, 0.17)


def _selected(registry: Registry, visit: int) -> int:
    first = visit - visit % 10
    words = [f"visit={first}^{first + 2}..{first + 4} ccdnum=3^6..12 filter={_BANDS[first // 10 % 5]}"]
    return len(registry.find(_TYPE, Selection.parse(words)))


def _inside(registry: Registry, visit: int) -> int:
    return len(registry.overlapping(_TYPE, SkyCircle(11.0, -19.5, 0.1)))


_LOOKUPS: dict[str, Callable[[Registry, int], int]] = {
    "get": lambda r, v: int(r.get(_TYPE, {"visit": v, "detector": 7}) is not None),
    "visit": lambda r, v: len(r.find(_TYPE, visit=v)),
    "visit, detector": lambda r, v: len(r.find(_TYPE, visit=v, detector=7)),
    "selection": _selected,
    "night and detector": lambda r, v: len(r.find(_TYPE, day=20_000_000 + v // 10, detector=7)),
    "name": lambda r, v: len(r.find(_TYPE, name=f"visit-{v}")),
    "overlapping": _inside,
    "overlapping of a band": lambda r, v: len(r.overlapping(_TYPE, SkyCircle(11.0, -19.5, 0.1), band="g")),
}


def _run(title: str, urls: Sequence[str], sizes: Sequence[int], repeats: int) -> str:
    registries = [Registry(url) for url in urls]
    loads = [fill(registry, size) for registry, size in zip(registries, sizes, strict=True)]
    medians = compare(list(zip(registries, sizes, strict=True)), repeats=repeats)
    for registry in registries:
        registry.close()
    return table(title, sizes, loads, medians)


@contextmanager
def _databases(url: str, count: int) -> Iterator[list[str]]:
    server = sa.make_url(url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    names = [f"bench_{uuid.uuid4().hex[:12]}" for _ in range(count)]
    with engine.connect() as connection:
        for name in names:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            yield [server.set(database=name).render_as_string(hide_password=False) for name in names]
        finally:
            for name in names:
                connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


def main() -> None:
    """Fill the registries, time the look-ups, print the tables."""
    parser = argparse.ArgumentParser(description="Time look-ups in small and large registries.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=101)
    parser.add_argument("--postgres", help="URL of a server on which databases may be made")
    parser.add_argument("--work", type=Path, help="Folder for the SQLite files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="apstream-bench-", dir=options.work) as folder:
        urls = [f"sqlite:///{folder}/{size}.sqlite3" for size in options.sizes]
        print(_run("SQLite", urls, options.sizes, options.repeats))
    if options.postgres:
        with _databases(options.postgres, len(options.sizes)) as urls:
            print("\n" + _run("PostgreSQL", urls, options.sizes, options.repeats))


if __name__ == "__main__":
    main()
