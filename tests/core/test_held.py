"""What monitors ask the store: reserved, scheduled and revoked messages."""

from qbroker_server.core import held, keys, timetable
from qbroker_server.core.lease import Consume
from qbroker_server.core.ports import ReadTxn
from qbroker_server.core.revoke import Revoke
from qbroker_server.core.schedule import Reschedule
from tests.support.scene import Scene, new


def revoked(txn: ReadTxn) -> list[str]:
    """All that are, look by look."""
    ids, after = held.revoked(txn)
    while after:
        more, after = held.revoked(txn, after)
        ids += more
    return ids


def test_reserved_is_what_a_session_has_and_has_not_started() -> None:
    scene = Scene()
    scene.register(prefetch_count=2)
    scene.publish(new("1"), new("2"), new("3"))
    first, _ = scene.take()
    scene.start(first)

    with scene.engine.read() as txn:
        found = list(held.reserved(txn, "s1"))

    assert [(one.id, one.payload) for one in found] == [("2", new("2").payload)]
    assert not held.is_redelivered(found[0].record)


def test_reserved_goes_on_behind_a_step_of_leases() -> None:
    scene = Scene()
    scene.register(prefetch_count=2_500)
    ids = [f"{number:04}" for number in range(2_500)]
    for at in range(0, 2_500, 500):
        scene.publish(*map(new, ids[at : at + 500]))

    assert list(_reserved(scene)) == ids


def _reserved(scene: Scene) -> list[str]:
    return scene.broker.read(lambda txn: [one.id for one in held.reserved(txn, "s1")])


def test_scheduled_comes_by_time_and_each_message_once() -> None:
    scene = Scene()
    later, sooner = 2**50, 2**49
    scene.publish(new("later", eta_ms=later), new("sooner", eta_ms=sooner), new("now"))
    scene.do(Reschedule("later", later + 5))

    found = scene.broker.read(lambda txn: list(held.scheduled(txn)))

    assert [(one.id, one.record.eta_ms) for one in found] == [
        ("sooner", sooner),
        ("later", later + 5),
    ]


def test_revoked_are_those_that_waited_and_those_nobody_knew_but_none_that_ended_otherwise() -> (
    None
):
    scene = Scene()
    scene.register(prefetch_count=1)
    scene.publish(new("done"), new("waits"))
    scene.settle(scene.take()[0])
    scene.publish(new("later", eta_ms=2**50))
    scene.do(Revoke(["later", "unknown"]))

    assert sorted(scene.broker.read(revoked)) == ["later", "unknown"]


def test_revoked_is_looked_for_in_slices() -> None:
    scene = Scene()
    ids = [f"{number:04}" for number in range(1_500)]
    scene.do(Revoke(ids[:1_000]))
    scene.do(Revoke(ids[1_000:]))

    first, after = scene.broker.read(held.revoked)

    assert len(first) == held.LOOK_MAX
    assert after
    assert sorted(scene.broker.read(revoked)) == ids


def test_a_row_of_the_time_index_without_a_sound_record_is_passed_over() -> None:
    scene = Scene()
    scene.publish(new("broken", eta_ms=2**50))
    scene.do(Revoke(["gone"]))
    txn = scene.engine.begin(bytes_max=0)
    txn.put(keys.MESSAGE + b"broken", b"damaged")
    txn.put(keys.MESSAGE + b"gone", b"damaged")
    txn.put(keys.TIME + keys.U64.pack(2**50) + timetable.DUE + b"nowhere", b"")
    txn.commit()

    assert scene.broker.read(lambda txn: list(held.scheduled(txn))) == []
    assert scene.broker.read(revoked) == []


def test_a_session_that_takes_from_other_queues_is_given_what_waits_there_and_no_more_from_before() -> (
    None
):
    scene = Scene()
    scene.register(prefetch_count=10)
    scene.publish(new("there", queue="other"))
    before = scene.take()

    scene.do(Consume("s1", ("other",)))
    scene.publish(new("here"))

    assert before == []
    assert [delivery.id for delivery in scene.take()] == ["there"]
    assert scene.broker.dispatcher.consumers("celery") == []


def test_a_session_may_take_from_nothing() -> None:
    scene = Scene()
    scene.register(prefetch_count=10)

    scene.do(Consume("s1", ()))
    scene.publish(new("1"))

    assert scene.take() == []


def test_a_session_that_has_learned_a_task_is_given_what_waited_for_somebody_to_know_it() -> None:
    scene = Scene()
    scene.register(prefetch_count=10, tasks=["known"])
    scene.publish(new("strange", task="new"), new("usual", task="known"))
    before = [delivery.id for delivery in scene.take()]

    scene.do(Consume("s1", ("celery",), frozenset({"known", "new"})))

    assert before == ["usual"]
    assert [delivery.id for delivery in scene.take()] == ["strange"]
