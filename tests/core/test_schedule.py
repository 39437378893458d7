"""What happens when a time comes."""

from qbroker_server.core import keys
from qbroker_server.core.records import EndReason, Stage
from qbroker_server.core.schedule import Sweep
from tests.support.scene import Scene, new


def test_a_scheduled_message_is_shown_to_no_worker_before_it_is_due() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(eta_ms=scene.now_ms + 1_000))

    scene.pass_time(999)

    assert scene.take() == []
    assert scene.record().stage == Stage.SCHEDULED
    assert scene.counts().scheduled_count == 1
    assert scene.faults() == []


def test_a_scheduled_message_is_delivered_when_it_is_due() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(eta_ms=scene.now_ms + 1_000))

    scene.pass_time(1_000)

    assert scene.take_ids() == ["m1"]
    assert scene.counts().scheduled_count == 0
    assert scene.faults() == []


def test_an_eta_in_the_past_is_at_once() -> None:
    scene = Scene()
    scene.register()

    scene.publish(new("a", eta_ms=scene.now_ms), new("b", eta_ms=1))

    assert scene.take_ids() == ["a", "b"]


def test_a_due_message_stands_behind_what_arrived_before_it_was_due() -> None:
    scene = Scene()
    scene.publish(new("due", eta_ms=scene.now_ms + 1))
    scene.publish(new("waits"))
    scene.pass_time(1)

    scene.register()

    assert scene.take_ids() == ["waits", "due"]


def test_a_scheduled_message_survives_a_restart() -> None:
    scene = Scene()
    scene.publish(new(eta_ms=scene.now_ms + 1_000))

    scene.restart()
    scene.register()
    scene.pass_time(1_000)

    assert scene.recovered.scheduled_count == 1
    assert scene.take_ids() == ["m1"]


def test_a_clock_set_back_makes_nothing_due_twice() -> None:
    scene = Scene()
    scene.publish(new(eta_ms=scene.now_ms + 1_000))
    scene.pass_time(1_000)

    scene.pass_time(-5_000)
    scene.pass_time(10_000)
    scene.register()

    assert scene.take_ids() == ["m1"]
    assert scene.faults() == []


def test_a_waiting_message_is_revoked_when_it_expires() -> None:
    scene = Scene()
    scene.publish(new(expires_ms=scene.now_ms + 10))

    scene.pass_time(10)

    assert scene.record().state == "REVOKED"
    assert scene.record().end_reason == EndReason.EXPIRED
    assert scene.counts().ready_count == 0
    assert scene.faults() == []


def test_a_scheduled_message_may_expire_before_it_is_due() -> None:
    scene = Scene()
    scene.publish(new(eta_ms=scene.now_ms + 20, expires_ms=scene.now_ms + 10))

    scene.pass_time(30)

    assert scene.record().end_reason == EndReason.EXPIRED
    assert scene.counts().scheduled_count == 0
    assert scene.faults() == []


def test_what_a_worker_has_does_not_expire() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(expires_ms=scene.now_ms + 10))
    delivery = scene.take_one()

    scene.pass_time(10)

    assert scene.settle(delivery)
    assert scene.record().state == "SUCCESS"


def test_a_parked_message_expires_too() -> None:
    scene = Scene()
    scene.register(tasks=["proj.other"])
    scene.publish(new(expires_ms=scene.now_ms + 10))

    scene.pass_time(10)

    assert scene.record().end_reason == EndReason.EXPIRED
    assert scene.rows(keys.READY) == []


def test_a_sweep_does_no_more_than_its_limit_and_says_there_is_more() -> None:
    scene = Scene()
    scene.publish(*(new(f"m{n}", eta_ms=scene.now_ms + 1) for n in range(5)))
    scene.clock.advance(1)

    told = [scene.do(Sweep(limit=2)), scene.do(Sweep(limit=2)), scene.do(Sweep(limit=2))]

    assert told == [True, True, False]
    assert scene.counts().ready_count == 5


def test_a_damaged_reminder_costs_no_other() -> None:
    scene = Scene()
    scene.publish(new(eta_ms=scene.now_ms + 5))
    scene.write(keys.TIME + keys.U64.pack(scene.now_ms) + b"d\xff\xfe", b"")
    scene.write(keys.TIME + keys.U64.pack(scene.now_ms) + b"?m1", b"")

    scene.register()
    scene.pass_time(5)

    assert scene.take_ids() == ["m1"]
    assert scene.rows(keys.TIME) == []


def test_a_damaged_message_is_put_aside_when_its_time_comes() -> None:
    scene = Scene()
    scene.publish(new("a", eta_ms=scene.now_ms + 5), new("b", eta_ms=scene.now_ms + 5))
    scene.damage(keys.MESSAGE + b"a")

    scene.register()
    scene.pass_time(5)

    assert scene.take_ids() == ["b"]
    assert len(scene.rows(keys.DAMAGED)) == 1
