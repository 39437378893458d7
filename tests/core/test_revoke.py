"""Revoking: waiting messages are gone now, those with a worker end through their lease."""

from dataclasses import replace

import pytest

from qbroker_server.core import index, keys
from qbroker_server.core.dead import Requeue
from qbroker_server.core.errors import Invalid
from qbroker_server.core.lease import Outcome, Report, Settle
from qbroker_server.core.publish import NewMessage
from qbroker_server.core.records import EndReason, Extras, Flag, Stage
from qbroker_server.core.revoke import Revoke, RevokeIndexed
from tests.support.scene import Scene, done, lease_of, new

LATE = Flag.ACK_LATE


def labelled(message_id: str, *labels: str, root_id: str = "") -> NewMessage:
    return replace(new(message_id), extras=Extras(labels=labels, root_id=root_id))


@pytest.mark.parametrize("eta_ms", [0, 2**50])
def test_a_waiting_message_is_revoked_with_no_worker_up(eta_ms: int) -> None:
    scene = Scene()
    scene.publish(new(eta_ms=eta_ms))

    revoked = scene.do(Revoke(["m1"], why="not needed"))

    assert revoked.ended == ("m1",)
    assert scene.record().state == "REVOKED"
    assert scene.record().end_reason == EndReason.REVOKED
    assert scene.record().detail == "not needed"
    scene.register()
    assert scene.take() == []
    assert scene.faults() == []


def test_a_revoked_message_stays_revoked_over_a_restart() -> None:
    scene = Scene()
    scene.publish(new())
    scene.do(Revoke(["m1"]))

    scene.restart()
    scene.register()

    assert scene.take() == []
    assert scene.record().state == "REVOKED"


def test_an_id_revoked_before_its_message_comes_is_never_run() -> None:
    scene = Scene()
    scene.register()

    revoked = scene.do(Revoke(["m1"]))
    published = scene.publish(new())

    assert revoked.ended == ("m1",)
    assert published.duplicates == (0,)
    assert scene.take() == []
    assert scene.record().state == "REVOKED"


def test_the_worker_of_a_leased_message_is_told() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    given = scene.take_one()

    revoked = scene.do(Revoke(["m1"], is_terminated=True, signal="SIGKILL"))

    assert revoked.told == ("m1",)
    (cancel,) = scene.cancels
    assert (cancel.session, cancel.id, cancel.attempt) == ("s1", "m1", given.record.attempt)
    assert (cancel.is_terminated, cancel.signal) == (True, "SIGKILL")
    assert scene.record().stage == Stage.LEASED
    assert scene.settle(given, Outcome.REVOKED, b"")
    assert scene.record().state == "REVOKED"
    assert scene.faults() == []


@pytest.mark.parametrize("flags", [0, LATE])
@pytest.mark.parametrize("is_started", [False, True])
def test_a_message_revoked_while_its_worker_dies_is_not_run_again(
    flags: int, is_started: bool
) -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(new(flags=flags))
    given = scene.take_one()
    if is_started:
        scene.start(given)

    scene.do(Revoke(["m1"]))
    scene.die("s1")
    scene.register("s2")

    assert scene.take("s2") == []
    assert scene.record().state == "REVOKED"
    assert scene.faults() == []


def test_a_task_that_ends_all_the_same_keeps_its_result() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    given = scene.take_one()
    scene.start(given)

    scene.do(Revoke(["m1"]))
    scene.settle(given, Outcome.SUCCESS, b"42")

    assert scene.record().state == "SUCCESS"
    assert scene.payload() == b"42"


def test_a_revoked_task_is_not_tried_again() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    given = scene.take_one()
    scene.do(Revoke(["m1"]))

    retry = Settle("m1", given.record.attempt, Outcome.RETRY, b"", eta_ms=scene.now_ms + 5)
    scene.do(Report("s1", settles=[retry]))

    assert scene.record().state == "REVOKED"
    assert scene.faults() == []


def test_a_revoked_task_that_asks_to_be_put_back_is_not_run_again() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    given = scene.take_one()
    scene.do(Revoke(["m1"], why="not needed"))

    scene.settle(given, Outcome.REJECTED, b"", requeue=True)

    assert scene.take() == []
    assert (scene.record().state, scene.record().detail) == ("REVOKED", "not needed")
    assert scene.faults() == []


