"""A lease: who has what, and what becomes of the message when it ends."""

import pytest

from qbroker_server.core import keys, lease, limits
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import Invalid
from qbroker_server.core.lease import (
    LeaseId,
    Outcome,
    Register,
    Report,
    ReturnLeases,
    Settle,
)
from qbroker_server.core.publish import Publish
from qbroker_server.core.records import EndReason, Flag, Record, Stage
from tests.support.scene import QUEUE, TASK, Scene, done, lease_of, new

LATE = Flag.ACK_LATE


# -- how a lease ends, by policy and by how far the task was -----------------------------------


@pytest.mark.parametrize("flags", [0, LATE])
def test_a_settled_message_has_ended(flags: int) -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=flags))

    counted = scene.settle(scene.take_one(), result=b"42")

    assert counted
    assert scene.record().stage == Stage.DONE
    assert scene.record().state == "SUCCESS"
    assert scene.record().end_reason == EndReason.SETTLED
    assert scene.payload() == b"42"
    assert scene.counts().leased_count == 0
    assert scene.faults() == []


@pytest.mark.parametrize("flags", [0, LATE])
def test_a_message_released_unstarted_returns_and_counts_no_death(flags: int) -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(new(flags=flags))
    first = scene.take_one()

    scene.report(releases=[lease_of(first)], prefetch_count=0)
    scene.register("s2")

    second = scene.take_one("s2")
    assert second.record.attempt == 2
    assert second.record.deaths == 0
    assert not second.record.flags & Flag.REDELIVERED
    assert scene.faults() == []


@pytest.mark.parametrize("flags", [0, LATE])
def test_a_reserved_message_is_redelivered_and_marked_when_its_session_ends(flags: int) -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(new(flags=flags))

    scene.die("s1")
    scene.register("s2")

    again = scene.take_one("s2").record
    assert again.deaths == 0
    # Its worker may have died between beginning it and saying so.
    assert again.flags & Flag.REDELIVERED
    assert scene.faults() == []


def test_a_started_early_message_is_never_run_again_when_its_session_ends() -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(new())
    scene.start(scene.take_one())

    scene.die("s1")
    scene.register("s2")

    assert scene.take("s2") == []
    assert scene.record().state == "FAILURE"
    assert scene.record().end_reason == EndReason.WORKER_LOST
    assert scene.record().detail == "The worker did not come back."
    assert scene.faults() == []


def test_a_started_late_message_is_redelivered_and_marked_when_its_session_ends() -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(new(flags=LATE))
    scene.start(scene.take_one())

    scene.die("s1")
    scene.register("s2")

    again = scene.take_one("s2")
    assert again.record.attempt == 2
    assert again.record.deaths == 1
    assert again.record.flags & Flag.REDELIVERED
    assert scene.faults() == []


@pytest.mark.parametrize("is_started", [False, True])
def test_the_loss_of_its_process_ends_an_early_message(is_started: bool) -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    delivery = scene.take_one()
    if is_started:
        scene.start(delivery)

    scene.settle(delivery, Outcome.WORKER_LOST, b"lost")

    assert scene.take() == []
    assert scene.record().end_reason == EndReason.WORKER_LOST
    assert scene.record().state == "FAILURE"
    assert scene.payload() == b"lost"
    assert scene.faults() == []


@pytest.mark.parametrize("is_started", [False, True])
def test_the_loss_of_its_process_redelivers_a_late_message(is_started: bool) -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=LATE))
    delivery = scene.take_one()
    if is_started:
        scene.start(delivery)

    scene.settle(delivery, Outcome.WORKER_LOST, b"lost")

    again = scene.take_one()
    assert (again.record.attempt, again.record.deaths) == (2, 1)
    assert again.payload == b"body"
    assert scene.faults() == []


@pytest.mark.parametrize(("flags", "stage"), [(0, Stage.DONE), (LATE, Stage.QUEUED)])
def test_a_release_of_what_was_started_counts_as_a_death(flags: int, stage: Stage) -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(flags=flags))
    delivery = scene.take_one()
    scene.start(delivery)

    scene.report(releases=[lease_of(delivery)], prefetch_count=0)

    assert scene.record().stage == stage
    assert scene.record().deaths == (1 if flags else 0)


