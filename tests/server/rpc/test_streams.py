"""The open streams."""

import asyncio

from qbroker_server.rpc.streams import Streams


async def test_every_open_stream_is_told_the_reason() -> None:
    streams, heard = Streams(), list[str]()

    with streams.open(heard.append), streams.open(lambda reason: heard.append(reason.upper())):
        await streams.close_all("bye", 0)

    assert sorted(heard) == ["BYE", "bye"]


async def test_a_stream_that_comes_too_late_is_told_at_once() -> None:
    streams, heard = Streams(), list[str]()
    await streams.close_all("bye", 10)

    with streams.open(heard.append):
        pass

    assert heard == ["bye"]


async def test_a_stream_that_has_ended_is_told_nothing() -> None:
    streams, heard = Streams(), list[str]()
    with streams.open(heard.append):
        pass

    await streams.close_all("bye", 10)

    assert heard == []


async def test_closing_waits_until_the_last_has_ended() -> None:
    streams, ends = Streams(), asyncio.Event()

    async def stream() -> None:
        with streams.open(lambda _: ends.set()):
            await ends.wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(stream())
        await asyncio.sleep(0)
        await streams.close_all("bye", 10)

        assert task.done() or ends.is_set()
    assert streams._closers == set()


async def test_closing_does_not_wait_for_ever() -> None:
    streams = Streams()

    with streams.open(lambda _: None):
        await streams.close_all("bye", 0.01)

        assert len(streams._closers) == 1
