"""Events from folders and JSON lines, alerts and dead letters to files."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from apstream.errors import BadSettings, StorageUnavailable
from apstream.ports import Message
from apstream.transports.files import FilesSink, FilesSource
from apstream.transports.settings import FilesSettings


async def take_all(source: FilesSource) -> list[Message]:
    taken = []
    async with asyncio.timeout(20):
        async for message in source.messages():
            taken.append(message)
            await source.done(message)
    await source.close()
    return taken


async def test_a_folder_gives_one_event_per_file_in_order(tmp_path: Path) -> None:
    for name in ("b.fits", "a.fits.gz", "c.txt", ".hidden.fits"):
        (tmp_path / name).touch()
    source = FilesSource(FilesSettings(events=tmp_path, alerts=tmp_path / "out"))
    names = [Path(json.loads(m.value)["uri"]).name for m in await take_all(source)]
    assert names == ["a.fits.gz", "b.fits"]
    assert source.idle


async def test_lines_of_one_detector_stay_in_order_and_others_overtake(tmp_path: Path) -> None:
    events = [{"uri": f"/{n}", "instrument": "cam", "detector": n % 2} for n in range(4)]
    path = tmp_path / "night.jsonl"
    path.write_text("\n".join([*(json.dumps(e) for e in events), "", "not json"]))
    source = FilesSource(FilesSettings(events=path, alerts=tmp_path))
    messages = source.messages()
    async with asyncio.timeout(20):
        first, second, junk = [await anext(messages) for _ in range(3)]
        assert [json.loads(m.value)["uri"] for m in (first, second)] == ["/0", "/1"]
        assert junk.value == b"not json"
        await source.done(second)
        assert json.loads((await anext(messages)).value)["uri"] == "/3"
    await source.close()


async def test_a_watched_folder_waits_until_a_file_is_whole(tmp_path: Path) -> None:
    source = FilesSource(FilesSettings(events=tmp_path, alerts=tmp_path / "out", watch_s=0.1))
    messages = source.messages()
    await source.start()
    growing = tmp_path / "a.fits"
    growing.write_bytes(b"1")
    async with asyncio.timeout(20):
        message = await anext(messages)
    assert json.loads(message.value)["uri"] == str(growing)
    await source.close()
    assert [m async for m in messages] == []


async def test_no_such_folder_is_typed(tmp_path: Path) -> None:
    source = FilesSource(FilesSettings(events=tmp_path / "nowhere.jsonl", alerts=tmp_path))
    with pytest.raises(BadSettings, match=r"nowhere\.jsonl"):
        await take_all(source)


async def test_dead_letters_are_kept_as_they_came(tmp_path: Path) -> None:
    sink = FilesSink(FilesSettings(events=tmp_path, alerts=tmp_path / "out"))
    message = Message(b"\xff\x00", topic="folder", offset=3)
    for _ in range(2):  # the same again is the same file
        await sink.dead_letter(message, reason="not JSON", error_class="MalformedEvent")
    (path,) = (tmp_path / "out" / "dead").iterdir()
    record = json.loads(path.read_text())
    assert base64.b64decode(record["payload_base64"]) == b"\xff\x00"
    assert record["origin"] == "folder[0]@3"


async def test_a_disk_that_refuses_is_typed_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    sink = FilesSink(FilesSettings(events=tmp_path, alerts=tmp_path / "out"))
    with pytest.raises(StorageUnavailable):
        await sink.dead_letter(Message(b"x"), reason="r", error_class="E")