@pytest.mark.parametrize(("deaths_max", "policy_max", "last"), [(2, 5, 2), (0, 3, 3), (1, 5, 1)])
def test_at_so_many_deaths_a_message_is_given_up(
    deaths_max: int, policy_max: int, last: int
) -> None:
    scene = Scene(policy=Policy(deaths_max=policy_max))
    scene.register()
    scene.publish(new(flags=LATE, deaths_max=deaths_max))

    for _ in range(last):
        assert scene.record().stage == Stage.LEASED
        scene.settle(scene.take_one(), Outcome.WORKER_LOST)

    assert scene.take() == []
    assert scene.record().end_reason == EndReason.MAX_DELIVERIES
    assert f"death {last} of {last} (max_deliveries)" in scene.record().detail
    assert scene.faults() == []


def test_a_message_that_expired_in_a_workers_hands_is_revoked_when_it_returns() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(expires_ms=scene.now_ms + 10))
    scene.pass_time(10)
    assert scene.record().stage == Stage.LEASED

    scene.die()
    scene.pass_time(1)

    assert scene.record().end_reason == EndReason.EXPIRED
    assert scene.faults() == []


# -- outcomes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "state", "reason"),
    [
        (Outcome.SUCCESS, "SUCCESS", EndReason.SETTLED),
        (Outcome.FAILURE, "FAILURE", EndReason.SETTLED),
        (Outcome.IGNORED, "", EndReason.SETTLED),
        (Outcome.REJECTED, "FAILURE", EndReason.REJECTED),
        (Outcome.REVOKED, "REVOKED", EndReason.REVOKED),
    ],
)
def test_each_outcome_has_its_state_and_reason(
    outcome: Outcome, state: str, reason: EndReason
) -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())

    scene.settle(scene.take_one(), outcome)

    assert scene.record().state == state
    assert scene.record().end_reason == reason
    assert scene.changed["m1"].state == state
    assert scene.faults() == []


def test_a_rejected_message_may_go_back_to_its_queue() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())

    scene.settle(scene.take_one(), Outcome.REJECTED, requeue=True)

    again = scene.take_one()
    assert (again.record.attempt, again.record.deaths) == (2, 0)
    assert again.record.flags & Flag.REDELIVERED
    assert scene.faults() == []


def test_what_follows_is_published_by_the_settle_itself() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())

    scene.report(settles=[done(scene.take_one(), follow_ups=(new("next"), new("next")))])

    assert scene.take_ids() == ["next"]
    assert scene.faults() == []


def test_what_follows_a_refused_settle_is_not_published() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    delivery = scene.take_one()
    scene.settle(delivery)

    reported = scene.report(settles=[done(delivery, follow_ups=(new("next"),))])

    assert reported.lost == (lease_of(delivery),)
    assert scene.find("next") is None


def test_a_follow_up_whose_id_is_taken_by_a_damaged_record_costs_nothing_else() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(), new("next", eta_ms=scene.now_ms + 1))
    scene.damage(keys.MESSAGE + b"next")

    reported = scene.report(settles=[done(scene.take_one(), follow_ups=(new("next"),))])

    assert reported.lost == ()
    assert scene.record().stage == Stage.DONE


def test_a_settle_with_a_bad_follow_up_fails_its_task_and_no_other() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new("a"), new("b"))
    first, second = scene.take()

    reported = scene.report(settles=[done(first, follow_ups=(new(queue=""),)), done(second)])

    ((refused, error),) = reported.refusals
    assert refused == lease_of(first)
    assert isinstance(error, Invalid)
    assert scene.record("a").state == "FAILURE"
    assert "queue name" in scene.record("a").detail
    assert scene.record("b").state == "SUCCESS"
    assert scene.counts().leased_count == 0
    assert scene.broker.dispatcher.sessions["s1"].leased_count == 0


# -- fencing -----------------------------------------------------------------------------------


def test_a_worker_that_lost_its_lease_cannot_settle_the_next_one() -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(new())
    old = scene.take_one("s1")
    scene.die("s1")
    scene.register("s2")
    current = scene.take_one("s2")

    assert not scene.settle(old, result=b"old", session="s1")
    assert not scene.settle(old, result=b"old", session="s2")
    assert scene.settle(current, result=b"new", session="s2")
    assert scene.payload() == b"new"


def test_a_session_that_got_the_message_again_cannot_settle_the_attempt_before() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    old = scene.take_one()
    scene.report(releases=[lease_of(old)])
    current = scene.take_one()

    assert not scene.settle(old)
    scene.report(starts=[LeaseId("m1", 1)], releases=[LeaseId("m1", 1)])
    assert scene.record().stage == Stage.LEASED
    assert scene.settle(current)


def test_another_session_cannot_settle_start_or_release_what_is_not_its_own() -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(new())
    delivery = scene.take_one("s1")

    scene.report("s2", starts=[lease_of(delivery)], releases=[lease_of(delivery)])

    assert not scene.settle(delivery, session="s2")
    assert scene.record().stage == Stage.LEASED
    assert scene.record().session == "s1"


