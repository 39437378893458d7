"""Dead letters: what was given up is kept whole, can be looked at, put back or removed."""

import pytest

from qbroker_server.core import dead
from qbroker_server.core.lease import Outcome
from qbroker_server.core.queue import Remove
from qbroker_server.core.records import EndReason, Flag, Stage
from tests.support.scene import QUEUE, Scene, new

LATE = Flag.ACK_LATE


def kill(scene: Scene, message_id: str = "m1", times: int = 5) -> None:
    for _ in range(times):
        scene.settle(scene.take_one(), Outcome.WORKER_LOST, b"why")
    assert scene.record(message_id).stage == Stage.DEAD


def letters(scene: Scene) -> list[str]:
    found = scene.broker.read(lambda txn: dead.find(txn, None, 100))
    return [message_id for _, message_id in found]


def test_a_message_that_kills_too_often_is_kept_with_its_history() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=LATE))

    kill(scene)

    record = scene.record()
    assert record.end_reason == EndReason.MAX_DELIVERIES
    assert record.state == "FAILURE"
    assert scene.payload() == b"body"
    assert record.extras is not None
    assert [entry[:2] for entry in record.extras.history] == [[n, "LOST"] for n in range(1, 6)]
    assert letters(scene) == ["m1"]
    assert scene.faults() == []


def test_a_rejected_message_is_a_dead_letter() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())

    scene.settle(scene.take_one(), Outcome.REJECTED, b"")

    assert scene.record().stage == Stage.DEAD
    assert scene.record().state == "FAILURE"
    assert scene.record().end_reason == EndReason.REJECTED


def test_a_failure_is_a_dead_letter_only_where_failures_do_not_acknowledge() -> None:
    scene = Scene()
    scene.register()
    scene.publish(
        new("kept", flags=LATE | Flag.REJECT_ON_FAILURE), new("early", flags=Flag.REJECT_ON_FAILURE)
    )

    for delivery in scene.take():
        scene.settle(delivery, Outcome.FAILURE, b"error")

    assert letters(scene) == ["kept"]
    assert scene.record("early").stage == Stage.DONE


def test_a_requeued_letter_starts_afresh() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=LATE))
    kill(scene)

    count = scene.do(dead.Requeue(("m1", "unknown")))

    assert count == 1
    again = scene.take_one()
    assert again.payload == b"body"
    assert again.record.deaths == 0
    assert scene.settle(again)
    assert scene.record().state == "SUCCESS"
    assert letters(scene) == []
    assert scene.faults() == []


def test_a_removed_letter_is_gone() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=LATE, payload=b"x" * 20_000))
    kill(scene)

    assert scene.do(dead.Remove(("m1",))) == 1

    assert scene.find() is None
    assert scene.faults() == []
    assert scene.do(dead.Remove(("m1",))) == 0


def test_letters_are_found_oldest_first_a_page_at_a_time() -> None:
    scene = Scene()
    scene.register()
    for n in range(5):
        scene.publish(new(f"m{n}"))
        scene.settle(scene.take_one(), Outcome.REJECTED, b"")
        scene.pass_time(1)

    first = scene.broker.read(lambda txn: dead.find(txn, None, 3))
    rest = scene.broker.read(lambda txn: dead.find(txn, first[-1], 3))

    assert [message_id for _, message_id in first + rest] == ["m0", "m1", "m2", "m3", "m4"]


def test_a_time_out_runs_again_only_where_time_outs_do_not_acknowledge() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new("again", flags=LATE | Flag.REQUEUE_ON_TIMEOUT), new("ended", flags=LATE))

    for delivery in scene.take():
        scene.settle(delivery, Outcome.TIMEOUT, b"late")

    assert scene.record("ended").state == "FAILURE"
    again = scene.take_one()
    assert again.id == "again"
    assert again.record.flags & Flag.REDELIVERED
    assert again.record.deaths == 1


def test_what_is_dead_is_not_run_nor_published_again() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    scene.settle(scene.take_one(), Outcome.REJECTED, b"")

    published = scene.publish(new())

    assert published.duplicates == (0,)
    assert scene.take() == []


@pytest.mark.parametrize("size", [0, 20_000])
def test_a_letters_reason_is_told_to_who_waits_for_it(size: int) -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(payload=b"p" * size))

    scene.settle(scene.take_one(), Outcome.REJECTED, b"r")

    assert scene.changed["m1"].stage == Stage.DEAD
    assert scene.record().flags & Flag.HAS_STATUS


def test_a_letter_requeued_into_a_queue_made_again_stands_behind_what_waits_there() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new("letter"))
    scene.settle(scene.take_one(), Outcome.REJECTED, b"")
    scene.die()
    scene.do(Remove(QUEUE))
    scene.publish(new("waiting"))

    scene.do(dead.Requeue(("letter",)))

    assert scene.faults() == []
    scene.register("s2")
    assert scene.take_ids("s2") == ["waiting", "letter"]
