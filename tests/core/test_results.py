"""How a message ends, and how long what is left of it is kept."""

import pytest

from qbroker_server.core import keys, limits
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import Conflict, Invalid, ResourceFull
from qbroker_server.core.lease import Outcome, Start
from qbroker_server.core.records import EndReason, Flag, Stage
from qbroker_server.core.results import Forget, Keep, Tell
from tests.support.engines import FlakyEngine
from tests.support.scene import Scene, new

IGNORE, ERRORS = Flag.IGNORE_RESULT, Flag.STORE_ERRORS


@pytest.mark.parametrize(
    ("flags", "outcome", "is_kept"),
    [
        (0, Outcome.SUCCESS, True),
        (0, Outcome.FAILURE, True),
        (0, Outcome.IGNORED, False),
        (IGNORE, Outcome.SUCCESS, False),
        (IGNORE, Outcome.FAILURE, False),
        (IGNORE | ERRORS, Outcome.SUCCESS, False),
        (IGNORE | ERRORS, Outcome.FAILURE, True),
        (IGNORE | ERRORS, Outcome.REVOKED, True),
        (IGNORE | ERRORS, Outcome.IGNORED, False),
    ],
)
def test_a_result_is_kept_by_the_messages_policy(
    flags: int, outcome: Outcome, is_kept: bool
) -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=flags))

    scene.settle(scene.take_one(), outcome, b"result")

    assert scene.payload() == (b"result" if is_kept else b"")
    assert bool(scene.record().flags & Flag.NOTHING_KEPT) != is_kept


def ended(scene: Scene, **settings: int) -> None:
    """Have `m1` run to its end."""
    scene.register()
    scene.publish(new(**settings))  # type: ignore[arg-type]  # only numbers are given here
    scene.settle(scene.take_one())


@pytest.mark.parametrize(("result_ttl_ms", "kept_ms"), [(0, 5_000), (700, 700)])
def test_a_result_is_forgotten_when_its_time_has_passed(result_ttl_ms: int, kept_ms: int) -> None:
    scene = Scene(policy=Policy(result_ttl_ms=5_000))
    ended(scene, result_ttl_ms=result_ttl_ms)

    scene.pass_time(kept_ms - 1)
    assert scene.payload() == b"4"
    scene.pass_time(1)

    assert scene.find() is None
    assert scene.rows(keys.TIME) == []


def test_a_result_without_end_is_never_forgotten() -> None:
    scene = Scene()
    ended(scene, result_ttl_ms=-1)

    scene.pass_time(100 * 365 * 24 * 3600 * 1000)

    assert scene.payload() == b"4"
    assert scene.faults() == []


@pytest.mark.parametrize("later_ttl_ms", [100, 100_000])
def test_results_are_forgotten_even_when_the_setting_has_changed_since(later_ttl_ms: int) -> None:
    scene = Scene(policy=Policy(result_ttl_ms=5_000))
    ended(scene)
    scene.policy = Policy(result_ttl_ms=later_ttl_ms)
    scene.restart()

    scene.pass_time(5_000)
    is_kept = scene.find() is not None
    scene.pass_time(100_000)

    assert is_kept == (later_ttl_ms > 5_000)
    assert scene.find() is None
    assert scene.rows(keys.TIME) == []


def test_forget_keeps_only_the_id_for_a_while() -> None:
    scene = Scene(policy=Policy(memory_ms=500))
    ended(scene)

    assert scene.do(Forget(("m1", "m1", "unknown", "", "x" * 1_000))) == 1

    assert scene.payload() == b""
    assert scene.record().state == ""
    assert scene.publish(new()).duplicates == (0,)
    scene.pass_time(500)
    assert scene.find() is None
    assert scene.faults() == []


def test_forget_leaves_alone_what_has_not_ended() -> None:
    scene = Scene()
    scene.publish(new())

    assert scene.do(Forget(("m1",))) == 0
    assert scene.record().stage == Stage.QUEUED


def test_a_new_life_of_an_id_is_not_cut_short_by_the_reminders_of_the_last() -> None:
    scene = Scene(policy=Policy(memory_ms=500, result_ttl_ms=10_000))
    ended(scene)
    scene.do(Forget(("m1",)))
    scene.pass_time(500)
    ended(scene)

    scene.pass_time(9_600)
    is_kept_past_the_old_reminder = scene.find() is not None
    scene.pass_time(500)

    assert is_kept_past_the_old_reminder
    assert scene.find() is None


def test_a_task_that_runs_tells_its_state_until_it_ends() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    delivery = scene.take_one()
    scene.start(delivery)

    was_told = scene.do(Tell("m1", 1, "PROGRESS", b"half"))
    told = scene.record().state, scene.status()
    scene.settle(delivery)

    assert was_told
    assert told == ("PROGRESS", b"half")
    assert (scene.record().state, scene.status()) == ("SUCCESS", b"")


