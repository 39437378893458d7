"""A queue: its order, its lanes, its counts, and how it is emptied."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from qbroker_server.core import dead, keys, limits, queue, routing
from qbroker_server.core.errors import Conflict, Invalid, NotFound
from qbroker_server.core.lease import Outcome, Settle
from qbroker_server.core.publish import NewJoin, NewMessage, NewWorkflow, Publish
from qbroker_server.core.queue import Declare, Move, Pause, Purge, Remove, Resume
from qbroker_server.core.records import (
    EndReason,
    Extras,
    Flag,
    Overflow,
    QueueOptions,
    QueueRecord,
    Stage,
    Wait,
)
from qbroker_server.core.revoke import Revoke
from qbroker_server.core.routes import Binding, Exchange, Route
from qbroker_server.core.schedule import Reschedule
from tests.support.scene import QUEUE, Scene, done, lease_of, new


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

    by_head = {head: lane for lane, head in lanes}
    assert by_head.keys() == {"a", "b"}
    assert all(lane.startswith(queue.PARKED) for lane in by_head.values())
    assert by_head["a"] != by_head["b"]
    assert scene.record("c").lane == by_head["b"]


def test_a_damaged_count_costs_no_message() -> None:
    scene = Scene()
    scene.publish(new("a"), new("b"))
    scene.damage(keys.QUEUE + QUEUE.encode())

    scene.restart()
    scene.register()

    assert scene.take_ids() == ["a", "b"]


# -- queues as objects ---------------------------------------------------------------------------


def options(scene: Scene, name: str = QUEUE) -> QueueOptions:
    return scene.counts(name).options


def test_a_declared_queue_keeps_its_options_over_a_restart() -> None:
    scene = Scene()
    wanted = QueueOptions(length_max=5, overflow="drop-head", message_ttl_ms=1_000)

    scene.do(Declare("mail", wanted))
    scene.restart()

    assert options(scene, "mail") == wanted


def test_declaring_a_new_queue_that_exists_names_the_difference() -> None:
    scene = Scene()
    scene.do(Declare("mail", QueueOptions(length_max=5)))

    scene.do(Declare("mail", QueueOptions(length_max=5), is_new=True))
    with pytest.raises(Conflict, match="length_max is 5, not 6"):
        scene.do(Declare("mail", QueueOptions(length_max=6), is_new=True))

    assert options(scene, "mail").length_max == 5


@pytest.mark.parametrize("wrong", [QueueOptions(length_max=-1), QueueOptions(overflow="explode")])
def test_options_that_cannot_be_are_refused(wrong: QueueOptions) -> None:
    scene = Scene()

    with pytest.raises(Invalid, match="of queue 'mail'"):
        scene.do(Declare("mail", wrong))

    assert scene.rows(keys.QUEUE) == []


def test_a_full_queue_refuses_or_drops_or_buries() -> None:
    scene = Scene()
    for overflow in Overflow:
        scene.do(Declare(overflow, QueueOptions(length_max=2, overflow=overflow)))
        ids = [f"{overflow}{n}" for n in range(3)]

        published = scene.publish(*[new(i, queue=overflow) for i in ids])

        stages = [record.stage if (record := scene.find(i)) else None for i in ids]
        match overflow:
            case Overflow.REJECT:
                assert "2 of 2 messages (max-length)" in str(published.refusals[0][1])
                assert stages == [Stage.QUEUED, Stage.QUEUED, None]
            case Overflow.DROP_HEAD:
                assert stages == [Stage.DONE, Stage.QUEUED, Stage.QUEUED]
                assert scene.record(ids[0]).end_reason == EndReason.DROPPED
            case Overflow.DEAD_LETTER:
                assert stages == [Stage.DEAD, Stage.QUEUED, Stage.QUEUED]
    assert scene.faults() == []


def test_a_queue_full_of_bytes_refuses() -> None:
    scene = Scene()
    scene.do(Declare(QUEUE, QueueOptions(bytes_max=100)))

    published = scene.publish(new("a", payload=b"x" * 60), new("b", payload=b"x" * 60))

    assert "60 of 100 bytes (max-bytes)" in str(published.refusals[0][1])


def test_messages_of_a_queue_expire_by_its_rule_or_their_own_whichever_is_sooner() -> None:
    scene = Scene()
    scene.do(Declare(QUEUE, QueueOptions(message_ttl_ms=1_000)))
    scene.publish(new("queue's"), new("own", expires_ms=scene.now_ms + 500))

    scene.pass_time(500)
    half = [scene.record(i).state for i in ("queue's", "own")]
    scene.pass_time(500)

    assert half == ["", "REVOKED"]
    assert scene.record("queue's").state == "REVOKED"


def test_a_queues_own_limit_of_deaths_counts_where_the_message_says_nothing() -> None:
    scene = Scene()
    scene.register()
    scene.do(Declare(QUEUE, QueueOptions(deaths_max=1)))
    scene.publish(new("quiet", flags=Flag.ACK_LATE))

    scene.settle(scene.take_one(), Outcome.WORKER_LOST)

    assert scene.record("quiet").stage == Stage.DEAD


def test_a_paused_queue_gives_nothing_until_it_is_resumed_also_over_a_restart() -> None:
    scene = Scene()
    scene.do(Pause(QUEUE, "ops", "upgrade"))
    scene.publish(new())

    scene.restart()
    scene.register()
    held_back = scene.take()
    scene.do(Resume(QUEUE))

    assert held_back == []
    assert scene.take_ids() == ["m1"]


def test_a_moved_queue_keeps_its_order_behind_what_is_there() -> None:
    scene = Scene()
    scene.publish(new("there", queue="target"))
    scene.publish(new("low"), new("high", priority=9))

    moved_count = scene.do(Move(QUEUE, "target"))
    scene.register(queues=("target",))

    assert moved_count == 2
    assert scene.take_ids() == ["high", "there", "low"]
    assert scene.faults() == []


def test_only_an_empty_queue_is_removed() -> None:
    scene = Scene()
    scene.publish(new(eta_ms=2**50))

    with pytest.raises(Conflict, match="1 scheduled"):
        scene.do(Remove(QUEUE))
    scene.do(Revoke(["m1"]))
    scene.do(Remove(QUEUE))

    assert scene.rows(keys.QUEUE) == []
    with pytest.raises(NotFound, match="no queue 'celery'"):
        scene.do(Remove(QUEUE))


def test_a_queue_that_expires_goes_when_it_has_been_idle() -> None:
    scene = Scene()
    scene.do(Declare("brief", QueueOptions(expires_ms=1_000)))

    scene.pass_time(1_000)
    after_one = scene.rows(keys.QUEUE)
    scene.pass_time(1_000)

    assert len(after_one) == 1
    assert scene.rows(keys.QUEUE) == []


def test_a_queue_that_expires_stays_while_it_is_used() -> None:
    scene = Scene()
    scene.do(Declare("busy", QueueOptions(expires_ms=1_000)))
    scene.do(Declare("watched", QueueOptions(expires_ms=1_000)))
    scene.register(queues=("watched",))

    for n in range(5):
        scene.publish(new(f"m{n}", queue="busy"))
        scene.pass_time(1_000)
        scene.do(Revoke([f"m{n}"]))

    names = {key[len(keys.QUEUE) :].decode() for key, _ in scene.rows(keys.QUEUE)}
    assert names == {"busy", "watched"}


def test_low_priorities_progress_where_messages_age() -> None:
    scene = Scene()
    scene.do(Declare(QUEUE, QueueOptions(ageing_ms=1_000)))
    scene.publish(new("old", priority=0))
    scene.pass_time(5_000)
    scene.publish(new("young", priority=4), new("urgent", priority=9))

    scene.register(prefetch_count=3)

    assert scene.take_ids() == ["urgent", "old", "young"]


def test_a_queue_made_again_after_it_was_removed_while_paused_delivers() -> None:
    scene = Scene()
    scene.register()
    scene.do(Pause(QUEUE, "me", "a test"))
    scene.do(Remove(QUEUE))

    scene.publish(new("m1"))

    assert scene.take_ids() == ["m1"]


def test_a_queue_removed_and_made_again_in_one_step_begins_anew() -> None:
    scene = Scene()
    scene.do(Declare(QUEUE, QueueOptions(length_max=1)))
    scene.do(
        routing.Declare((Exchange("x", "fanout"),), (), (Binding("x", QUEUE), Binding("x", "q2")))
    )

    scene.broker.submit(Remove(QUEUE), lambda _: None)
    scene.broker.submit(Remove("q2"), lambda _: None)
    scene.broker.submit(routing.Declare((), (), (Binding("x", QUEUE),)), lambda _: None)
    scene.broker.submit(Publish((new("a"), new("b"))), lambda _: None)
    scene.step()

    assert scene.counts() == QueueRecord(ready_count=2, ready_bytes=8, last_seq=2)
    assert len(scene.rows(keys.BINDING)) == 1
    assert scene.broker.read(queue.names) == [QUEUE]
    assert scene.faults() == []


# -- every way into a queue -----------------------------------------------------------------------


def _failed(scene: Scene, message: NewMessage) -> None:
    scene.publish(replace(new("m0", queue="other"), errbacks=(message,)))
    scene.settle(scene.take_one(), Outcome.FAILURE, b"boom")


def _replaced(scene: Scene, message: NewMessage) -> None:
    scene.publish(new(message.id, queue="other"))
    lease = lease_of(scene.take_one())
    answer = Settle(lease.id, lease.attempt, Outcome.REPLACED, b"", message=message)
    scene.report(settles=[answer])


def _retried(scene: Scene, message: NewMessage) -> None:
    scene.publish(new(message.id, queue="other"))
    lease = lease_of(scene.take_one())
    answer = Settle(lease.id, lease.attempt, Outcome.RETRY, b"", message=message)
    scene.report(settles=[answer])


def _followed(scene: Scene, message: NewMessage) -> None:
    scene.publish(new("m0", queue="other"))
    scene.report(settles=[done(scene.take_one(), follow_ups=(message,))])


def _joined(scene: Scene, message: NewMessage) -> None:
    member = replace(new("m0", queue="other"), extras=Extras(workflow_id="w", place=("j", 0)))
    wait = Wait("j", True, True, 0, 0)
    body = replace(message, extras=Extras(workflow_id="w", wait=wait))
    scene.publish(NewWorkflow("w", (member, body), (NewJoin("j", 1, True),)))
    scene.settle(scene.take_one())


def _routed(scene: Scene, message: NewMessage) -> None:
    binding = Binding("x", message.queue)
    scene.do(routing.Declare((Exchange("x", "fanout"),), (), (binding,)))
    scene.publish(replace(message, queue="", route=Route("x", "")))


WAYS = {
    "publish": lambda scene, message: scene.publish(message),
    "exchange": _routed,
    "errback": _failed,
    "replacement": _replaced,
    "retry": _retried,
    "follow-up": _followed,
    "body": _joined,
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_into_a_queue_is_under_its_message_lifetime(way: str) -> None:
    scene = Scene()
    scene.register(queues=("other",))
    scene.do(Declare("q", QueueOptions(message_ttl_ms=5_000)))
    WAYS[way](scene, new("m1", queue="q"))

    scene.pass_time(4_999)
    assert scene.record("m1").stage == Stage.QUEUED
    scene.pass_time(1)

    assert scene.record("m1").end_reason == EndReason.EXPIRED
    assert scene.faults() == []


@pytest.mark.parametrize("way", WAYS)
def test_what_expires_on_its_own_does_so_on_each_way_into_a_queue(way: str) -> None:
    scene = Scene()
    scene.register(queues=("other",))
    scene.do(Declare("q", QueueOptions(message_ttl_ms=5_000)))
    WAYS[way](scene, new("m1", queue="q", expires_ms=scene.now_ms + 2_000))

    assert scene.record("m1").stage == Stage.QUEUED
    scene.pass_time(2_000)

    assert scene.record("m1").end_reason == EndReason.EXPIRED
    assert scene.faults() == []


@pytest.mark.parametrize("way", WAYS)
def test_each_way_into_a_paused_queue_waits_until_it_is_resumed(way: str) -> None:
    scene = Scene()
    scene.register(queues=("other",))
    scene.register("s2", queues=("q",))
    scene.do(Pause("q", "me", "a test"))
    WAYS[way](scene, new("m1", queue="q"))
    assert scene.take_ids("s2") == []

    scene.do(Resume("q"))

    assert scene.take_ids("s2") == ["m1"]
    assert scene.faults() == []


def test_a_requeued_letter_and_a_moved_message_live_as_long_as_their_queue_says() -> None:
    scene = Scene()
    scene.register(queues=("q",))
    scene.publish(new("letter", queue="q"))
    scene.settle(scene.take_one(), Outcome.REJECTED, b"")
    scene.die()
    scene.do(Declare("q", QueueOptions(message_ttl_ms=5_000)))
    scene.publish(new("moved", queue="other"))

    scene.do(Move("other", "q"))
    scene.do(dead.Requeue(("letter",)))
    scene.pass_time(5_000)

    assert scene.record("moved").end_reason == EndReason.EXPIRED
    assert scene.record("letter").end_reason == EndReason.EXPIRED
    assert scene.faults() == []


def test_a_queues_lifetime_does_not_follow_a_message_into_another_queue() -> None:
    scene = Scene()
    scene.do(Declare("short", QueueOptions(message_ttl_ms=10)))
    scene.publish(new("free", queue="short"))
    scene.publish(new("own", queue="short", expires_ms=scene.now_ms + 500))
    assert scene.record("own").expires_ms == scene.now_ms + 10

    scene.do(Move("short", "long"))
    scene.pass_time(10)

    assert scene.record("free").stage == scene.record("own").stage == Stage.QUEUED
    scene.pass_time(490)
    assert scene.record("free").stage == Stage.QUEUED
    assert scene.record("own").end_reason == EndReason.EXPIRED
    assert scene.faults() == []


def test_a_message_given_another_time_lives_as_long_from_then() -> None:
    scene = Scene()
    scene.do(Declare(QUEUE, QueueOptions(message_ttl_ms=10)))
    scene.publish(new("m1"))

    scene.do(Reschedule("m1", scene.now_ms + 100))
    scene.pass_time(100)

    assert scene.record().stage == Stage.QUEUED
    scene.pass_time(10)
    assert scene.record().end_reason == EndReason.EXPIRED
    assert scene.faults() == []


def test_what_waits_is_kept_when_the_record_of_its_queue_is_damaged() -> None:
    scene = Scene()
    scene.register("s1", prefetch_count=1)
    scene.publish(new("m1"), new("m2"), new("m3"))
    held = scene.take_one("s1")
    scene.damage(keys.QUEUE + QUEUE.encode())

    scene.publish(new("m4"), new("m5"), new("m6"))
    scene.settle(held)
    scene.register("s2", prefetch_count=10)

    assert scene.take_ids("s1") + scene.take_ids("s2") == ["m2", "m3", "m4", "m5", "m6"]


def test_a_message_returned_to_a_queue_whose_record_was_damaged_is_not_overwritten_later() -> None:
    scene = Scene()
    scene.register(prefetch_count=3)
    scene.publish(new("m1"), new("m2"), new("m3"))
    third = scene.take()[2]
    scene.damage(keys.QUEUE + QUEUE.encode())

    scene.report(prefetch_count=2)
    scene.report(releases=[lease_of(third)])
    scene.publish(new("m4"), new("m5"), new("m6"))
    scene.register("s2", prefetch_count=10)

    assert scene.take_ids("s2") == ["m3", "m4", "m5", "m6"]


# -- every way into a full queue ------------------------------------------------------------------

Fill = Callable[[], None]
"""Declares queue q, which then has its one message and no room."""


def _come_due(scene: Scene, message: NewMessage, fill: Fill) -> None:
    scene.publish(replace(message, eta_ms=scene.now_ms + 10))
    fill()
    scene.pass_time(10)


def _given_another_time(scene: Scene, message: NewMessage, fill: Fill) -> None:
    scene.publish(replace(message, eta_ms=scene.now_ms + 1_000))
    fill()
    scene.do(Reschedule(message.id, scene.now_ms))


def _moved(scene: Scene, message: NewMessage, fill: Fill) -> None:
    scene.publish(replace(message, queue="third"))
    fill()
    scene.do(Move("third", message.queue))


def _requeued(scene: Scene, message: NewMessage, fill: Fill) -> None:
    scene.publish(message)
    scene.register("s2", queues=(message.queue,))
    scene.settle(scene.take_one("s2"), Outcome.REJECTED, b"", session="s2")
    scene.die("s2")
    fill()
    scene.do(dead.Requeue((message.id,)))


def _returned(scene: Scene, message: NewMessage, fill: Fill) -> None:
    scene.publish(message)
    scene.register("s2", queues=(message.queue,), prefetch_count=1)
    fill()
    scene.die("s2")


def _joined_when_full(scene: Scene, message: NewMessage, fill: Fill) -> None:
    member = replace(new("m0", queue="other"), extras=Extras(workflow_id="w", place=("j", 0)))
    body = replace(message, extras=Extras(workflow_id="w", wait=Wait("j", True, True, 0, 0)))
    scene.publish(NewWorkflow("w", (member, body), (NewJoin("j", 1, True),)))
    fill()
    scene.settle(scene.take_one())


def _added(scene: Scene, message: NewMessage, fill: Fill) -> None:
    fill()
    scene.publish(new("m0", queue="other"))
    scene.report(settles=[replace(done(scene.take_one()), added_members=(message,))])


def _followed_by_a_workflow(scene: Scene, message: NewMessage, fill: Fill) -> None:
    fill()
    scene.publish(new("m0", queue="other"))
    follow_up = NewWorkflow("w2", (replace(message, extras=Extras(workflow_id="w2")),))
    scene.report(settles=[replace(done(scene.take_one()), follow_ups=(follow_up,))])


def _sent_in_a_workflow(scene: Scene, message: NewMessage, fill: Fill) -> None:
    fill()
    workflow_id = f"w-{message.id}"
    scene.publish(
        NewWorkflow(workflow_id, (replace(message, extras=Extras(workflow_id=workflow_id)),))
    )


def _when_full(way: Callable[[Scene, NewMessage], object]) -> Callable[..., None]:
    def go(scene: Scene, message: NewMessage, fill: Fill) -> None:
        fill()
        way(scene, message)

    return go


FROM_CALLERS = {
    "publish": _when_full(WAYS["publish"]),
    "exchange": _when_full(WAYS["exchange"]),
    "workflow": _sent_in_a_workflow,
}

FROM_THE_BROKER = {
    **{name: _when_full(way) for name, way in WAYS.items() if name not in FROM_CALLERS},
    "body": _joined_when_full,
    "follow-up workflow": _followed_by_a_workflow,
    "added member": _added,
    "due": _come_due,
    "rescheduled": _given_another_time,
    "moved": _moved,
    "requeued": _requeued,
    "returned": _returned,
}


def _into_a_full_queue(way: Callable[..., None], overflow: Overflow, size: str) -> Scene:
    scene = Scene()
    scene.register(queues=("other",))
    options = QueueOptions(length_max=1) if size == "length" else QueueOptions(bytes_max=4)

    def fill() -> None:
        scene.do(Declare("q", replace(options, overflow=overflow)))
        scene.publish(new("head", queue="q"))

    way(scene, new("m1", queue="q"), fill)
    return scene


@pytest.mark.parametrize("size", ["length", "bytes"])
@pytest.mark.parametrize("overflow", Overflow)
@pytest.mark.parametrize("way", FROM_THE_BROKER)
def test_what_the_broker_has_already_enters_a_full_queue_and_evicts_nothing(
    way: str, overflow: Overflow, size: str
) -> None:
    scene = _into_a_full_queue(FROM_THE_BROKER[way], overflow, size)

    assert scene.record("m1").stage == scene.record("head").stage == Stage.QUEUED
    assert scene.counts("q").ready_count == 2
    assert scene.faults() == []


@pytest.mark.parametrize("size", ["length", "bytes"])
@pytest.mark.parametrize("overflow", Overflow)
@pytest.mark.parametrize("way", FROM_CALLERS)
def test_a_call_into_a_full_queue_is_refused_or_makes_the_head_leave(
    way: str, overflow: Overflow, size: str
) -> None:
    scene = _into_a_full_queue(FROM_CALLERS[way], overflow, size)

    came = scene.find("m1")
    stages = (came and came.stage, scene.record("head").stage)
    assert (
        stages
        == {
            Overflow.REJECT: (None, Stage.QUEUED),
            Overflow.DROP_HEAD: (Stage.QUEUED, Stage.DONE),
            Overflow.DEAD_LETTER: (Stage.QUEUED, Stage.DEAD),
        }[overflow]
    )
    assert scene.counts("q").ready_count == 1
    assert scene.faults() == []


@pytest.mark.parametrize("overflow", [Overflow.DROP_HEAD, Overflow.DEAD_LETTER])
@pytest.mark.parametrize("way", FROM_CALLERS)
def test_a_call_that_takes_no_room_yet_evicts_nothing(way: str, overflow: Overflow) -> None:
    scene = Scene()
    scene.do(Declare("q", QueueOptions(length_max=1, overflow=overflow)))
    scene.publish(new("head", queue="q"))
    due_ms = scene.now_ms + 1_000

    FROM_CALLERS[way](scene, new("m1", queue="q", eta_ms=due_ms), lambda: None)
    FROM_CALLERS[way](scene, new("m2", queue="q", expires_ms=scene.now_ms), lambda: None)
    early = scene.record("m1").stage, scene.record("head").stage
    scene.pass_time(1_000)

    assert early == (Stage.SCHEDULED, Stage.QUEUED)
    assert scene.record("m2").end_reason == EndReason.EXPIRED
    assert scene.record("m1").stage == scene.record("head").stage == Stage.QUEUED
    assert scene.faults() == []


def test_a_call_with_an_eta_into_a_full_queue_that_rejects_is_refused() -> None:
    scene = Scene()
    scene.do(Declare("q", QueueOptions(length_max=1)))
    scene.publish(new("head", queue="q"))

    published = scene.publish(new("m1", queue="q", eta_ms=scene.now_ms + 1_000))

    assert "is full" in str(published.refusals[0][1])
    assert scene.find("m1") is None


@pytest.mark.parametrize("overflow", [Overflow.DROP_HEAD, Overflow.DEAD_LETTER])
@pytest.mark.parametrize("way", ["errback", "replacement", "retry", "follow-up", "body", "due"])
def test_a_queue_over_its_bound_comes_back_to_it_as_workers_take_from_it(
    way: str, overflow: Overflow
) -> None:
    scene = _into_a_full_queue(FROM_THE_BROKER[way], overflow, "length")

    scene.publish(new("next", queue="q"))

    assert scene.counts("q").ready_count == 2
    scene.register("s2", queues=("q",))
    assert len(scene.take_ids("s2")) == 2
    scene.publish(new("after", queue="q"))
    assert scene.take_ids("s2") == ["after"]
    assert scene.faults() == []


@pytest.mark.parametrize("way", [*FROM_CALLERS, *FROM_THE_BROKER])
def test_every_way_into_a_queue_keeps_the_priority_and_gets_the_queues_lifetime(way: str) -> None:
    scene = Scene()
    scene.register(queues=("other",))
    scene.do(Declare("q", QueueOptions(message_ttl_ms=5_000)))
    message = replace(new("m1", queue="q"), priority=7)

    (FROM_CALLERS | FROM_THE_BROKER)[way](scene, message, lambda: None)
    arrived = scene.record("m1")
    scene.pass_time(5_000)

    assert (arrived.stage, arrived.priority) == (Stage.QUEUED, 7)
    assert scene.record("m1").end_reason == EndReason.EXPIRED
    assert scene.faults() == []


@pytest.mark.parametrize("way", [*FROM_CALLERS, *FROM_THE_BROKER])
def test_every_way_into_a_paused_queue_waits_for_it(way: str) -> None:
    scene = Scene()
    scene.register(queues=("other",))

    (FROM_CALLERS | FROM_THE_BROKER)[way](
        scene, new("m1", queue="q"), lambda: scene.do(Pause("q", "me", "a test"))
    )
    scene.register("s3", queues=("q",))
    early = scene.take_ids("s3")
    scene.do(Resume("q"))

    assert early == []
    assert scene.take_ids("s3") == ["m1"]
    assert scene.faults() == []
