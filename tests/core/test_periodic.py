"""Entries that fire again and again: each tick once, whatever comes between."""

from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest

from qbroker_proto.v1 import message_pb2
from qbroker_server.core import keys, periodic
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import Conflict, CorruptRecord, Invalid, NotFound, ResourceFull
from qbroker_server.core.lease import Outcome, Settle
from qbroker_server.core.periodic import (
    Declare,
    Declared,
    Definition,
    Drop,
    Entry,
    Pause,
    Put,
    Remove,
    Resume,
    Run,
    id_of,
)
from qbroker_server.core.queue import Declare as DeclareQueue
from qbroker_server.core.records import VERSION, EndReason, Overflow, QueueOptions, Stage
from qbroker_server.core.schedule import CROWD_MIN, PERIODIC_PER_STEP_MAX, Sweep
from tests.support.almanac import ALMANAC
from tests.support.engines import FlakyEngine
from tests.support.scene import QUEUE, TASK, Scene, lease_of, new

EVERY_10 = Definition(
    "every 10", message_pb2.Message(task=TASK, queue=QUEUE, body=b"[]").SerializeToString()
)
MINUTE = 60_000


def put(
    scene: Scene,
    name: str = "tidy",
    definition: Definition = EVERY_10,
    /,
    **options: Any,  # noqa: ANN401 - any field of the definition
) -> Entry:
    """Make an entry, or change it."""
    return scene.do(Put(name, replace(definition, **options), ALMANAC))


def entry(scene: Scene, name: str = "tidy") -> Entry:
    return scene.broker.read(lambda txn: periodic.peek(txn, name))


def live(scene: Scene, seconds: int) -> None:
    """Let time pass second by second, as a broker that is up sees it."""
    for _ in range(seconds):
        scene.pass_time(1_000)


def declare(
    scene: Scene, owner: str = "proj", *, is_dry: bool = False, **entries: Definition
) -> Declared:
    return scene.do(Declare(owner, tuple(entries.items()), ALMANAC, is_dry=is_dry))


# -- ticks -----------------------------------------------------------------------------------------


def test_an_entry_fires_at_each_tick_and_not_between() -> None:
    scene = Scene()
    scene.register()
    began_ms = scene.now_ms
    put(scene)

    live(scene, 9)
    early = scene.take_ids()
    live(scene, 22)

    assert early == []
    assert scene.take_ids() == [id_of("tidy", began_ms + n * 10_000) for n in (1, 2, 3)]
    assert (entry(scene).run_count, entry(scene).last_ms) == (3, began_ms + 30_000)
    assert entry(scene).next_ms == began_ms + 40_000
    assert scene.faults() == []


def test_entries_of_one_moment_fire_in_parts_each_once() -> None:
    scene = Scene()
    count = PERIODIC_PER_STEP_MAX + 10
    entries = tuple((f"e{n}", EVERY_10) for n in range(count))
    scene.do(Declare("proj", entries, ALMANAC))
    scene.clock.advance(10_000)

    more = [scene.do(Sweep(almanac=ALMANAC)) for _ in range(2)]

    assert more == [True, False]
    tick_ms = scene.now_ms
    assert all(scene.find(id_of(f"e{n}", tick_ms)) for n in range(count))
    assert [entry(scene, f"e{n}").run_count for n in range(count)] == [1] * count
    assert scene.faults() == []


def test_a_crowd_is_on_disk_before_any_of_it_is_given_out() -> None:
    scene = Scene()
    scene.register(prefetch_count=CROWD_MIN)
    entries = tuple((f"e{n}", EVERY_10) for n in range(CROWD_MIN))
    scene.do(Declare("proj", entries, ALMANAC))
    scene.clock.advance(10_000)

    scene.broker.submit(Sweep(almanac=ALMANAC), lambda _: None)
    fired, given = scene.broker.step(), scene.broker.step()

    assert sum(fired.came.values()) == CROWD_MIN
    assert (fired.deliveries, fired.has_more) == ({}, True)
    assert sum(map(len, given.deliveries.values())) == CROWD_MIN