def test_the_same_settle_twice_counts_once() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    delivery = scene.take_one()

    assert scene.settle(delivery, result=b"first")
    assert not scene.settle(delivery, result=b"second")
    assert scene.payload() == b"first"
    assert scene.faults() == []


def test_a_settle_before_its_session_registered_is_lost() -> None:
    scene = Scene()
    scene.publish(new())

    reported = scene.report("nobody", settles=[Settle("m1", 1, Outcome.SUCCESS, b"")])

    assert reported.lost == (LeaseId("m1", 1),)
    assert scene.record().stage == Stage.QUEUED


def test_words_about_ids_that_cannot_be_are_harmless() -> None:
    scene = Scene()
    scene.register()
    odd = [LeaseId("x" * 10_000, 1), LeaseId("", 0), LeaseId("\x00", 1), LeaseId("m1", 2**32 - 1)]

    reported = scene.report(
        starts=odd,
        settles=[Settle(lease.id, lease.attempt, Outcome.SUCCESS, b"") for lease in odd],
        releases=odd,
    )

    assert list(reported.lost) == odd
    assert scene.faults() == []


# -- register ----------------------------------------------------------------------------------


def test_a_session_that_comes_back_keeps_what_it_names() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new("a"), new("b"))
    first, second = scene.take()
    scene.start(first)

    lost = scene.register(held=(lease_of(first), lease_of(second)))

    assert lost == []
    assert scene.take() == []
    assert scene.settle(first)
    assert scene.settle(second)
    assert scene.faults() == []


def test_what_a_session_does_not_name_returns_to_its_queue() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new("a"), new("b"))
    first, _ = scene.take()

    scene.register(held=(lease_of(first),))

    assert scene.take_one().record.attempt == 2
    assert scene.record("a").attempt == 1
    assert scene.faults() == []


def test_what_a_session_names_but_has_no_more_is_lost() -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(new())
    old = scene.take_one()
    scene.die("s1")
    scene.register("s2")

    lost = scene.register("s1", held=(lease_of(old), LeaseId("never", 7)))

    assert lost == [lease_of(old), LeaseId("never", 7)]
    assert scene.record().session == "s2"


def test_a_session_that_names_an_older_attempt_gets_the_message_anew() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    old = scene.take_one()
    scene.report(releases=[lease_of(old)])
    scene.take()

    lost = scene.register(held=(lease_of(old),))

    assert lost == [lease_of(old)]
    assert scene.take_one().record.attempt == 3


def test_more_leases_than_a_step_takes_are_all_looked_at() -> None:
    scene = Scene()
    count = limits.STEP_ITEMS_MAX + 10
    scene.register(prefetch_count=limits.PREFETCH_COUNT_MAX)
    scene.publish(*(new(f"m{n}") for n in range(count)))
    held = tuple(lease_of(delivery) for delivery in scene.take())

    assert scene.register(prefetch_count=0, held=held) == []
    scene.register(prefetch_count=0)

    assert scene.counts().ready_count == count
    assert scene.rows(keys.LEASE) == []


def test_a_session_over_returns_its_leases_a_steps_worth_at_a_time() -> None:
    scene = Scene()
    count = limits.STEP_ITEMS_MAX + 10
    scene.register(prefetch_count=limits.PREFETCH_COUNT_MAX)
    scene.publish(*(new(f"m{n}") for n in range(count)))
    scene.take()
    scene.broker.dispatcher.disconnect("s1")

    assert scene.do(ReturnLeases("s1", "gone"))
    assert not scene.do(ReturnLeases("s1", "gone"))
    assert scene.counts().ready_count == count
    assert "s1" not in scene.broker.dispatcher.sessions


def test_what_a_session_wanted_before_it_came_back_is_past() -> None:
    scene = Scene()
    scene.register(prefetch_count=1)
    replies: list[object] = []

    scene.broker.submit(Report("s1", prefetch_count=50, is_draining=True), replies.append)
    scene.register(prefetch_count=2)

    session = scene.broker.dispatcher.sessions["s1"]
    assert session.prefetch_count == 2
    assert not session.is_draining


