"""Who gets what next."""

from typing import NoReturn

import pytest

from qbroker_server.core import keys, limits
from qbroker_server.core.lease import LeaseId
from qbroker_server.core.records import EndReason, Stage
from tests.support.scene import QUEUE, Scene, lease_of, new


def test_a_message_that_finds_a_free_worker_is_leased_by_the_same_commit() -> None:
    scene = Scene()
    scene.register()

    scene.publish(new())

    assert scene.take_one().record.attempt == 1
    assert scene.record().stage == Stage.LEASED
    assert scene.counts().leased_count == 1


def test_no_more_are_out_than_the_worker_wants() -> None:
    scene = Scene()
    scene.register(prefetch_count=2)
    scene.publish(*(new(f"m{n}") for n in range(5)))
    first, _ = scene.take()

    scene.settle(first)

    assert scene.take_ids() == ["m2"]


def test_a_worker_that_wants_none_gets_none_until_it_does() -> None:
    scene = Scene()
    scene.register(prefetch_count=0)
    scene.publish(new())

    assert scene.take() == []
    scene.report(prefetch_count=1)
    assert scene.take_ids() == ["m1"]


def test_two_workers_share_by_room() -> None:
    scene = Scene()
    scene.register("s1", prefetch_count=20)
    scene.register("s2", prefetch_count=10)

    scene.publish(*(new(f"m{n}") for n in range(18)))

    assert len(scene.take("s1")) == 14
    assert len(scene.take("s2")) == 4


def test_a_worker_gets_only_tasks_it_knows() -> None:
    scene = Scene()
    scene.register("s1", tasks=["t1"])
    scene.register("s2", tasks=["t2"])

    scene.publish(new("a", task="t1"), new("b", task="t2"), new("c", task="t2"))

    assert scene.take_ids("s1") == ["a"]
    assert scene.take_ids("s2") == ["b", "c"]


def test_a_worker_gets_none_of_what_it_does_not_want_until_it_does() -> None:
    scene = Scene()
    scene.register(tasks=["slow", "fast"], prefetch_count=5)
    scene.report(unwanted=["slow"])

    scene.publish(new("a", task="slow", priority=9), new("b", task="fast"))

    assert scene.take_ids() == ["b"]
    scene.report(unwanted=[])
    assert scene.take_ids() == ["a"]


def test_what_is_given_back_unwanted_does_not_come_again_at_once() -> None:
    scene = Scene()
    scene.register(tasks=["slow", "fast"], prefetch_count=3)
    scene.publish(*(new(f"m{n}", task="slow") for n in range(10)), new("f", task="fast"))
    first, *rest = scene.take()

    scene.report(releases=[lease_of(one) for one in rest], unwanted=["slow"])

    assert scene.take_ids() == ["f"]
    scene.settle(first)
    assert scene.take_ids() == []


def test_a_message_nobody_knows_holds_nothing_behind_it_back() -> None:
    scene = Scene()
    scene.register(tasks=["known"], prefetch_count=1)

    scene.publish(new("strange", task="unknown", priority=9), new("usual", task="known"))

    assert scene.take_ids() == ["usual"]
    assert scene.record("strange").stage == Stage.QUEUED
    assert scene.counts().ready_count == 1
    assert scene.faults() == []


def test_a_parked_message_is_taken_when_somebody_knows_its_task() -> None:
    scene = Scene()
    scene.register("s1", tasks=["known"])
    scene.publish(new("strange", task="unknown"))

    scene.register("s2", tasks=["unknown"])

    assert scene.take_ids("s2") == ["strange"]
    assert scene.faults() == []


def test_a_parked_message_keeps_its_place_by_priority_and_arrival() -> None:
    scene = Scene()
    scene.register("s1", tasks=["known"], prefetch_count=10)
    scene.publish(new("a", task="unknown"), new("b", task="unknown", priority=5))
    scene.die("s1")
    scene.publish(new("c", task="known", priority=9), new("d", task="known"))

    scene.register("s2", tasks=["known", "unknown"])

    assert scene.take_ids("s2") == ["c", "b", "a", "d"]


def test_parked_messages_are_found_again_after_a_restart() -> None:
    scene = Scene()
    scene.register("s1", tasks=["known"])
    scene.publish(new("strange", task="unknown"))

    scene.restart()
    scene.register("s2", tasks=["unknown"])

    assert scene.take_ids("s2") == ["strange"]


def test_any_number_of_unknown_tasks_holds_nothing_back() -> None:
    scene = Scene()
    count = limits.DELIVERIES_PER_STEP_MAX + 500
    scene.publish(*(new(f"s{n}", task="unknown") for n in range(count)))
    scene.publish(new("usual", task="known"))

    scene.register(tasks=["known"], prefetch_count=1)

    assert scene.take_ids() == ["usual"]
    assert scene.counts().ready_count == count


def test_any_number_of_expired_messages_holds_nothing_back() -> None:
    scene = Scene()
    count = limits.DELIVERIES_PER_STEP_MAX + 500
    expires_ms = scene.now_ms + 1
    scene.publish(*(new(f"e{n}", expires_ms=expires_ms) for n in range(count)))
    scene.publish(new("fresh"))
    scene.clock.advance(1)

    scene.register(prefetch_count=1)

    assert scene.take_ids() == ["fresh"]


def test_an_expired_message_is_not_delivered() -> None:
    scene = Scene()
    scene.publish(new("a", expires_ms=scene.now_ms + 5), new("b"))
    scene.clock.advance(5)

    scene.register()

    assert scene.take_ids() == ["b"]
    assert scene.record("a").end_reason == EndReason.EXPIRED
    assert scene.faults() == []


