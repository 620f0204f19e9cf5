"""One job of the benchmark, in a process of its own; prints its times as JSON on the last line."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

_STARTED = time.perf_counter()


def prepare(folder: Path, size: int) -> None:
    """Simulate a pair with and without cosmic rays, and a night with its templates."""
    from apstream.repo.ingest import ingest_sources
    from apstream.repo.repository import Repository
    from apstream.service.batch import select_raws
    from apstream.service.coadd import make_coadds
    from apstream.service.coadd_settings import CoaddSettings
    from apstream.simulate.config import NightConfig, PairConfig
    from apstream.simulate.night import simulate_night
    from apstream.simulate.pair import simulate_pair

    transients = max(10, round(400 * (size / 4096) ** 2))
    simulate_pair(folder / "pair", PairConfig(size=size, transients=transients, seed=3))
    simulate_pair(folder / "clean", PairConfig(size=size, transients=transients, seed=3, cosmic_rays=False))
    night = simulate_night(folder / "night", NightConfig(size=size, visits=1, seed=3))
    repository = Repository.create(folder / "repo", camera="simcam")
    ingest_sources(repository, [folder / "night"])
    jobs = [job for job in select_raws(repository, []) if job.id.visit in night.template_visits]
    make_coadds(repository, jobs, CoaddSettings())
    (folder / "ready").touch()


def pair(folder: Path) -> dict[str, float]:
    """``apstream subtract`` with a catalogue, files to files."""
    from apstream.service.pair import PairSettings, run_pair
    from apstream.service.pixel_job import Stopwatch

    watch, images = Stopwatch(), folder / "pair"
    _start(watch)
    run_pair(
        images / "science.fits",
        images / "template.fits",
        folder / "result",
        images / "refcat.parquet",
        PairSettings(),
        watch,
    )
    return watch.seconds


def night(folder: Path) -> dict[str, float]:
    """A raw frame to committed, packed alerts, SQLite as APDB."""
    from apstream.model.products import KnownObjects
    from apstream.repo.repository import Repository
    from apstream.service.batch import select_raws
    from apstream.service.pixel_job import Stopwatch, process_raw
    from apstream.service.pixel_settings import PixelSettings, RepositorySettings

    watch = Stopwatch()
    _start(watch)
    root = folder / "repo"
    job = select_raws(Repository(root), ["visit=1001"])[0]
    settings = PixelSettings(repository=RepositorySettings(root=root))
    products = process_raw(job.path, job.id.detector, KnownObjects.none(), settings)
    asyncio.run(_alerts(products, watch))
    start = {"start": watch.seconds.pop("start")}
    return start | products.timings_s | watch.seconds


async def _alerts(products: object, watch: object) -> None:
    from apstream.apdb import create_apdb, open_apdb
    from apstream.pipeline.catalogs import CatalogsConfig, make_alerts
    from apstream.ports import LedgerEntry, OutboxEntry

    with tempfile.TemporaryDirectory() as place:
        url = f"sqlite:///{place}/apdb.sqlite"
        await create_apdb(url)
        apdb = await open_apdb(url)
        async with apdb.unit(products.region) as unit:
            with watch("history"):
                history = await unit.history(now_mjd_tai=products.info.mid_mjd_tai)
            with watch("associate, pack"):
                catalogs = make_alerts(products, history, products.info.mid_mjd_tai, CatalogsConfig())
            ledger = LedgerEntry(products.info.id, "processed", n_alerts=len(catalogs.alerts))
            with watch("commit"):
                await unit.commit(catalogs, ledger, OutboxEntry(ledger.id, "none", "none", ledger.n_alerts))
        await apdb.close()


def _start(watch: object) -> None:
    watch.seconds["start"] = time.perf_counter() - _STARTED


def main() -> None:
    """Run the job named on the command line."""
    job, folder = sys.argv[1], Path(sys.argv[2])
    if job == "prepare":
        prepare(folder, int(sys.argv[3]))
        return
    seconds = {"pair": pair, "night": night}[job](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"stages": seconds, "process_s": time.perf_counter() - _STARTED, "peak_mib": peak}))


if __name__ == "__main__":
    main()
