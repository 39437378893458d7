"""Payloads of all sizes, on every engine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qbroker_server.core import dead, keys, limits, payloads, queue
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.lease import Outcome, Settle
from qbroker_server.core.limits import KIB, MIB
from qbroker_server.core.ports import Engine
from qbroker_server.core.publish import NewWorkflow, copy_id
from qbroker_server.core.records import Extras, Flag, Stage
from qbroker_server.core.results import Forget
from qbroker_server.core.revoke import Revoke
from qbroker_server.core.routes import Binding, Exchange, Route
from qbroker_server.core.routing import Declare
from qbroker_server.engines.lmdb import LmdbEngine
from qbroker_server.engines.memory import MemoryEngine
from tests.support.scene import Scene, new

SIZES = [0, 1, KIB, KIB + 1, 4_080, 4_081, 16 * KIB, 16 * KIB + 1, 4_080 * 5, 4 * MIB, 8 * MIB]


def payload_of(size: int) -> bytes:
    """So many bytes, no two chunks of them alike."""
    return (b"".join(b"%08d" % n for n in range(size // 8 + 1)))[:size]


@pytest.mark.parametrize("make", [lambda _: MemoryEngine(), LmdbEngine], ids=["memory", "lmdb"])
@pytest.mark.parametrize("size", SIZES)
def test_a_payload_and_a_result_of_any_size_come_back_whole(
    size: int, make: Callable[[Path], Engine], tmp_path: Path
) -> None:
    scene = Scene(make(tmp_path))
    scene.register()
    payload, result = payload_of(size), payload_of(size)[::-1]

    scene.publish(new(payload=payload))
    delivery = scene.take_one()
    scene.settle(delivery, result=result)

    assert delivery.payload == payload
    assert scene.payload() == result
    assert scene.faults() == []
    scene.pass_time(scene.policy.result_ttl_ms)
    assert scene.rows(keys.PAYLOAD) == []
    scene.engine.close()


@pytest.mark.parametrize(
    ("size", "row_count"),
    [
        (KIB, 0),
        (KIB + 1, 1),
        (limits.CHUNK_BYTES, 1),
        (limits.CHUNK_BYTES + 1, 2),
        (16 * KIB, 5),
    ],
)
def test_only_large_payloads_are_apart_and_each_row_fits_a_page(size: int, row_count: int) -> None:
    scene = Scene()

    scene.publish(new(payload=payload_of(size)))

    assert len(scene.rows(keys.PAYLOAD)) == row_count
    assert bool(scene.record().flags & Flag.PAYLOAD_APART) == (row_count > 0)


def test_a_payload_in_one_long_row_as_older_releases_wrote_it_is_read_and_removed() -> None:
    scene = Scene()
    scene.register()
    payload = payload_of(15_500)
    scene.publish(new(payload=payload))
    rows = scene.rows(keys.PAYLOAD)
    txn = scene.engine.begin(bytes_max=0)
    for key, _ in rows:
        txn.delete(key)
    txn.put(rows[0][0], payload)
    txn.commit()

    delivery = scene.take_one()
    scene.settle(delivery)

    assert delivery.payload == payload
    assert scene.rows(keys.PAYLOAD) == []
    assert scene.faults() == []


@pytest.mark.parametrize(("before", "after"), [(100_000, 10), (10, 100_000), (100_000, 2_000)])
def test_a_result_leaves_nothing_of_the_payload_behind(before: int, after: int) -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(payload=payload_of(before)))

    scene.settle(scene.take_one(), result=payload_of(after))

    assert scene.payload() == payload_of(after)
    assert sum(len(row) for _, row in scene.rows(keys.PAYLOAD)) == (after if after > KIB else 0)


def test_payloads_of_ids_that_begin_alike_are_apart() -> None:
    scene = Scene()
    scene.publish(new("a", payload=payload_of(50_000)), new("aa", payload=b"x" * 50_000))

    assert scene.payload("a") == payload_of(50_000)
    assert scene.payload("aa") == b"x" * 50_000


@pytest.mark.parametrize("size", [KIB + 1, 100_000])
def test_a_damaged_payload_is_noticed(size: int) -> None:
    scene = Scene()
    scene.publish(new(payload=payload_of(size)))
    scene.damage(scene.rows(keys.PAYLOAD)[-1][0])

    with pytest.raises(CorruptRecord, match="checksum of its payload"):
        scene.payload()


def test_a_payload_that_lacks_its_end_is_noticed() -> None:
    scene = Scene()
    scene.publish(new(payload=payload_of(100_000)))
    txn = scene.engine.begin(bytes_max=0)
    txn.delete(scene.rows(keys.PAYLOAD)[-1][0])
    txn.commit()

    with pytest.raises(CorruptRecord, match="checksum of its payload"):
        scene.payload()


# -- payloads that copies share --------------------------------------------------------------------

LARGE = payload_of(20 * KIB)


def broadcast(scene: Scene, id: str = "m1", payload: bytes = LARGE, **more: object) -> list[str]:  # noqa: A002 - the domain's word
    """Publish a message that the queues a, b and c take; the ids of its copies."""
    scene.do(Declare((Exchange("news", "fanout"),), (), tuple(Binding("news", q) for q in "abc")))
    sent = replace(new(id, queue="", payload=payload), route=Route("news", ""), **more)  # type: ignore[arg-type] # fields of it
    scene.publish(sent)
    return [id, copy_id(id, "b"), copy_id(id, "c")]


def stored_count(scene: Scene) -> int:
    """How many bodies there are, of 20 KiB each."""
    (counter_free,) = [[row for row in scene.rows(keys.SHARED) if len(row[0]) > payloads.SHARED_KEY_BYTES]]  # fmt: skip
    return sum(len(value) for _, value in counter_free) // len(LARGE)


@pytest.mark.parametrize("make", [lambda _: MemoryEngine(), LmdbEngine], ids=["memory", "lmdb"])
def test_copies_share_a_body_until_the_last_of_them_has_ended(
    make: Callable[[Path], Engine], tmp_path: Path
) -> None:
    scene = Scene(make(tmp_path))
    ids = broadcast(scene)
    counts = [stored_count(scene)]
    scene.restart()

    for name in "abc":
        scene.register(name, queues=(name,))
        delivery = scene.take_one(name)
        assert delivery.payload == LARGE
        scene.settle(delivery, session=name, result=b"of " + name.encode())
        counts.append(stored_count(scene))
        assert scene.faults() == []

    assert counts == [1, 1, 1, 0]
    assert [scene.payload(one) for one in ids] == [b"of a", b"of b", b"of c"]
    assert scene.rows(keys.SHARED) == []
    scene.engine.close()


def test_small_bodies_are_shared_where_there_are_many_and_not_where_there_are_few() -> None:
    scene = Scene()
    broadcast(scene, "few", b"small")

    assert scene.rows(keys.SHARED) == []
    assert scene.payload("few") == b"small"
    assert scene.faults() == []
    many = [f"q{n}" for n in range(100)]
    scene.do(Declare((), (), tuple(Binding("news", name) for name in many)))
    broadcast(scene, "many", b"x" * 100)
    assert [len(value) for _, value in scene.rows(keys.SHARED)] == [4, 100]
    assert scene.faults() == []


def test_a_copy_that_is_retried_with_other_arguments_has_a_body_of_its_own() -> None:
    scene = Scene()
    ids = broadcast(scene)
    scene.register("b", queues=("b",))
    delivery = scene.take_one("b")
    other = LARGE[::-1]

    again = Settle(
        delivery.id, 1, Outcome.RETRY, b"", message=new(delivery.id, queue="b", payload=other)
    )
    scene.report("b", settles=[again])

    assert scene.take_one("b").payload == other
    assert scene.payload(ids[0]) == scene.payload(ids[2]) == LARGE
    assert scene.faults() == []


def test_a_copy_that_is_a_dead_letter_keeps_the_body_and_is_run_again_with_it() -> None:
    scene = Scene()
    ids = broadcast(scene)
    for name in "abc":
        scene.register(name, queues=(name,))
        delivery = scene.take_one(name)
        outcome = Outcome.REJECTED if name == "b" else Outcome.SUCCESS
        scene.settle(delivery, outcome, session=name)

    assert scene.record(ids[1]).stage == Stage.DEAD
    assert stored_count(scene) == 1
    scene.do(dead.Requeue((ids[1],)))
    assert scene.take_one("b").payload == LARGE
    assert scene.faults() == []


def test_whatever_takes_copies_away_the_last_one_takes_the_body_along() -> None:
    scene = Scene()
    broadcast(scene)
    scene.do(queue.Move("a", "elsewhere"))
    scene.do(queue.Purge("elsewhere"))
    assert stored_count(scene) == 1
    scene.do(queue.Purge("b"))
    assert stored_count(scene) == 1
    scene.do(Revoke((copy_id("m1", "c"),)))

    assert scene.rows(keys.SHARED) == []
    assert scene.faults() == []


def test_dead_letters_that_are_removed_let_go_of_the_body() -> None:
    scene = Scene()
    ids = broadcast(scene)
    for name in "abc":
        scene.register(name, queues=(name,))
        scene.settle(scene.take_one(name), Outcome.REJECTED, session=name)

    scene.do(dead.Remove(tuple(ids)))

    assert scene.rows(keys.SHARED) == []
    assert scene.faults() == []


def test_copies_that_have_expired_when_they_come_leave_nothing() -> None:
    scene = Scene()
    scene.clock.advance(10)

    broadcast(scene, expires_ms=5)

    assert scene.rows(keys.SHARED) == []
    assert scene.faults() == []


def test_a_message_that_is_published_again_after_its_first_copy_was_forgotten_disturbs_no_other() -> (
    None
):
    scene = Scene()
    ids = broadcast(scene)
    for name in "ab":
        scene.register(name, queues=(name,))
        scene.settle(scene.take_one(name), session=name)
    scene.do(Forget((ids[0],)))
    scene.pass_time(scene.policy.memory_ms)
    assert scene.find(ids[0]) is None

    broadcast(scene)

    assert [scene.record(one).stage for one in ids] == [Stage.LEASED, Stage.LEASED, Stage.QUEUED]
    assert scene.counts("c").ready_count == 1
    assert stored_count(scene) == 1
    assert scene.faults() == []
    scene.register("c", queues=("c",))
    for delivery, name in zip([*scene.take("a"), *scene.take("b"), *scene.take("c")], "abc", strict=True):  # fmt: skip
        assert delivery.payload == LARGE
        scene.settle(delivery, session=name)
    assert scene.rows(keys.SHARED) == []
    assert scene.faults() == []


def test_a_shared_body_that_was_damaged_costs_its_copies_and_is_told() -> None:
    scene = Scene()
    broadcast(scene)
    scene.damage(scene.rows(keys.SHARED)[-1][0])

    assert any("checksum" in fault for fault in scene.faults())
    scene.register("a", queues=("a",))
    assert scene.take("a") == []
    assert scene.counts("a").ready_count == 0


def test_a_number_of_sharers_that_is_wrong_is_found() -> None:
    scene = Scene()
    broadcast(scene)
    scene.write(scene.rows(keys.SHARED)[0][0], keys.U32.pack(7))

    assert any("said to be shared by 7, and is by 3" in fault for fault in scene.faults())


def test_a_copy_that_failed_in_a_workflow_keeps_the_body_until_it_is_forgotten() -> None:
    scene = Scene()
    ids = broadcast(scene, "other", b"small")
    sent = replace(
        new("m1", queue="", payload=LARGE), route=Route("news", ""), extras=Extras(workflow_id="w")
    )
    scene.publish(NewWorkflow("w", (sent,)))
    for name in "abc":
        scene.register(name, queues=(name,))
        for delivery in scene.take(name):
            is_first = delivery.id == "m1"
            scene.settle(delivery, Outcome.FAILURE if is_first else Outcome.SUCCESS, session=name)

    assert scene.record("m1").flags & Flag.PAYLOAD_KEPT
    assert stored_count(scene) == 1
    assert scene.faults() == []
    scene.pass_time(max(scene.policy.result_ttl_ms, scene.policy.memory_ms))
    assert scene.find("m1") is None
    assert scene.find(ids[0]) is None
    assert scene.rows(keys.SHARED) == []
    assert scene.faults() == []
