"""Lanes and offsets: order, one in work per lane, and never a commit past unfinished work."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apstream.transports.lanes import Lanes, OffsetTracker


@given(st.data())
def test_position_never_passes_unfinished_work(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 200), min_size=1, max_size=30)))
    order = data.draw(st.permutations(offsets))
    tracker, unfinished, last = OffsetTracker(), set(offsets), -1
    for offset in offsets:
        tracker.begin(offset)
    for offset in order:
        tracker.finish(offset)
        unfinished.discard(offset)
        position = tracker.uncommitted
        if position is not None:
            assert all(position <= other for other in unfinished)
            assert position > last
            last = position
            tracker.committed(position)
    assert last == offsets[-1] + 1
    assert tracker.uncommitted is None


@given(st.lists(st.integers(0, 3), max_size=60), st.randoms(use_true_random=False))
def test_lanes_keep_order_and_one_in_work(arrivals: list[int], random: object) -> None:
    lanes: Lanes[int, tuple[int, int]] = Lanes()
    for number, lane in enumerate(arrivals):
        lanes.put(lane, [(lane, number)])
    lanes.close()
    seen: list[tuple[int, int]] = []
    busy: list[int] = []

    async def drive() -> None:
        while True:
            while (item := lanes._next()) is not None:
                assert item[0] not in busy
                busy.append(item[0])
                seen.append(item)
            if not busy:
                return
            lane = busy.pop(random.randrange(len(busy)))  # type: ignore[attr-defined]
            lanes.free(lane)

    asyncio.run(drive())
    assert sorted(seen, key=lambda s: s[1]) == [(lane, n) for n, lane in enumerate(arrivals)]
    for lane in set(arrivals):
        mine = [n for lane_, n in seen if lane_ == lane]
        assert mine == sorted(mine)
    assert lanes.idle


def test_offsets_must_rise() -> None:
    tracker = OffsetTracker()
    tracker.begin(5)
    with pytest.raises(ValueError, match="offset 5 after 5"):
        tracker.begin(5)


async def test_take_waits_for_the_lane_to_be_free() -> None:
    lanes: Lanes[str, int] = Lanes()
    lanes.put("a", [1, 2])
    assert await lanes.take() == 1
    waiting = asyncio.create_task(lanes.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    lanes.free("a")
    assert await waiting == 2
    assert lanes.drop("a") == 2
    lanes.close()
    assert await lanes.take() is None
