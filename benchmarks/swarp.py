"""Coadds beside SWarp's: the same simulated visits, files to file, one core; time and quality in one run.

    python -m benchmarks.swarp WORK --size 4096 --visits 5 10 --memory 5 10 20

Visits of one made-up sky (stars, seeing 0.7 to 1.3 arcsec, shifted and turned) are written as calexps for us
and as image and weight for SWarp, with asteroids, satellite trails and cosmic-ray hits in single visits.
Both combine them on the same grid with Lanczos-3: weighted mean, and with outliers left out. Quality is
measured alike on both results: stars' fluxes and blank sky with the PSF of the ideal coadd, and what is left of
the artifacts. SWarp is told the gain, without which it takes the noise of sources as infinite and clips nothing.
Without SWarp on the PATH only ours is run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from apstream.arrays.types import F32
from apstream.model.mask import planes
from apstream.repo.formats.fits import read_calexp
from benchmarks.coadd_files import KINDS, SCALE, grid_wcs
from benchmarks.coadd_truth import BINS, GAIN, Field, Quality, make_field, quality, truth_of

__all__ = ["main"]

#: Our side; garbage is looked for as seldom as in the command `apstream`.
_START = "import gc; gc.set_threshold(400_000, 50, 50); from benchmarks.coadd_files import main; main()"
_SWARP = {"mean": "WEIGHTED", "artifacts left out": "CLIPPED"}


def swarp_files(work: Path, size: int, visits: int, kind: str) -> list[str]:
    """Return the command of SWarp for the same."""
    program = shutil.which("SWarp") or shutil.which("swarp")
    assert program is not None
    (work / "coadd.head").write_text(grid_wcs(size).to_header().tostring(sep="\n", padding=False) + "\nEND\n")
    settings = {
        "COMBINE_TYPE": _SWARP[kind], "RESAMPLING_TYPE": "LANCZOS3", "SUBTRACT_BACK": "N", "WEIGHT_TYPE": "MAP_WEIGHT",
        "WEIGHT_SUFFIX": ".weight.fits", "IMAGEOUT_NAME": "coadd.fits", "WEIGHTOUT_NAME": "coadd.weight.fits",
        "CENTER_TYPE": "MANUAL", "CENTER": "150.0,2.0", "IMAGE_SIZE": f"{size},{size}", "PIXELSCALE_TYPE": "MANUAL",
        "PIXEL_SCALE": SCALE, "FSCALASTRO_TYPE": "FIXED", "NTHREADS": 1, "WRITE_XML": "N", "VERBOSE_TYPE": "QUIET",
        "CLIP_SIGMA": 4.0, "CLIP_AMPFRAC": 0.3, "DELETE_TMPFILES": "Y", "GAIN_DEFAULT": GAIN,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"-{name}", str(value))]
    return [program, *(f"visit{k}.fits" for k in range(visits)), "-c", "/dev/null", *words]


@dataclass(frozen=True)
class Took:
    """Wall and CPU seconds of a command, the CPU seconds that it prints, and its largest memory."""

    wall: float
    cpu: float
    inside: float
    memory_mb: float


def timed(command: list[str], work: Path, runs: int) -> Took:
    """Run a command pinned to one core, and return the least of what it took."""
    found = [_run_once(["taskset", "-c", str(max(os.sched_getaffinity(0))), *command], work) for _ in range(runs)]
    return Took(*(min(getattr(one, name) for one in found) for name in ("wall", "cpu", "inside", "memory_mb")))


def _run_once(command: list[str], work: Path) -> Took:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, cwd=work, stdout=out, stderr=err, env=environment)
        pid, memory = 0, 0.0
        while not pid:
            memory = _peak_mb(process.pid) or memory
            time.sleep(0.02)
            pid, status, used = os.wait4(process.pid, os.WNOHANG)  # what this one process took
        process.returncode = os.waitstatus_to_exitcode(status)
        wall, cpu = time.monotonic() - start, used.ru_utime + used.ru_stime
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(err.read()[-2000:])
        return Took(wall, cpu, float(out.read() or cpu), memory)


def _peak_mb(pid: int) -> float:
    # of the program that runs now: the resource usage would count the process that it was forked from
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return float(found[1]) / 1024 if found else 0.0


def main() -> None:
    """Simulate, run both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--visits", type=int, nargs="+", default=[5])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--memory", type=int, nargs="*", default=[], help="numbers of visits of which memory is told")
    given = parser.parse_args()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for visits in given.visits:
        field = make_field(work, given.size, visits)
        truth = truth_of(field, given.size)
        print(f"\n{visits} visits of {given.size} x {given.size}, one core")
        print("| | wall s | CPU s | inside s | MB | noise / ideal | trails, all artifacts (sigma) | asteroids (S/N) |")
        print("|---|---|---|---|---|---|---|---|")
        for kind in KINDS:
            _compare(work, visits, kind, (field, truth), given.runs)
    for kind in KINDS if given.memory else ():
        took = [_ours(work, given.size, visits, kind, 1) for visits in given.memory]
        told = ", ".join(
            f"{visits} visits {one.memory_mb:.0f} MB" for visits, one in zip(given.memory, took, strict=True)
        )
        print(f"apstream, {kind}: {told}")


def _ours(work: Path, size: int, visits: int, kind: str, runs: int) -> Took:
    command = [sys.executable, "-c", _START, str(work), str(size), str(visits), kind]
    return timed(command, Path(__file__).resolve().parents[1], runs)


def _compare(work: Path, visits: int, kind: str, known: tuple[Field, F32], runs: int) -> None:
    size = len(known[1])
    _ours(work, size, visits, kind, 1)  # compiled once
    mine = _ours(work, size, visits, kind, runs)
    _row(f"apstream, {kind}", mine, quality(read_calexp(work / f"ours {kind}.fits").image.image, *known))
    flags = read_calexp(work / f"ours {kind}.fits").image.mask
    print(f"CLIPPED: {((flags & planes('CLIPPED')) != 0).mean():.2%} of the pixels")
    if shutil.which("SWarp") or shutil.which("swarp"):
        theirs = timed(swarp_files(work, size, visits, kind), work, runs)
        (work / "coadd.fits").replace(work / f"swarp {kind}.fits")
        image = np.asarray(fits.getdata(work / f"swarp {kind}.fits"), np.float32)
        _row(f"SWarp {_SWARP[kind]}", theirs, quality(image, *known))
        print(f"ratio of wall times {theirs.wall / mine.wall:.1f}, of CPU times {theirs.cpu / mine.cpu:.1f}")


def _row(name: str, took: Took, q: Quality) -> None:
    print(
        f"| {name} | {took.wall:.2f} | {took.cpu:.2f} | {took.inside:.2f} | {took.memory_mb:.0f} "
        f"| {q.noise_ratio:.3f} | {q.trails_sigma:.3f}, {q.artifacts_sigma:.3f} | {q.asteroid_sigma:.2f} |"
    )
    for low, high, (bias, error, n) in zip(BINS, BINS[1:], q.biases, strict=False):
        print(f"flux bias, S/N {low} to {high:.0f}: {bias:.2f} +- {error:.2f} mmag of {n} stars", flush=True)


if __name__ == "__main__":
    main()