def test_a_draining_worker_gets_no_more() -> None:
    scene = Scene()
    scene.register()
    scene.report(is_draining=True)

    scene.publish(new())

    assert scene.take() == []
    assert scene.record().stage == Stage.QUEUED


def test_a_worker_that_came_back_does_not_drain_any_more() -> None:
    scene = Scene()
    scene.register()
    scene.report(is_draining=True)
    scene.publish(new())

    scene.register()

    assert scene.take_ids() == ["m1"]


def test_a_worker_without_a_stream_gets_no_more() -> None:
    scene = Scene()
    scene.register()
    scene.broker.dispatcher.disconnect("s1")

    scene.publish(new())

    assert scene.take() == []
    assert scene.broker.dispatcher.consumers(QUEUE) == []


def test_consumers_are_the_connected_sessions_of_a_queue() -> None:
    scene = Scene()
    scene.register("s1", queues=("a", "b"))
    scene.register("s2", queues=("b",))

    consumers = scene.broker.dispatcher.consumers

    assert [len(consumers(name)) for name in ("a", "b", "c")] == [1, 2, 0]


def test_queues_take_turns() -> None:
    scene = Scene()
    scene.publish(*(new(f"a{n}", queue="a") for n in range(100)))
    scene.publish(*(new(f"b{n}", queue="b") for n in range(100)))

    scene.register(queues=("a", "b"), prefetch_count=20)

    given = scene.take_ids()
    assert len(given) == 20
    assert 8 <= sum(id_.startswith("a") for id_ in given) <= 12


@pytest.mark.parametrize("prefetch_count", [1, 2, 3])
def test_no_queue_starves_behind_a_long_one(prefetch_count: int) -> None:
    scene = Scene()
    names = ("a", "b", "c")
    for name in names:
        scene.publish(*(new(f"{name}{n}", queue=name) for n in range(30)))
    scene.register(queues=names, prefetch_count=prefetch_count)
    taken: list[str] = []

    for _ in range(30 // prefetch_count):
        given = scene.take()
        taken += [delivery.id[0] for delivery in given]
        for delivery in given:
            scene.settle(delivery)

    assert min(taken.count(name) for name in names) >= 5


def test_a_step_leases_a_bounded_number_and_says_there_is_more() -> None:
    scene = Scene()
    count = limits.DELIVERIES_PER_STEP_MAX + 1
    scene.publish(*(new(f"m{n}") for n in range(count)))

    scene.register(prefetch_count=limits.PREFETCH_COUNT_MAX)

    assert len(scene.take()) == count


def test_a_worker_that_does_not_read_is_given_no_more() -> None:
    scene = Scene()
    scene.register(prefetch_count=1_000)
    dispatcher = scene.broker.dispatcher
    dispatcher.sessions["s1"].unsent_bytes = limits.UNSENT_BYTES_MAX

    scene.publish(new(payload=b"x" * 10))
    assert scene.take() == []
    has_room_again = dispatcher.sent("s1", 1)

    assert has_room_again
    scene.step()
    assert scene.take_ids() == ["m1"]


def test_a_resumed_session_is_counted_afresh() -> None:
    scene = Scene()
    scene.register(prefetch_count=2)
    scene.publish(*(new(f"m{n}") for n in range(4)))
    kept, _ = scene.take()

    scene.register(prefetch_count=2, held=(LeaseId(kept.id, 1),))

    assert scene.broker.dispatcher.sessions["s1"].leased_count == 2
    assert scene.take_ids() == ["m1"]


def test_the_row_of_a_damaged_message_is_dropped_and_the_next_delivered() -> None:
    scene = Scene()
    scene.publish(new("a"), new("b"))
    scene.damage(keys.MESSAGE + b"a")

    scene.register()

    assert scene.take_ids() == ["b"]
    assert scene.counts().ready_count == 0
    assert len(scene.rows(keys.DAMAGED)) == 1


def test_a_damaged_row_is_dropped_and_the_next_delivered() -> None:
    scene = Scene()
    scene.publish(new("a"), new("b"))
    scene.write(scene.rows(keys.READY)[0][0], b"\xff\xfe")

    scene.register()

    assert scene.take_ids() == ["b"]
    assert scene.counts().ready_count == 0


def test_a_message_whose_payload_is_damaged_is_not_delivered() -> None:
    scene = Scene()
    scene.publish(new("a", payload=b"x" * 20_000), new("b"))
    scene.damage(scene.rows(keys.PAYLOAD)[2][0])

    scene.register()

    assert scene.take_ids() == ["b"]
    assert scene.counts().ready_count == 0


class _Unwalked(dict[str, object]):
    """Queues that may be looked up, but not gone through."""

    def items(self) -> NoReturn:
        raise AssertionError("all queues are gone through")

    __iter__ = keys = values = items


def test_queues_that_nobody_takes_from_cost_a_step_nothing() -> None:
    scene = Scene()
    scene.publish(*(new(f"m{n}", queue=f"q{n}") for n in range(3)))
    dispatcher = scene.broker.dispatcher
    dispatcher._queues = _Unwalked(dispatcher._queues)  # type: ignore[assignment]  # it refuses to be walked

    scene.register(queues=("q1", QUEUE))
    scene.publish(new("a"))

    assert sorted(scene.take_ids()) == ["a", "m1"]


def test_a_queue_goes_on_when_one_of_its_workers_leaves() -> None:
    scene = Scene()
    scene.register("s1")
    scene.register("s2")
    scene.die("s1")

    scene.publish(new())

    assert scene.take_ids("s2") == ["m1"]
