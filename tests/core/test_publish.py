"""How a message comes in."""

import pytest

from qbroker_server.core import keys, limits
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import Invalid, ResourceFull
from qbroker_server.core.publish import NewMessage, check
from qbroker_server.core.records import EndReason, Flag, Stage
from tests.support.scene import QUEUE, Scene, new


def test_a_published_message_stands_in_its_queue() -> None:
    scene = Scene()

    published = scene.publish(new())

    assert published.refusals == ()
    assert published.duplicates == ()
    assert scene.record().stage == Stage.QUEUED
    assert scene.counts().ready_count == 1
    assert scene.faults() == []


def test_publishing_an_id_again_stores_nothing() -> None:
    scene = Scene()
    scene.publish(new("a", payload=b"first"))

    published = scene.publish(new("b"), new("a", payload=b"second"))

    assert published.duplicates == (1,)
    assert scene.payload("a") == b"first"
    assert scene.counts().ready_count == 2


def test_an_id_twice_in_one_batch_is_stored_once() -> None:
    scene = Scene()

    published = scene.publish(new(payload=b"first"), new(payload=b"second"))

    assert published.duplicates == (1,)
    assert scene.payload() == b"first"
    assert scene.counts().ready_count == 1


@pytest.mark.parametrize("flags", [0, Flag.IGNORE_RESULT])
def test_an_id_is_remembered_after_the_end(flags: int) -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=flags))
    scene.settle(scene.take_one())

    published = scene.publish(new(flags=flags))

    assert published.duplicates == (0,)
    assert scene.take() == []
    assert scene.record().stage == Stage.DONE


def test_an_id_whose_memory_has_passed_is_new_again() -> None:
    scene = Scene(policy=Policy(memory_ms=1_000))
    scene.register()
    scene.publish(new(flags=Flag.IGNORE_RESULT))
    scene.settle(scene.take_one())
    scene.pass_time(1_000)

    published = scene.publish(new(flags=Flag.IGNORE_RESULT))

    assert published.duplicates == ()
    assert scene.take_ids() == ["m1"]


def test_a_damaged_record_still_remembers_its_id() -> None:
    scene = Scene()
    scene.publish(new())
    scene.damage(keys.MESSAGE + b"m1")

    published = scene.publish(new())

    assert published.duplicates == (0,)


def test_a_refused_message_costs_its_neighbours_nothing() -> None:
    scene = Scene()

    published = scene.publish(new("a"), new(""), new("b"), new("c", priority=10))

    assert [index for index, _ in published.refusals] == [1, 3]
    assert scene.counts().ready_count == 2
    assert scene.faults() == []


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (new(""), "message id '' has 0 bytes"),
        (new("x" * 256), "has 256 bytes; it must have 1 to 255"),
        (new("é" * 128), "has 256 bytes"),
        (new("a\x00b"), r"contains U\+0000"),
        (new(task=""), "task name '' has 0 bytes"),
        (new(task="t" * 256), "task name"),
        (new(task="\x00"), "task name"),
        (new(queue=""), "queue name '' has 0 bytes"),
        (new(queue="q" * 256), "queue name"),
        (new(queue="q\x00"), "queue name"),
        (new(priority=10), "priority 10 of message 'm1' is not 0 to 9"),
        (new(priority=-1), "priority -1"),
        (new(deaths_max=65_536), "max_deliveries 65536 of message 'm1' is not 0 to 65535"),
        (new(deaths_max=-1), "max_deliveries -1"),
        (new(eta_ms=-1), "eta -1"),
        (new(eta_ms=2**62), "eta"),
        (new(expires_ms=-1), "expires -1"),
        (new(expires_ms=2**62), "expires"),
    ],
)
def test_a_message_that_breaks_a_rule_is_refused_with_a_sentence(
    message: NewMessage, words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        check(message)


def test_a_message_at_every_limit_is_stored_and_delivered() -> None:
    scene = Scene()
    name = "é" * 127 + "x"
    scene.register("s" * limits.SESSION_BYTES_MAX, queues=(name,), tasks=[name])

    scene.publish(
        new(name, task=name, queue=name, priority=9, deaths_max=65_535, result_ttl_ms=2**63 - 1)
    )

    delivery = scene.take_one("s" * limits.SESSION_BYTES_MAX)
    assert delivery.id == name
    assert scene.settle(delivery, session="s" * limits.SESSION_BYTES_MAX)
    assert scene.faults() == []


def test_a_message_that_was_late_on_arrival_is_revoked() -> None:
    scene = Scene()
    scene.register()

    scene.publish(new(expires_ms=scene.now_ms))

    assert scene.take() == []
    assert scene.record().end_reason == EndReason.EXPIRED
    assert scene.changed["m1"].state == "REVOKED"
    assert scene.counts(QUEUE).ready_count == 0
    assert scene.faults() == []


def test_with_too_little_room_publishes_are_refused_and_settles_are_not() -> None:
    scene = Scene(policy=Policy(reserve_bytes=0))
    scene.register()
    scene.publish(new())
    scene.policy = Policy(reserve_bytes=2**63)
    scene.restart()
    scene.register()

    published = scene.publish(new("m1"), new("m2"))

    ((index, error),) = published.refusals
    assert index == 1
    assert isinstance(error, ResourceFull)
    assert error.retry_after_ms > 0
    assert published.duplicates == (0,)
    assert scene.settle(scene.take_one())