def test_a_dead_letter_of_a_revoked_task_starts_anew_when_it_is_requeued() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=LATE))
    given = scene.take_one()
    scene.do(Revoke(["m1"], is_terminated=True))
    scene.settle(given, Outcome.REJECTED, b"")

    scene.do(Requeue(("m1",)))
    again = scene.take_one()
    scene.start(again)
    scene.die("s1")
    scene.register("s2")

    assert scene.take_one("s2").id == "m1"
    assert not scene.record().flags & (Flag.REVOKING | Flag.TERMINATING)


def test_a_revoked_task_that_ran_out_of_time_is_not_run_again() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=LATE | Flag.REQUEUE_ON_TIMEOUT))
    given = scene.take_one()
    scene.start(given)
    scene.do(Revoke(["m1"]))

    scene.settle(given, Outcome.TIMEOUT, b"it took too long")

    assert scene.take() == []
    assert scene.record().state == "REVOKED"
    assert scene.faults() == []


def test_why_a_running_task_was_revoked_is_kept_with_its_end() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    given = scene.take_one()
    scene.do(Revoke(["m1"], is_terminated=True, why="not needed"))

    scene.settle(given, Outcome.REVOKED, b"")

    assert scene.record().detail == "not needed"
    assert scene.record().end_reason == EndReason.REVOKED


@pytest.mark.parametrize("is_terminated", [False, True])
def test_a_worker_that_was_away_when_its_task_was_revoked_is_told_as_it_comes_back(
    is_terminated: bool,
) -> None:
    scene = Scene()
    scene.register()
    scene.publish(new("m1"), new("m2"))
    given, _other = held = scene.take()
    scene.do(Revoke(["m1"], is_terminated=is_terminated))
    scene.cancels.clear()

    lost = scene.register(held=tuple(map(lease_of, held)))

    assert lost == []
    (cancel,) = scene.cancels
    assert (cancel.session, cancel.id) == ("s1", "m1")
    assert cancel.attempt == given.record.attempt
    assert cancel.is_terminated is is_terminated


def test_what_was_to_be_ended_is_to_be_ended_after_a_milder_word_too() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    given = scene.take_one()
    scene.do(Revoke(["m1"], is_terminated=True))
    scene.do(Revoke(["m1"]))
    scene.cancels.clear()

    scene.register(held=(lease_of(given),))

    (cancel,) = scene.cancels
    assert cancel.is_terminated, "what was to be ended is still to be ended"


def test_an_ended_message_is_left_as_it_is() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    scene.settle(scene.take_one())

    revoked = scene.do(Revoke(["m1"]))

    assert revoked.late == ("m1",)
    assert scene.record().state == "SUCCESS"


def test_many_are_revoked_and_no_other_is_hit() -> None:
    scene = Scene()
    scene.publish(*[new(f"m{n}") for n in range(10)])

    revoked = scene.do(Revoke(["m1", "m3", "m3", "m5"]))
    scene.register()

    assert revoked.ended == ("m1", "m3", "m5")
    assert scene.take_ids() == ["m0", "m2", "m4", "m6", "m7", "m8", "m9"]


def test_a_label_revokes_those_that_have_it() -> None:
    scene = Scene()
    scene.publish(
        labelled("a", "customer=1"), labelled("b", "customer=2", "x=y"), labelled("c", "x=y")
    )

    revoked, last_id = scene.do(RevokeIndexed(index.LABEL, "x=y"))
    more, end = scene.do(RevokeIndexed(index.LABEL, "x=y", last_id))

    assert revoked.ended == ("b", "c")
    assert (more.ended, end) == ((), "")
    assert scene.record("a").stage == Stage.QUEUED
    assert [key for key, _ in scene.rows(keys.INDEX) if b"x=y" in key] == []
    assert scene.faults() == []


def test_a_root_revokes_its_whole_workflow() -> None:
    scene = Scene()
    scene.publish(new("root"), labelled("leaf", root_id="root"), labelled("other", root_id="tree"))

    revoked, _ = scene.do(RevokeIndexed(index.ROOT, "root"))

    assert sorted(revoked.ended) == ["leaf", "root"]
    assert scene.record("other").stage == Stage.QUEUED


def test_a_name_that_cannot_be_an_id_is_refused_before_anything_is_revoked() -> None:
    scene = Scene()
    scene.publish(new())

    with pytest.raises(Invalid, match="256 bytes"):
        scene.do(Revoke(["m1", "x" * 256]))

    assert scene.record().stage == Stage.QUEUED


def test_a_settle_after_the_lease_of_a_revoked_message_is_lost() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    given = scene.take_one()
    scene.do(Revoke(["m1"]))
    scene.die()

    answer = scene.report(settles=[done(given)])

    assert [lost.id for lost in answer.lost] == ["m1"]
    assert scene.record().state == "REVOKED"
