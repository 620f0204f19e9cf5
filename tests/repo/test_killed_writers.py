"""Writers that are killed at any moment leave no half dataset visible and no row without its file."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from apstream.repo.repository import Repository
from apstream.repo.upkeep import check_repository

_WRITERS = 8
_POLICY = "page: {template: 'page/{visit}/{detector}.txt', format: text}\n"
_PER_VISIT = 50


def page(number: int) -> str:
    """A text that says itself whether it is whole."""
    body = f"{number} " * random.Random(number).randint(1, 3000)
    return f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}"


def is_whole(text: str) -> bool:
    head, _, body = text.partition("\n")
    return head == hashlib.sha256(body.encode()).hexdigest()


def data_id(number: int) -> dict[str, int]:
    return {"visit": number // _PER_VISIT, "detector": number % _PER_VISIT}


def write(root: str, writer: int, numbers: range, seed: int) -> None:
    """Put what is not there yet, and now and then put again what is."""
    repository = Repository(root)
    dice = random.Random(seed)
    done = {entry.identity["visit"] * _PER_VISIT + entry.identity["detector"] for entry in repository.find("page")}
    for number in numbers:
        if number not in done:
            repository.put(page(number), "page", **data_id(number))
        elif dice.random() < 0.02:
            repository.put(page(number + 1_000_000), "page", **data_id(number))


def run_and_kill(root: str, total: int, kills: int, seed: int) -> int:
    """Run eight writers, kill one at random again and again and start it anew; return how many were killed."""
    context, dice, killed = multiprocessing.get_context("fork"), random.Random(seed), 0

    def start(writer: int) -> BaseProcess:
        numbers = range(writer, total, _WRITERS)
        process = context.Process(target=write, args=(root, writer, numbers, dice.randrange(1 << 30)))
        process.start()
        return process

    running = {writer: start(writer) for writer in range(_WRITERS)}
    while running:
        time.sleep(dice.uniform(0.02, 0.25))
        for writer, process in list(running.items()):
            if not process.is_alive():
                assert process.exitcode in (0, -signal.SIGKILL)
                del running[writer]
                if process.exitcode != 0:
                    running[writer] = start(writer)
        if running and killed < kills and (pid := dice.choice(list(running.values())).pid):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def no_half_dataset(root: str, total: int) -> None:
    repository = Repository(root)
    entries = repository.find("page")
    assert len(entries) == total
    assert all(is_whole(repository.get_entry(entry)) for entry in entries)
    report = check_repository(repository, contents=True)
    assert (report.datasets, report.damaged) == (total, [])
    check_repository(repository, remove_orphans=True, before=time.time() + 10)
    assert check_repository(repository, before=time.time() + 10).orphans == []
    assert len(list((Path(root) / "page").rglob("*"))) == total + len(list((Path(root) / "page").iterdir()))


def test_ten_thousand_datasets_by_eight_writers_of_which_many_are_killed(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "repo", camera="simcam")
    (tmp_path / "repo" / "policy.yaml").write_text(_POLICY)
    repository.close()
    assert run_and_kill(repository.root, 10_000, kills=40, seed=5) >= 20
    no_half_dataset(repository.root, 10_000)


@pytest.mark.postgres
def test_killed_writers_with_a_registry_in_postgresql(tmp_path: Path, postgres_url: str) -> None:
    repository = Repository.create(tmp_path / "repo", camera="simcam", registry=postgres_url)
    (tmp_path / "repo" / "policy.yaml").write_text(_POLICY)
    repository.close()
    assert run_and_kill(repository.root, 2_000, kills=15, seed=6) >= 5
    no_half_dataset(repository.root, 2_000)
