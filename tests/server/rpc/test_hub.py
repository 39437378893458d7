"""Events on their way from those who tell to those who listen."""

import asyncio
import json

from qbroker_proto.v1.control_pb2 import Event
from qbroker_server.rpc import hub
from qbroker_server.rpc.hub import Hub, Listener
from tests.support.clock import FakeClock


def events(*types: str) -> list[Event]:
    return [Event(type=one, body=b"{}") for one in types]


async def heard(listener: Listener) -> list[tuple[str, int]]:
    reply = await listener.next()
    return [(event.type, event.clock) for event in reply.events] if reply is not None else []


async def test_each_listener_hears_all_from_when_it_came_numbered_in_one_order() -> None:
    post = Hub(FakeClock())
    post.publish(events("worker-online"))

    with post.listen("#") as first:
        post.publish(events("task-sent"))
        with post.listen("") as second:
            post.publish(events("task-received", "task-started"))
            found = await heard(first), await heard(second)

    rest = [("task-received", 2), ("task-started", 3)]
    assert found == ([("task-sent", 1), *rest], rest)


async def test_a_listener_may_want_some_types_only() -> None:
    post = Hub(FakeClock())
    told = events("task-sent", "worker-heartbeat", "task-custom-a")

    with post.listen("task.*") as word, post.listen("task.#") as words:
        post.publish(told)
        found = await heard(word), await heard(words)

    assert found == ([("task-sent", 1)], [("task-sent", 1), ("task-custom-a", 3)])


async def test_who_tells_is_told_when_the_first_listener_comes_and_the_last_goes() -> None:
    post = Hub(FakeClock())
    told: list[bool] = []

    with post.follow(told.append), post.listen("#"), post.listen("#"):
        is_wanted = post.is_wanted
    with post.listen("#"):
        pass

    assert is_wanted
    assert told == [True, False]


async def test_a_listener_that_is_too_slow_is_cut_off_and_the_others_are_not() -> None:
    post = Hub(FakeClock())
    batch = events(*["task-sent"] * 1_000)

    with post.listen("#") as slow, post.listen("#") as quick:
        count = 0
        for _ in range(hub.BEHIND_MAX // 1_000 + 1):
            post.publish(batch)
            count += len(await heard(quick))

        assert count == hub.BEHIND_MAX + 1_000
        assert slow.is_too_slow
        assert "events behind" in slow.reason
        assert await slow.next() is None
        assert not quick.is_too_slow


async def test_what_was_heard_before_the_end_is_still_sent() -> None:
    post = Hub(FakeClock())

    with post.listen("#") as listener:
        post.publish(events("task-sent"))
        listener.close("the broker is shutting down")
        post.publish(events("task-sent"))
        found = [await heard(listener), await heard(listener)]

    assert found == [[("task-sent", 1)], []]


async def test_a_worker_that_was_lost_is_told_of_in_its_name() -> None:
    post = Hub(FakeClock())

    with post.listen("#") as listener:
        post.lost("a@host", 7)
        reply = await listener.next()

    assert reply is not None
    fields = json.loads(reply.events[0].body)
    assert (fields["type"], fields["hostname"], fields["pid"]) == ("worker-offline", "a@host", 7)


async def test_what_comes_shortly_behind_goes_out_together_but_the_first_at_once() -> None:
    post = Hub(FakeClock())

    with post.listen("#") as listener:
        post.publish(events("task-sent"))
        first = await heard(listener)
        post.publish(events("task-received"))
        async with asyncio.TaskGroup() as group:
            rest = group.create_task(heard(listener))
            await asyncio.sleep(0)
            post.publish(events("task-started"))

    assert first == [("task-sent", 1)]
    assert rest.result() == [("task-received", 2), ("task-started", 3)]
