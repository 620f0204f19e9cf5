"""Time every stage, and the classical tools on the same images where they are installed.

    make bench                      # 2048 and 4096 pixels
    python -m benchmarks.run --sizes 1024 --runs 1

Everything runs in processes of their own on one processor with one thread. Each command runs once to fill
the caches and then --runs times; the median is printed. Times are wall seconds of this machine, now: compare
columns and rows of one run, not runs of different days.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import missing_programs, run_chain
from benchmarks.peers import table as peers_table

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_ONE_CORE = dict.fromkeys(_THREADS, "1")


@dataclass(frozen=True)
class Timing:
    """Median wall seconds per stage and of the process, and its peak memory."""

    stages: dict[str, float]
    process_s: float
    peak_mib: float


def time_job(job: str, folder: Path, *, runs: int, cpu: int) -> Timing:
    """Run ``benchmarks.stages JOB FOLDER`` several times, after once to warm up."""
    results = [_run_once(job, folder, cpu) for _ in range(runs + 1)][1:]
    names = list(results[0].stages)
    return Timing(
        stages={name: statistics.median(r.stages[name] for r in results) for name in names},
        process_s=statistics.median(r.process_s for r in results),
        peak_mib=max(r.peak_mib for r in results),
    )


def _run_once(job: str, folder: Path, cpu: int) -> Timing:
    done = subprocess.run(
        ["taskset", "-c", str(cpu), sys.executable, "-m", "benchmarks.stages", job, str(folder)],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **_ONE_CORE},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return Timing(found["stages"], found["process_s"], found["peak_mib"])


def stage_table(title: str, timings: dict[int, Timing]) -> str:
    """Return a table with one column per image size and the growth from the first to the last."""
    sizes = sorted(timings)
    names = list(timings[sizes[-1]].stages)
    lines = [title, f"{'stage':<24}" + "".join(f"{size:>10}" for size in sizes) + f"{'growth':>10}"]
    for name in [*names, "whole process"]:
        values = [_value(timings[size], name) for size in sizes]
        growth = f"{values[-1] / values[0]:>9.1f}x" if values[0] > 0.005 and len(values) > 1 else f"{'':>10}"
        lines.append(f"{name:<24}" + "".join(f"{value:>10.2f}" for value in values) + growth)
    lines.append(f"{'peak MiB':<24}" + "".join(f"{timings[size].peak_mib:>10.0f}" for size in sizes))
    return "\n".join(lines)


def _value(timing: Timing, name: str) -> float:
    return timing.process_s if name == "whole process" else timing.stages.get(name, 0.0)


def main() -> None:
    """Make the images, time the jobs, print the tables."""
    parser = argparse.ArgumentParser(description="Time every stage on simulated images.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--work", type=Path, help="Folder for images; kept and used again")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="apstream-bench-"))
    pairs, nights, peers = {}, {}, []
    for size in options.sizes:
        folder = work / str(size)
        if not (folder / "ready").exists():
            subprocess.run([sys.executable, "-m", "benchmarks.stages", "prepare", str(folder), str(size)], check=True)
        pairs[size] = time_job("pair", folder, runs=options.runs, cpu=options.cpu)
        nights[size] = time_job("night", folder, runs=options.runs, cpu=options.cpu)
        if not missing_programs():
            clean, place = folder / "clean", folder / "peers"
            place.mkdir(exist_ok=True)
            peers.append((size, run_chain(clean / "science.fits", clean / "template.fits", place, cpu=options.cpu)))
    print(stage_table("apstream subtract SCIENCE TEMPLATE --refcat (wall s, one core)", pairs))
    print()
    print(stage_table("raw frame to alerts (wall s, one core)", nights))
    for size, chain in peers:
        print(f"\nthe classical chain on the same field without cosmic rays, {size} pixels\n{peers_table(chain)}")
    if absent := missing_programs():
        print(f"\nthe classical chain is not timed: {', '.join(absent)} not on the PATH")


if __name__ == "__main__":
    main()