def test_an_entry_is_read_as_it_was_written_and_what_is_none_is_not_read() -> None:
    made = Entry(
        replace(EVERY_10, timing='cron 0 6 * * mon {"owner":', catch_up="all", jitter_ms=3),
        owner='},{"owner":',
        note="ünüsual",
        run_count=7,
    )
    key = periodic.key_of("tidy")

    assert periodic.decode(key, periodic.encode(made)) == made
    body = keys.U32.pack(2) + b"[]"
    with pytest.raises(CorruptRecord, match="it is not an entry"):
        periodic.decode(key, bytes((VERSION,)) + keys.U32.pack(crc32(body)) + body)


def test_what_an_entry_publishes_is_its_template_with_an_id_and_a_label() -> None:
    scene = Scene()
    scene.register()
    put(scene)

    live(scene, 10)

    delivery = scene.take_one()
    message = message_pb2.Message.FromString(delivery.payload)
    assert (message.id, message.task, message.body) == (delivery.id, TASK, b"[]")
    assert list(message.labels) == ["schedule=tidy"]
    extras = scene.record(delivery.id).extras
    assert extras is not None
    assert extras.labels == ("schedule=tidy",)
    assert delivery.id[14] == "7"


def test_a_broker_that_dies_before_the_commit_fires_the_tick_after_its_restart_once() -> None:
    engine = FlakyEngine()
    scene = Scene(engine)
    began_ms = scene.now_ms
    put(scene)
    scene.clock.advance(10_000)

    scene.broker.submit(Sweep(almanac=ALMANAC), lambda _: None)
    step = scene.broker.decide()
    step.txn.abort()
    scene.restart()
    scene.pass_time(0)
    scene.restart()
    scene.pass_time(0)
    scene.register()

    assert scene.take_ids() == [id_of("tidy", began_ms + 10_000)]


def test_a_clock_that_is_set_back_fires_nothing_again() -> None:
    scene = Scene()
    scene.register()
    put(scene)
    live(scene, 10)

    scene.pass_time(-60_000)
    live(scene, 69)
    again = len(scene.take())
    live(scene, 2)

    assert again == 1
    assert len(scene.take()) == 1


def test_an_entry_that_is_removed_and_made_anew_does_not_fire_a_tick_twice() -> None:
    scene = Scene()
    scene.register()
    put(scene, timing="cron * * * * *")
    live(scene, 60)

    scene.do(Remove("tidy"))
    scene.clock.advance(-30_000)
    put(scene, timing="cron * * * * *")
    live(scene, 31)

    assert len(scene.take()) == 1
    assert entry(scene).run_count == 1


def test_a_tick_that_finds_the_disk_full_stays_due() -> None:
    engine = FlakyEngine()
    scene = Scene(engine, Policy(reserve_bytes=1_000))
    scene.register()
    began_ms = scene.now_ms
    put(scene)
    engine.room_bytes = 999

    live(scene, 12)
    full = entry(scene)
    engine.room_bytes = 10**9
    live(scene, 5)

    assert full.next_ms == began_ms + 10_000
    assert "disk is nearly full" in full.note
    assert scene.take_ids() == [id_of("tidy", began_ms + 10_000)]
    assert scene.faults() == []


def test_a_tick_that_finds_its_queue_full_stays_due() -> None:
    scene = Scene()
    began_ms = scene.now_ms
    scene.do(DeclareQueue(QUEUE, QueueOptions(length_max=1)))
    put(scene)
    live(scene, 21)

    scene.register()
    live(scene, 5)

    assert scene.take_ids() == [id_of("tidy", began_ms + n * 10_000) for n in (1, 2)]


@pytest.mark.parametrize(
    ("overflow", "stage"), [(Overflow.DROP_HEAD, Stage.DONE), (Overflow.DEAD_LETTER, Stage.DEAD)]
)
def test_a_tick_into_a_full_queue_makes_its_head_leave_unless_it_is_delayed(
    overflow: Overflow, stage: Stage
) -> None:
    scene = Scene()
    scene.do(DeclareQueue(QUEUE, QueueOptions(length_max=1, overflow=overflow)))
    scene.publish(new("head"))

    put(scene, "later", delay_ms=MINUTE)
    live(scene, 10)
    delayed = scene.record("head").stage
    put(scene, "now")
    live(scene, 10)

    assert (delayed, scene.record("head").stage) == (Stage.QUEUED, stage)
    assert scene.faults() == []


