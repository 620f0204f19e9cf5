"""Calexps as inputs of coadds: what is read of their files, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.reading import bytes_read
from helpers.sky_field import SIDE, calexp

from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.pipeline.coadd_inputs import CoaddInput
from apstream.repo.repository import Repository
from apstream.service.calexps import deferred_input, in_memory

WHOLE_MB = 12 * SIDE**2 / 1e6


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository.create(tmp_path_factory.mktemp("calexps") / "repo", camera="simcam")
    made.put(calexp(1, 0), "calexp", visit=1, detector=0, band="r")
    return made


def test_no_more_than_a_part_is_read(repository: Repository):
    id = VisitDetector("simcam", 1, 0)

    def part() -> CoaddInput:
        item = deferred_input(repository, id)
        assert item.read(Box(100, 0, 110, SIDE)).box == Box(100, 0, 110, SIDE)
        return item

    part()  # once, so that everything is imported
    assert bytes_read(part) < 0.3e6 * WHOLE_MB
    assert bytes_read(lambda: deferred_input(repository, id).read(Box(0, 0, SIDE, SIDE))) > 0.9e6 * WHOLE_MB


def test_calexps_are_kept_whole_only_if_they_fit():
    asked: list[Box] = []

    def recorded(read: Callable[[Box], object]) -> Callable[[Box], object]:
        return lambda box: (asked.append(box), read(box))[1]

    one = CoaddInput.of(calexp(1, 0))
    items = [replace(one, read=recorded(one.read))] * 10
    kept, left = in_memory(items, 16)
    assert left == 16 - int(10 * WHOLE_MB)
    for row in range(4):
        kept[0].read(Box(row, 0, row + 1, SIDE))
    assert asked == [Box(0, 0, SIDE, SIDE)]
    parts, left = in_memory(items, 13)
    assert left == 13
    parts[0].read(Box(3, 0, 4, SIDE))
    assert asked[-1] == Box(3, 0, 4, SIDE)