@pytest.mark.parametrize(
    ("register", "words"),
    [
        (Register("", "w", (QUEUE,), frozenset(), 1, ()), "session id"),
        (Register("s" * 65, "w", (QUEUE,), frozenset(), 1, ()), "must have 1 to 64"),
        (Register("é" * 33, "w", (QUEUE,), frozenset(), 1, ()), "must have 1 to 64"),
        (Register("s\x00", "w", (QUEUE,), frozenset(), 1, ()), r"contains U\+0000"),
        (Register("s", "w", ("",), frozenset(), 1, ()), "queue name ''"),
        (Register("s", "w", ("q" * 256,), frozenset(), 1, ()), "queue name"),
        (Register("s", "w", ("q\x00",), frozenset(), 1, ()), "queue name"),
        (Register("s", "w", (QUEUE,), frozenset(), 100_001, ()), "prefetch_count 100001"),
        (Register("s", "w", (QUEUE,), frozenset(), -1, ()), "prefetch_count -1"),
    ],
)
def test_a_session_that_breaks_a_rule_is_refused_with_a_sentence(
    register: Register, words: str
) -> None:
    scene = Scene()

    with pytest.raises(Invalid, match=words):
        scene.do(register)

    assert scene.broker.dispatcher.sessions == {}


def test_a_report_with_too_great_a_wish_is_refused_whole() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    delivery = scene.take_one()

    with pytest.raises(Invalid, match="prefetch_count 100001"):
        scene.report(settles=[done(delivery)], prefetch_count=100_001)

    assert scene.record().stage == Stage.LEASED


# -- looks -------------------------------------------------------------------------------------


def test_sessions_are_those_that_hold_leases() -> None:
    scene = Scene()
    for session in ("s1", "s10", "s2"):
        scene.register(session, queues=(session,))
    scene.register("idle", queues=("idle",))
    scene.publish(*(new(f"{q}-{n}", queue=q) for q in ("s1", "s10", "s2") for n in range(3)))

    assert scene.broker.read(lease.sessions) == ["s1", "s10", "s2"]


def test_a_session_whose_id_begins_with_anothers_is_another() -> None:
    scene = Scene()
    scene.register("s", queues=("a",))
    scene.register("ss", queues=("b",))
    scene.publish(new("one", queue="a"), new("two", queue="b"))

    scene.die("s")

    assert scene.record("two").session == "ss"
    assert scene.record("one").stage == Stage.QUEUED


# -- damage ------------------------------------------------------------------------------------


def test_a_damaged_message_costs_its_worker_no_slot() -> None:
    scene = Scene()
    scene.register(prefetch_count=1)
    scene.publish(new("a"), new("b"))
    delivery = scene.take_one()
    scene.damage(keys.MESSAGE + b"a")

    assert not scene.settle(delivery)
    assert scene.take_ids() == ["b"]


def test_a_damaged_message_does_not_keep_a_session_from_ending() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new("a"), new("b"))
    scene.damage(keys.MESSAGE + b"a")

    scene.die()

    assert scene.rows(keys.LEASE) == []
    assert scene.record("b").stage == Stage.QUEUED
    assert len(scene.rows(keys.DAMAGED)) == 1


def test_commands_of_one_step_see_each_other_in_order() -> None:
    scene = Scene()
    scene.register(prefetch_count=1)
    scene.publish(new())
    delivery = scene.take_one()
    answers: list[object] = []

    scene.broker.submit(Report("s1", settles=[done(delivery)]), answers.append)
    scene.broker.submit(Report("s1", settles=[done(delivery)]), answers.append)
    scene.broker.submit(Publish((new(),)), answers.append)
    scene.step()

    first, second, third = answers
    assert getattr(first, "lost", None) == ()
    assert getattr(second, "lost", None) == (lease_of(delivery),)
    assert getattr(third, "duplicates", None) == (0,)


def test_a_session_is_told_only_of_tasks_it_knows() -> None:
    scene = Scene()
    scene.register(tasks=[TASK])

    scene.publish(new(task=TASK))

    assert isinstance(scene.take_one().record, Record)


def test_which_worker_had_a_message_is_known_by_name_when_the_worker_is_gone() -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(new(flags=LATE, deaths_max=1))
    given = scene.take_one()
    scene.start(given)

    scene.die("s1")

    record = scene.record()
    assert record.stage == Stage.DEAD
    assert record.session == "s1@host"
    assert record.extras is not None
    assert [tried[3] for tried in record.extras.history] == ["s1@host"]
    assert scene.faults() == []


def test_a_returned_message_takes_no_other_its_place_where_the_numbers_began_anew() -> None:
    scene = Scene()
    scene.register(prefetch_count=1)
    scene.publish(new("held"))
    held = scene.take_one()
    scene.damage(keys.QUEUE + QUEUE.encode())
    scene.publish(new("waiting"))

    scene.report(releases=[lease_of(held)])

    assert scene.take_ids() == ["waiting"]
    scene.report(prefetch_count=2)
    assert scene.take_ids() == ["held"]