def test_ticks_are_fired_up_to_the_last_moment_and_not_before_the_first() -> None:
    scene = Scene()
    scene.register()
    now_ms = scene.now_ms
    put(scene, start_ms=now_ms + 25_000, end_ms=now_ms + 50_000)

    live(scene, 120)

    assert scene.take_ids() == [id_of("tidy", now_ms + n * 10_000) for n in (3, 4, 5)]
    assert entry(scene).next_ms == 0


def test_a_one_off_fires_once_and_stays_to_be_seen() -> None:
    scene = Scene()
    scene.register()
    put(scene, timing=f"at {scene.now_ms + 5_000}")
    put(scene, "also", runs_max=1)

    live(scene, 60)

    assert len(scene.take()) == 2
    assert [(entry(scene, n).run_count, entry(scene, n).next_ms) for n in ("tidy", "also")] == [(1, 0), (1, 0)]  # fmt: skip


def test_delay_jitter_and_lifetime_are_the_messages() -> None:
    scene = Scene()
    began_ms = scene.now_ms
    put(scene, delay_ms=2_000, jitter_ms=1_000, lifetime_ms=60_000)

    live(scene, 10)
    live(scene, 10)

    first, second = (scene.record(id_of("tidy", began_ms + n * 10_000)) for n in (1, 2))
    assert 12_000 <= first.eta_ms - began_ms <= 13_000
    assert 22_000 <= second.eta_ms - began_ms <= 23_000
    assert first.eta_ms + 10_000 != second.eta_ms
    assert first.expires_ms == began_ms + 70_000


# -- what was missed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fired"),
    [
        ({"catch_up": "none"}, []),
        ({"catch_up": "last"}, [6]),
        ({"catch_up": "all"}, [1, 2, 3, 4, 5, 6]),
        ({"catch_up": "all", "catch_up_max": 2}, [5, 6]),
        ({"catch_up": "all", "late_ms_max": 130_000}, [5, 6]),
        ({"catch_up": "last", "late_ms_max": 20_000}, []),
    ],
)
def test_missed_ticks_are_made_up_for_as_the_entry_says(
    options: dict[str, object], fired: list[int]
) -> None:
    scene = Scene()
    scene.register()
    began_ms = scene.now_ms
    put(scene, timing="every 60", **options)

    scene.pass_time(6 * MINUTE + 30_000)
    caught_up = scene.take_ids()
    live(scene, 30)

    assert caught_up == [id_of("tidy", began_ms + n * MINUTE) for n in fired]
    assert scene.take_ids() == [id_of("tidy", began_ms + 7 * MINUTE)]


@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
def test_what_is_only_late_was_not_missed(catch_up: str) -> None:
    scene = Scene()
    scene.register()
    began_ms = scene.now_ms
    put(scene, timing="every 1", catch_up=catch_up)

    scene.pass_time(4_500)

    assert scene.take_ids() == [id_of("tidy", began_ms + n * 1_000) for n in (1, 2, 3, 4)]


# -- overlap ---------------------------------------------------------------------------------------


def test_an_entry_that_may_overlap_fires_while_its_last_message_runs() -> None:
    scene = Scene()
    scene.register()
    put(scene)

    live(scene, 30)

    assert len(scene.take()) == 3


def test_an_entry_that_skips_waits_for_the_end_of_its_last_message() -> None:
    scene = Scene()
    scene.register()
    put(scene, overlap="skip")
    live(scene, 10)
    first = scene.take_one()
    scene.start(first)

    live(scene, 20)
    running = scene.take()
    scene.settle(first)
    live(scene, 10)

    assert running == []
    assert entry(scene).skipped_count == 2
    assert "was skipped: message" in entry(scene).note
    assert len(scene.take()) == 1


def test_an_entry_that_queues_has_one_wait_until_the_running_one_has_ended() -> None:
    scene = Scene()
    scene.register()
    put(scene, overlap="queue")
    live(scene, 10)
    first = scene.take_one()
    scene.start(first)

    live(scene, 30)
    before = scene.take()
    scene.settle(first)
    after = scene.take()

    assert before == []
    assert len(after) == 1
    assert entry(scene).skipped_count == 2
    assert scene.faults() == []


def test_a_message_that_was_given_up_has_ended() -> None:
    scene = Scene()
    scene.register()
    put(scene, overlap="skip")
    live(scene, 10)
    scene.settle(scene.take_one(), Outcome.REJECTED)

    live(scene, 10)

    assert len(scene.take()) == 1


