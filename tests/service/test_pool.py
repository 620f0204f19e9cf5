"""The pool with real children that hang, die and swell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apstream.errors import BadSettings, TooFewStars, UnfitImage, WorkerDied
from apstream.service.pool import PoolSettings, WorkerPool

TESTS = Path(__file__).parents[1]
JOBS = "helpers.pool_jobs"


@contextlib.asynccontextmanager
async def pool(**settings: object) -> AsyncIterator[tuple[WorkerPool, list[str]]]:
    lost: list[str] = []
    workers = WorkerPool(PoolSettings(**settings), lost.append)  # type: ignore[arg-type]
    await workers.start()
    try:
        yield workers, lost
    finally:
        await workers.close()


async def test_results_and_typed_errors_come_back() -> None:
    async with pool(size=2) as (workers, lost):
        assert await asyncio.gather(*(workers.run(f"{JOBS}:double", n) for n in range(1, 6))) == [
            2,
            4,
            6,
            8,
            10,
        ]
        assert len(await workers.run(f"{JOBS}:big", 5 << 20)) == 5 << 20
        with pytest.raises(TooFewStars, match=r"a\.fits: 3 stars"):
            await workers.run(f"{JOBS}:refuse", 1)
        with pytest.raises(UnfitImage, match=r"unexpected ValueError: no such thing \[pool_jobs\.py:"):
            await workers.run(f"{JOBS}:stumble", 1)
        with pytest.raises(BadSettings, match="cannot be sent"):
            await workers.run(f"{JOBS}:unsendable", 1)
        with pytest.raises(BadSettings, match="nothing_here"):
            await workers.run(f"{JOBS}:nothing_here", 1)
        assert lost == []
        assert [s.restarts for s in workers.status()] == [0, 0]


async def test_a_child_that_hangs_is_killed_and_replaced() -> None:
    async with pool(job_timeout_s=0.5) as (workers, lost):
        before = await workers.run(f"{JOBS}:pid", 1)
        with pytest.raises(WorkerDied, match=r"no result after 0\.5 s"):
            await workers.run(f"{JOBS}:hang", 1)
        after = await workers.run(f"{JOBS}:pid", 1)
        assert after != before
        assert not alive(before)
        assert lost == ["no result after 0.5 s"]


async def test_a_child_that_vanishes_is_replaced_and_others_work_on() -> None:
    async with pool(size=2) as (workers, _lost):
        jobs = [
            workers.run(f"{JOBS}:vanish", 3),
            workers.run(f"{JOBS}:double", 1),
            workers.run(f"{JOBS}:double", 2),
        ]
        died, *good = await asyncio.gather(*jobs, return_exceptions=True)
        assert isinstance(died, WorkerDied)
        assert "ended with 3" in str(died)
        assert good == [2, 4]


async def test_a_child_that_swells_is_killed() -> None:
    async with pool(memory_bytes=200 << 20) as (workers, _lost):
        with pytest.raises(WorkerDied, match="MiB of memory, more than 200 MiB"):
            await workers.run(f"{JOBS}:swell", 400 << 20)
        assert await workers.run(f"{JOBS}:double", 4) == 8


async def test_a_child_killed_while_idle_is_not_noticed() -> None:
    async with pool() as (workers, _):
        child = await workers.run(f"{JOBS}:pid", 1)
        os.kill(child, signal.SIGKILL)
        await asyncio.sleep(0.2)
        assert await workers.run(f"{JOBS}:double", 4) == 8


async def test_children_ignore_sigterm_and_are_recycled() -> None:
    async with pool(jobs_per_child=2) as (workers, _):
        first = await workers.run(f"{JOBS}:pid", 1)
        os.kill(first, signal.SIGTERM)
        await asyncio.sleep(0.1)
        assert await workers.run(f"{JOBS}:pid", 1) == first
        assert await workers.run(f"{JOBS}:pid", 1) != first


async def test_cancelled_jobs_leave_a_usable_pool() -> None:
    async with pool() as (workers, _):
        job = asyncio.create_task(workers.run(f"{JOBS}:hang", 1))
        await asyncio.sleep(0.2)
        job.cancel()
        await asyncio.wait([job])
        assert await workers.run(f"{JOBS}:double", 1) == 2


async def test_a_failed_warm_up_is_reported() -> None:
    workers = WorkerPool(PoolSettings(warm_up=f"{JOBS}:broken_warm_up"))
    with pytest.raises(TooFewStars, match="cold"):
        await workers.start()
    await workers.close()


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import asyncio\n"
        "from apstream.service.pool import PoolSettings, WorkerPool\n"
        "async def main():\n"
        "    pool = WorkerPool(PoolSettings())\n"
        "    await pool.start()\n"
        "    print(await pool.run('helpers.pool_jobs:pid', 1), flush=True)\n"
        "    await pool.run('helpers.pool_jobs:hang', 1)\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    command = [sys.executable, str(script)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