def test_an_attempt_that_is_over_tells_nothing_and_anybody_may_tell_of_one_that_is_not() -> None:
    scene = Scene()
    scene.publish(new())

    answers = [
        scene.do(Tell("m1", 3, "PROGRESS", b"")),
        scene.do(Tell("m1", 0, "ABORTED", b"")),
        scene.do(Tell("nobody", 0, "ABORTED", b"")),
    ]

    assert answers == [False, True, False]
    assert scene.record().state == "ABORTED"


def test_what_has_ended_keeps_its_end() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    scene.settle(scene.take_one())

    assert not scene.do(Tell("m1", 0, "PROGRESS", b"late"))
    assert scene.record().state == "SUCCESS"


def test_a_start_that_is_tracked_ends_what_an_earlier_try_has_told() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=Flag.TRACK_STARTED))
    delivery = scene.take_one()
    scene.do(Tell("m1", 1, "PROGRESS", b"half"))

    scene.start(delivery)

    assert (scene.record().state, scene.status()) == ("", b"")


def test_what_a_tracked_start_tells_is_kept_while_it_runs_and_is_no_end() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=Flag.TRACK_STARTED))
    delivery = scene.take_one()

    scene.report(starts=[Start("m1", 1, b"where")])
    running = scene.record().state, scene.status()
    scene.settle(delivery, Outcome.IGNORED, b"")

    assert running == ("", b"where")
    assert (scene.record().stage, scene.record().state) == (Stage.DONE, "")
    assert (scene.payload(), scene.status()) == (b"", b"")


def test_what_a_start_tells_is_kept_for_nobody_who_does_not_want_to_see_it() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    scene.take_one()

    scene.report(starts=[Start("m1", 1, b"where")])

    assert scene.status() == b""


def test_a_task_that_tells_its_end_and_is_ignored_has_ended_so() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    delivery = scene.take_one()
    scene.do(Tell("m1", 1, "FAILURE", b"told"))

    scene.settle(delivery, Outcome.IGNORED, b"")

    assert (scene.record().stage, scene.record().state) == (Stage.DONE, "FAILURE")
    assert scene.payload() == b"told"


def test_more_than_goes_with_a_state_is_refused() -> None:
    scene = Scene()
    scene.publish(new())

    with pytest.raises(Invalid, match="has 1048577 bytes; up to 1048576 may"):
        scene.do(Tell("m1", 0, "PROGRESS", bytes(limits.STATE_BYTES_MAX + 1)))


@pytest.mark.parametrize("state", ["", "x" * 256])
def test_a_state_without_a_name_or_with_too_long_a_one_is_refused(state: str) -> None:
    scene = Scene()

    with pytest.raises(Invalid, match="must have 1 to 255 bytes"):
        scene.do(Tell("m1", 0, state, b""))


def test_what_no_task_made_is_kept_and_replaced_and_forgotten() -> None:
    scene = Scene(policy=Policy(result_ttl_ms=1_000))

    scene.do(Keep("g", b"one", 0))
    scene.do(Keep("g", b"two" * 1_000, 50))

    assert scene.payload("g") == b"two" * 1_000
    assert scene.record("g").state == "SUCCESS"
    assert scene.faults() == []
    scene.pass_time(50)
    assert scene.find("g") is None


def test_how_something_ended_that_was_no_message_is_kept_with_it() -> None:
    scene = Scene()

    scene.do(Keep("g", b"why", 0, "FAILURE"))

    record = scene.record("g")
    assert (record.state, record.end_reason, scene.payload("g")) == ("FAILURE", EndReason.SETTLED, b"why")  # fmt: skip
    assert scene.faults() == []
    with pytest.raises(Invalid, match="must have 1 to 255 bytes"):
        scene.do(Keep("g", b"x", 0, ""))


def test_the_id_of_a_task_keeps_no_other_result() -> None:
    scene = Scene()
    scene.publish(new("m1"))

    with pytest.raises(Conflict, match="'m1' is the id of a task"):
        scene.do(Keep("m1", b"x", 0))
    with pytest.raises(Invalid, match=r"task id .* contains U\+0000"):
        scene.do(Keep("a\x00", b"x", 0))
    with pytest.raises(Invalid, match="state '' must have 1 to 255 bytes"):
        scene.do(Keep("a", b"x", 0, ""))


def test_a_task_that_left_nothing_gets_its_result_from_somebody_else() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new("m1"), new("m2"))
    first, second = scene.take()
    scene.settle(first, Outcome.IGNORED, b"")
    scene.settle(second, Outcome.SUCCESS, b"own")

    scene.do(Keep("m1", b"why", 0, "FAILURE"))

    assert (scene.record("m1").state, scene.payload("m1")) == ("FAILURE", b"why")
    assert scene.faults() == []
    with pytest.raises(Conflict, match="'m2' is the id of a task"):
        scene.do(Keep("m2", b"x", 0))


def test_a_result_that_a_client_keeps_is_not_stored_from_the_reserve() -> None:
    engine = FlakyEngine()
    scene = Scene(engine, Policy(reserve_bytes=1_000))
    engine.room_bytes = 999

    with pytest.raises(ResourceFull):
        scene.do(Keep("own", b"4", 0))

    assert scene.find("own") is None