# -- by hand ---------------------------------------------------------------------------------------


def test_a_paused_entry_fires_nothing_and_makes_up_for_nothing() -> None:
    scene = Scene()
    scene.register()
    began_ms = scene.now_ms
    put(scene, catch_up="all")
    scene.do(Pause("tidy", "ann", "the disk"))

    live(scene, 35)
    paused = entry(scene)
    scene.do(Resume("tidy", ALMANAC))
    live(scene, 6)

    assert (paused.paused_by, paused.paused_why) == ("ann", "the disk")
    assert scene.take_ids() == [id_of("tidy", began_ms + 40_000)]
    assert not entry(scene).paused_ms


def test_run_publishes_now_and_once_per_id() -> None:
    scene = Scene()
    scene.register()
    put(scene, delay_ms=5_000)
    scene.do(Pause("tidy", "", ""))

    scene.do(Run("tidy", "by-hand", ALMANAC))
    scene.do(Run("tidy", "by-hand", ALMANAC))

    assert scene.take_ids() == ["by-hand"]
    assert entry(scene).run_count == 0


def test_run_does_not_overlap_where_ticks_do_not() -> None:
    scene = Scene()
    put(scene, overlap="skip")
    scene.do(Run("tidy", "by-hand", ALMANAC))

    with pytest.raises(Conflict, match="message 'by-hand' of the one before is queued"):
        scene.do(Run("tidy", "again", ALMANAC))


def test_run_says_when_there_is_no_room() -> None:
    engine = FlakyEngine()
    scene = Scene(engine, Policy(reserve_bytes=1_000))
    put(scene)
    engine.room_bytes = 1

    with pytest.raises(ResourceFull):
        scene.do(Run("tidy", "by-hand", ALMANAC))


def test_an_edit_of_the_message_keeps_the_next_tick_and_one_of_the_timing_does_not() -> None:
    scene = Scene()
    began_ms = scene.now_ms
    put(scene)
    live(scene, 5)

    kept = put(scene, jitter_ms=1).next_ms
    moved = put(scene, timing="every 20").next_ms

    assert kept == began_ms + 10_000
    assert moved == began_ms + 25_000
    live(scene, 19)
    assert entry(scene).run_count == 0
    live(scene, 1)
    assert entry(scene).run_count == 1
    assert scene.faults() == []


def test_a_paused_entry_that_is_edited_stays_paused() -> None:
    scene = Scene()
    scene.register()
    put(scene)
    scene.do(Pause("tidy", "", ""))

    put(scene, timing="every 1")
    live(scene, 5)

    assert scene.take() == []
    assert entry(scene).paused_ms


def test_a_second_entry_of_the_name_is_refused_where_a_new_one_is_meant() -> None:
    scene = Scene()
    put(scene)

    with pytest.raises(Conflict, match="a schedule 'tidy' already"):
        scene.do(Put("tidy", EVERY_10, ALMANAC, is_new=True))


def test_a_removed_entry_fires_no_more_and_is_not_found() -> None:
    scene = Scene()
    scene.register()
    put(scene)

    scene.do(Remove("tidy"))
    live(scene, 20)

    assert scene.take() == []
    for command in (Remove("tidy"), Pause("tidy", "", ""), Resume("tidy", ALMANAC)):
        with pytest.raises(NotFound, match="no schedule 'tidy'"):
            scene.do(command)
    with pytest.raises(NotFound):
        scene.do(Run("tidy", "m1", ALMANAC))
    with pytest.raises(NotFound):
        entry(scene)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"timing": "sometimes"}, "begins with none of"),
        ({"timing": "cron 0 0 30 2 *"}, "never occurs"),
        ({"timing": "at 1000"}, "would never fire"),
        ({"end_ms": 1}, "would never fire"),
        ({"overlap": "perhaps"}, "overlap 'perhaps'"),
        ({"catch_up": "some"}, "catch_up 'some'"),
        ({"catch_up_max": 0}, "catch_up_max 0"),
        ({"catch_up_max": 1_001}, "catch_up_max 1001"),
        ({"jitter_ms": -1}, "jitter_ms -1"),
        ({"start_ms": -1}, "start_ms -1"),
        ({"template": b"\xff"}, "not a qbroker.v1.Message"),
        ({"template": b""}, "task name"),
    ],
)
def test_an_entry_that_could_not_fire_is_refused_with_the_reason(
    options: dict[str, object], why: str
) -> None:
    scene = Scene()

    with pytest.raises(Invalid, match=why):
        put(scene, **options)

    assert scene.rows(keys.ENTRY) == []


