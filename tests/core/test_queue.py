"""A queue: its order, its lanes, its counts, and how it is emptied."""

from qbroker_server.core import keys, limits, queue
from qbroker_server.core.queue import Purge
from qbroker_server.core.records import EndReason, Stage
from tests.support.scene import QUEUE, Scene, new


def test_higher_priorities_come_first_then_arrival() -> None:
    scene = Scene()
    scene.publish(new("low"), new("high", priority=9), new("low2"), new("high2", priority=9))
    scene.publish(new("mid", priority=5))

    scene.register()

    assert scene.take_ids() == ["high", "high2", "mid", "low", "low2"]


def test_a_returned_message_stands_at_the_head_again() -> None:
    scene = Scene()
    scene.register("s1", prefetch_count=1)
    scene.publish(new("a"), new("b"), new("c"))
    scene.die("s1")

    scene.register("s2")

    assert scene.take_ids("s2") == ["a", "b", "c"]


def test_names_are_the_queues_ever_used() -> None:
    scene = Scene()
    scene.publish(new("a", queue="one"), new("b", queue="two"))
    scene.register(queues=("three",))

    assert scene.broker.read(queue.names) == ["one", "three", "two"]


def test_a_queue_whose_name_begins_with_anothers_is_another() -> None:
    scene = Scene()
    scene.publish(new("a", queue="q"), new("b", queue="qq"), new("c", queue="q."))

    purged_count = scene.do(Purge("q"))

    assert purged_count == 1
    assert scene.record("b").stage == scene.record("c").stage == Stage.QUEUED
    assert scene.faults() == []


def test_purge_revokes_what_waits_and_leaves_what_runs_or_is_scheduled() -> None:
    scene = Scene()
    scene.register(prefetch_count=1)
    scene.publish(new("runs"), new("waits"), new("later", eta_ms=scene.now_ms + 1))

    purged_count = scene.do(Purge(QUEUE))

    assert purged_count == 1
    assert scene.record("waits").end_reason == EndReason.REVOKED
    assert scene.record("waits").state == "REVOKED"
    assert scene.record("runs").stage == Stage.LEASED
    assert scene.record("later").stage == Stage.SCHEDULED
    assert scene.faults() == []


def test_purge_takes_parked_messages_too() -> None:
    scene = Scene()
    scene.register(tasks=["proj.other"])
    scene.publish(new("parked"))

    purged_count = scene.do(Purge(QUEUE))

    assert purged_count == 1
    assert scene.faults() == []


def test_purge_of_a_queue_nobody_has_named_finds_nothing() -> None:
    scene = Scene()

    assert scene.do(Purge("nobody's")) == 0
    assert scene.do(Purge("x" * 1_000)) == 0


def test_purge_takes_no_more_than_a_steps_worth() -> None:
    scene = Scene()
    scene.publish(*(new(f"m{n}") for n in range(limits.STEP_ITEMS_MAX + 1)))

    first, second = scene.do(Purge(QUEUE)), scene.do(Purge(QUEUE))

    assert (first, second) == (limits.STEP_ITEMS_MAX, 1)
    assert scene.counts().ready_count == 0


def test_purge_drops_the_row_of_a_damaged_message() -> None:
    scene = Scene()
    scene.publish(new("a"), new("b"))
    scene.damage(keys.MESSAGE + b"a")

    scene.do(Purge(QUEUE))

    assert scene.counts().ready_count == 0
    assert scene.rows(keys.READY) == []


def test_lanes_are_those_of_parked_tasks() -> None:
    scene = Scene()
    scene.register(tasks=["proj.none"])
    scene.publish(new("a", task="t1"), new("b", task="t2"), new("c", task="t2"))

    lanes = scene.broker.read(lambda txn: list(queue.lanes(txn, QUEUE)))

    assert sorted(lanes) == sorted([queue.lane_of("t1"), queue.lane_of("t2")])


def test_a_damaged_count_costs_no_message() -> None:
    scene = Scene()
    scene.publish(new("a"), new("b"))
    scene.damage(keys.QUEUE + QUEUE.encode())

    scene.restart()
    scene.register()

    assert scene.take_ids() == ["a", "b"]
