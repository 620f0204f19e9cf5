"""What other processes do to a registry in tests; importable, so that they may be spawned."""

from __future__ import annotations

import os

from apstream.errors import DatabaseUnavailable
from apstream.model.products import SkyCircle
from apstream.repo.registry import Entry, Registry


def dataset(visit, detector, *, type="calexp", path="", ra=None, **extra):
    """A dataset at a place of its own on the sky."""
    return Entry(
        type=type,
        identity={"visit": visit, "detector": detector},
        path=path or f"{type}/{visit}/{detector}.fits",
        extra=extra,
        region=None if ra is None else SkyCircle(ra, -10.0 + detector, 0.15),
    )


def open_each(urls, together):
    """Open registries that are not there yet, each at the same moment as the others do."""
    for url in urls:
        together.wait()
        Registry(url).close()


def replace_one(job):
    """Replace one dataset again and again; return what was written and what came back."""
    url, writer, times = job
    registry = Registry(url)
    written = [f"calexp/1/1~{writer}-{time}.fits" for time in range(times)]
    replaced = [old.path for path in written for old in registry.add([dataset(1, 1, path=path)])]
    registry.close()
    return written, replaced


def add_many(job):
    """Add datasets, several in a transaction, some of them those of other writers."""
    url, writer, visits = job
    registry = Registry(url, "shared")
    mine = range(visits) if writer % 2 else reversed(range(visits))
    replaced = []
    for visit in mine:
        path = f"{visit}~{writer}.fits"
        replaced += registry.add([dataset(visit, detector, path=f"{detector}/{path}") for detector in (3, 1, 2)])
    registry.close()
    return [old.path for old in replaced]


def add_through(registry):
    """Use a registry that was made in another process."""
    registry.add([dataset(2, 2)])
    return len(registry.find("calexp"))


def read_as_guest(url):
    """Read a registry as somebody who may not write it; return what is found and what writing is told."""
    if os.getuid() == 0:
        os.setuid(65534)
    registry = Registry(url)
    try:
        registry.add([dataset(1, 2)])
    except DatabaseUnavailable as error:
        return [tuple(entry.identity.values()) for entry in registry.find("calexp")], str(error)
    return [], "written"