@pytest.mark.parametrize("name", ["", "a\x00b", "x" * 192])
def test_an_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="schedule's name"):
        put(Scene(), name)


# -- declaring -------------------------------------------------------------------------------------


def test_a_declaration_adds_changes_and_removes_what_is_the_owners() -> None:
    scene = Scene()
    put(scene, "by hand")
    declare(scene, "other", theirs=EVERY_10)
    declare(scene, a=EVERY_10, b=EVERY_10, c=EVERY_10)

    declared = declare(scene, a=EVERY_10, b=replace(EVERY_10, timing="every 5"), d=EVERY_10)

    assert declared == Declared(("d",), ("b",), ("c",), ("a",), ())
    names = [name for name, _ in scene.broker.read(lambda txn: periodic.page(txn, "", 100))]
    assert names == ["a", "b", "by hand", "d", "theirs"]
    assert entry(scene, "d").owner == "proj"


def test_two_programs_that_declare_the_same_have_each_tick_once() -> None:
    scene = Scene()
    scene.register()
    began_ms = scene.now_ms
    declare(scene, tidy=EVERY_10)
    live(scene, 5)

    again = declare(scene, tidy=EVERY_10)
    live(scene, 15)

    assert again.unchanged == ("tidy",)
    assert scene.take_ids() == [id_of("tidy", began_ms + n * 10_000) for n in (1, 2)]


def test_declaring_the_same_again_takes_back_no_edit() -> None:
    scene = Scene()
    declare(scene, tidy=EVERY_10)
    put(scene, timing="every 99")

    same = declare(scene, tidy=EVERY_10)
    edited = entry(scene).definition.timing
    other = declare(scene, tidy=replace(EVERY_10, timing="every 7"))

    assert (same.unchanged, edited) == (("tidy",), "every 99")
    assert (other.changed, entry(scene).definition.timing) == (("tidy",), "every 7")


def test_what_is_somebody_elses_is_left_alone_and_told() -> None:
    scene = Scene()
    put(scene, "mine")
    declare(scene, "other", theirs=EVERY_10)

    declared = declare(
        scene, mine=replace(EVERY_10, timing="every 5"), theirs=replace(EVERY_10, timing="every 5")
    )

    assert declared.taken == (("mine", ""), ("theirs", "other"))
    assert entry(scene, "mine").definition == EVERY_10


def test_a_dry_declaration_changes_nothing() -> None:
    scene = Scene()
    declare(scene, a=EVERY_10, b=EVERY_10)

    declared = declare(scene, is_dry=True, b=replace(EVERY_10, timing="every 5"), c=EVERY_10)

    assert (declared.added, declared.changed, declared.removed) == (("c",), ("b",), ("a",))
    assert len(scene.rows(keys.ENTRY)) == 2
    assert entry(scene, "b").definition == EVERY_10


def test_one_impossible_entry_of_a_declaration_refuses_all_of_it() -> None:
    scene = Scene()

    with pytest.raises(Invalid):
        declare(scene, a=EVERY_10, b=replace(EVERY_10, timing="never"))

    assert scene.rows(keys.ENTRY) == []


# -- the store -------------------------------------------------------------------------------------


def test_entries_survive_a_restart() -> None:
    scene = Scene()
    began_ms = scene.now_ms
    put(scene)

    scene.restart()
    scene.register()
    live(scene, 10)

    assert scene.take_ids() == [id_of("tidy", began_ms + 10_000)]


def test_entries_are_listed_in_pages_by_name() -> None:
    scene = Scene()
    for name in ("c", "a", "b", "a!"):
        put(scene, name)

    first = scene.broker.read(lambda txn: periodic.page(txn, "", 3))
    rest = scene.broker.read(lambda txn: periodic.page(txn, first[-1][0], 3))

    assert [name for name, _ in first + rest] == ["a", "a!", "b", "c"]


def test_a_damaged_entry_is_put_aside_and_costs_no_other() -> None:
    scene = Scene()
    scene.register()
    put(scene, "a")
    put(scene, "b")
    scene.damage(keys.ENTRY + b"a")
    listed = scene.broker.read(lambda txn: periodic.page(txn, "", 10))
    faults = scene.faults()

    live(scene, 10)

    assert [name for name, _ in listed] == ["b"]
    assert len(faults) == 1
    assert len(scene.take()) == 1
    assert len(scene.rows(keys.DAMAGED)) == 1
    assert scene.faults() == []


def test_an_entry_nobody_is_reminded_of_is_a_fault() -> None:
    scene = Scene()
    put(scene)
    for key, _ in scene.rows(keys.TIME):
        txn = scene.engine.begin(bytes_max=0)
        txn.delete(key)
        txn.commit()

    (fault,) = scene.faults()

    assert "nothing reminds of it" in fault


def test_a_message_that_was_started_is_not_taken_for_waiting() -> None:
    scene = Scene()
    scene.register()
    put(scene, overlap="queue")
    live(scene, 10)
    scene.start(scene.take_one())

    live(scene, 10)

    assert scene.record(entry(scene).last_id).stage == Stage.QUEUED


def test_a_schedule_is_not_stored_from_the_reserve_and_one_that_stays_as_it_is_is_no_refusal() -> (
    None
):
    engine = FlakyEngine()
    scene = Scene(engine, Policy(reserve_bytes=1_000))
    put(scene)
    engine.room_bytes = 999

    put(scene)
    with pytest.raises(ResourceFull):
        put(scene, "other")

    assert scene.faults() == []


def test_what_an_entry_has_published_stays_until_it_is_dropped() -> None:
    scene = Scene()
    scene.register("s0", queues=("other",), tasks=())
    put(scene, delay_ms=MINUTE)
    live(scene, 10)
    delayed = entry(scene).last_id
    put(scene)
    live(scene, 10)
    ready = entry(scene).last_id
    scene.publish(new("stranger"))

    scene.do(Remove("tidy"))
    stages = [scene.record(one).stage for one in (delayed, ready)]
    dropped = scene.do(Drop("tidy", scene.now_ms))

    assert stages == [Stage.SCHEDULED, Stage.QUEUED]
    assert dropped == (2, max(delayed, ready))
    assert scene.record(delayed).end_reason == scene.record(ready).end_reason == EndReason.REVOKED
    assert "schedule 'tidy'" in scene.record(ready).detail
    assert scene.record("stranger").stage == Stage.QUEUED
    assert scene.do(Drop("tidy", scene.now_ms, dropped[1])) == (0, "")
    assert scene.faults() == []


def test_a_drop_spares_what_runs_what_was_given_up_and_what_came_later() -> None:
    scene = Scene()
    scene.register(prefetch_count=2)
    put(scene)
    live(scene, 20)
    running, given_up = scene.take()
    scene.start(running)
    scene.settle(given_up, Outcome.REJECTED, b"")
    scene.report(prefetch_count=1)
    live(scene, 10)
    waiting, until_ms = entry(scene).last_id, scene.now_ms
    live(scene, 10)
    later = entry(scene).last_id

    count, _ = scene.do(Drop("tidy", until_ms))

    assert count == 1
    assert scene.record(waiting).end_reason == EndReason.REVOKED
    assert [scene.record(one).stage for one in (running.id, given_up.id, later)] == [
        Stage.STARTED,
        Stage.DEAD,
        Stage.QUEUED,
    ]
    assert scene.cancels == []


def test_a_drop_tells_the_worker_that_has_a_message_and_has_not_started_it() -> None:
    scene = Scene()
    scene.register()
    put(scene)
    live(scene, 10)

    count, _ = scene.do(Drop("tidy", scene.now_ms))

    assert count == 1
    assert [cancel.id for cancel in scene.cancels] == scene.take_ids()


def test_a_drop_ends_what_waits_to_be_tried_again() -> None:
    scene = Scene()
    scene.register()
    put(scene)
    live(scene, 10)
    lease = lease_of(scene.take_one())
    due_ms = scene.now_ms + MINUTE
    scene.report(settles=[Settle(lease.id, lease.attempt, Outcome.RETRY, b"", eta_ms=due_ms)])
    scene.do(Pause("tidy", "", ""))

    count, _ = scene.do(Drop("tidy", scene.now_ms))

    assert count == 1
    assert scene.record(lease.id).end_reason == EndReason.REVOKED
