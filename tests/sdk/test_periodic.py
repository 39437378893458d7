"""What an app declares, and what the broker makes of it: the real one, in this process."""

import datetime as dt
import json
from collections.abc import Mapping

import pytest

from qbroker import App
from qbroker.app.periodic import fields_of, is_fired_here
from qbroker.beat import BeatLazyFunc
from qbroker.exceptions import ImproperlyConfigured, NotFound
from qbroker.result import AsyncResult
from qbroker.schedules import BaseSchedule, crontab, schedule
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import Message
from tests.sdk.conftest import MakeApp
from tests.sdk.real_broker import RealBroker, ToyWorker


class Own(BaseSchedule):
    """A schedule the broker has no words for."""


def message(fields: dict[str, Value]) -> Message:
    return Message.FromString(fields["message"])


def fields(app: App, **entry: Value) -> dict[str, Value]:
    """An entry in the protocol's words."""
    return fields_of("e", {"task": "proj.add", "schedule": 30, **entry}, app, app._template)


# -- declaring -------------------------------------------------------------------------------------


def test_beat_schedule_and_added_tasks_are_declared_and_told_apart_from_last_time(
    real_app: App,
) -> None:
    @real_app.task
    def add(x: int, y: int) -> int:
        return x + y

    real_app.conf.beat_schedule = {
        "a": {"task": "proj.add", "schedule": 30.0, "args": (1, 2)},
        "b": {"task": "proj.add", "schedule": crontab(minute=0, hour="*/3")},
    }
    real_app.add_periodic_task(10, add.s(3, 4), name="c", overlap="skip", queue="slow")
    first = real_app.schedules.declare()
    real_app.conf.beat_schedule = {"a": {"task": "proj.add", "schedule": 60.0, "args": (1, 2)}}
    dry = real_app.schedules.declare(dry_run=True)
    second = real_app.schedules.declare()
    third = real_app.schedules.declare()

    assert first.added == ("a", "b", "c")
    assert dry == second
    assert (second.changed, second.removed, second.unchanged) == (("a",), ("b",), ("c",))
    assert third.unchanged == ("a", "c")
    found = {info.schedule.name: info for info in real_app.schedules}
    assert (found["a"].schedule.timing, found["a"].owner) == ("every 60", "proj")
    assert (found["c"].queue, found["c"].schedule.overlap) == ("slow", "skip")


def test_the_broker_fires_what_was_declared_and_a_worker_runs_it(
    real_app: App, real_broker: RealBroker
) -> None:
    ran: list[Value] = []

    @real_app.task(bind=True)
    def note(self: Value, word: str) -> str:
        ran.append((word, self.request.headers["periodic_task_name"], self.request.root_id))
        return word

    real_app.add_periodic_task(0.05, note.s("hello"), name="greet")
    real_app.schedules.declare()
    worker = ToyWorker(real_app, real_broker.url)
    worker.work(2)
    worker.leave()

    assert [(word, name) for word, name, _ in ran] == [("hello", "greet")] * 2
    # Each run is the root of its own workflow.
    assert len({root for _, _, root in ran}) == 2


def test_tasks_are_added_when_the_app_is_configured(make_app: MakeApp) -> None:
    app = make_app()
    seen: list[str] = []

    @app.task
    def test(arg: str) -> None: ...

    @app.on_after_configure.connect
    def setup(sender: App, **_: Value) -> None:
        seen.append("configured")
        sender.add_periodic_task(10.0, test.s("hello"), name="add every 10")
        sender.add_periodic_task(30.0, test.s("world"), expires=10)

    @app.on_after_finalize.connect
    def more(sender: App, **_: Value) -> None:
        seen.append("finalized")

    entries = app.periodic_entries()

    assert seen == ["configured", "finalized"]
    assert app.conf.beat_schedule == entries
    assert entries["add every 10"]["args"] == ("hello",)
    (other,) = [entry for name, entry in entries.items() if name != "add every 10"]
    assert (other["schedule"], other["options"]) == (30.0, {"expires": 10})


def test_the_settings_old_name_is_the_same_setting(make_app: MakeApp) -> None:
    app = make_app()
    app.conf.update(CELERYBEAT_SCHEDULE={"a": {"task": "t", "schedule": 1}})

    assert app.conf.beat_schedule == {"a": {"task": "t", "schedule": 1}}
    assert list(app.periodic_entries()) == ["a"]


def test_what_only_a_running_program_can_fire_is_not_declared(real_app: App) -> None:
    real_app.conf.beat_schedule = {
        "own": {"task": "t", "schedule": Own()},
        "clock": {"task": "t", "schedule": schedule(1, nowfun=lambda: dt.datetime.now(dt.UTC))},
        "lazy": {"task": "t", "schedule": 1, "kwargs": {"x": BeatLazyFunc(int)}},
        "plain": {"task": "t", "schedule": 1},
    }

    declared = real_app.schedules.declare()

    assert (declared.added, declared.fired_here) == (("plain",), ("own", "clock", "lazy"))


# -- an entry in the protocol's words --------------------------------------------------------------


def test_an_entry_is_its_call_without_what_is_of_one_moment(make_app: MakeApp) -> None:
    found = fields(
        make_app(backend="qbroker://"),
        args=[1],
        kwargs={"y": 2},
        options={
            "queue": "slow",
            "priority": 7,
            "countdown": 5,
            "expires": 60,
            "headers": {"a": 1},
        },
    )

    sent = message(found)
    assert (found["timing"], found["delay_ms"], found["lifetime_ms"]) == ("every 30", 5_000, 60_000)
    assert (sent.id, sent.origin, sent.eta_ms, sent.expires_ms) == ("", "", 0, 0)
    assert (sent.queue, sent.priority, sent.body) == ("slow", 7, b'[[1],{"y":2},{}]')
    assert (sent.argsrepr, sent.kwargsrepr) == ("(1,)", "{'y': 2}")
    assert json.loads(sent.headers) == {"a": 1, "celery_beat_task": True, "periodic_task_name": "e"}


def test_a_tasks_own_options_count(make_app: MakeApp) -> None:
    app = make_app(backend="qbroker://")

    @app.task(name="proj.add", queue="sums", expires=90, acks_late=True, shared=False)
    def add() -> None: ...

    found = fields(app)

    assert (message(found).queue, found["lifetime_ms"], message(found).expires_ms) == (
        "sums",
        90_000,
        0,
    )
    assert message(found).ack_policy


def test_two_processes_say_the_same_of_the_same_entry(make_app: MakeApp) -> None:
    assert fields(make_app()) == fields(make_app())


def test_our_own_words_of_an_entry(make_app: MakeApp) -> None:
    app = make_app(timezone="Europe/Berlin")

    found = fields(
        app,
        schedule=crontab(minute=0, hour=6),
        timezone="America/New_York",
        overlap="queue",
        catch_up="all",
        catch_up_max=5,
        late_max="2h",
        jitter=dt.timedelta(seconds=3),
        start=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        end="2027-01-01T00:00:00",
        one_off=True,
    )

    del found["message"]
    assert found == {
        "timing": "cron 0 6 * * * America/New_York",
        "overlap": "queue",
        "catch_up": "all",
        "catch_up_max": 5,
        "late_ms_max": 7_200_000,
        "jitter_ms": 3_000,
        "start_ms": 1_767_225_600_000,
        # Without a zone it is in the schedule's.
        "end_ms": 1_798_779_600_000,
        "runs_max": 1,
    }
    assert fields(app, max_runs=3)["runs_max"] == 3


def test_the_deadline_of_crontabs_holds_at_the_broker(make_app: MakeApp) -> None:
    app = make_app(beat_cron_starting_deadline=300)

    assert fields(app, schedule=crontab())["late_ms_max"] == 300_000
    assert "late_ms_max" not in fields(app)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"shedule": 3}, "says shedule, which means nothing"),
        ({"task": None}, "has no task"),
        ({"schedule": None}, "has no schedule"),
        ({"schedule": "soon"}, "'soon' is not a schedule"),
        ({"schedule": Own()}, "only a running 'qbroker beat'"),
        ({"jitter": "a bit"}, "'a bit' is not a number of seconds"),
        ({"start": 5}, "start 5 is not a datetime"),
        ({"schedule": 0}, "an interval of 0 seconds"),
        ({"options": {"eta": "2030-01-01"}}, "say it with start"),
        ({"options": {"colour": "red"}}, "unknown options: colour"),
        ({"timezone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused_by_its_name(
    make_app: MakeApp, entry: dict[str, Value], why: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"the periodic task 'e' .*{why}"):
        fields(make_app(), **entry)


# -- entries at the broker -------------------------------------------------------------------------


def test_entries_are_made_looked_at_paused_run_and_removed(real_app: App) -> None:
    made = real_app.schedules.put("tidy", task="proj.tidy", schedule=3_600, is_new=True)
    changed = real_app.schedules.put("tidy", task="proj.tidy", schedule=7_200)
    paused = real_app.schedules.pause("tidy", why="the disk")
    result = real_app.schedules.run("tidy")
    resumed = real_app.schedules.resume("tidy")
    first, second = real_app.schedules.next("tidy", 2)

    assert (made.schedule.timing, changed.schedule.timing) == ("every 3600", "every 7200")
    assert (paused.paused_why, resumed.paused_ms) == ("the disk", 0)
    assert result.explain().stage == "queued"
    assert second - first == dt.timedelta(hours=2)
    assert [info.schedule.name for info in real_app.schedules] == ["tidy"]
    real_app.schedules.remove("tidy")
    with pytest.raises(NotFound):
        real_app.schedules.get("tidy")


def test_what_waits_of_an_entry_goes_with_it_where_that_is_asked_for(real_app: App) -> None:
    def delayed() -> AsyncResult[Value]:
        return real_app.send_task("proj.tidy", countdown=3_600, labels={"schedule": "tidy"})

    schedules = real_app.schedules
    schedules.put("tidy", task="proj.tidy", schedule=3_600)
    before_pause = delayed()
    paused = schedules.pause("tidy", with_waiting=True)
    before_change = delayed()
    changed = schedules.put("tidy", with_waiting=True, task="proj.tidy", schedule=60)
    before_removal = delayed()
    schedules.remove("tidy", with_waiting=True)

    assert (paused.dropped_count, changed.dropped_count) == (1, 1)
    assert [one.state for one in (before_pause, before_change, before_removal)] == ["REVOKED"] * 3


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"args": 2}, "the arguments of task 'proj.add' must be a list or a tuple, not 2"),
        ({"kwargs": 2}, "the keyword arguments of task 'proj.add' must be a mapping, not 2"),
        ({"kwargs": [1]}, "the keyword arguments of task 'proj.add' must be a mapping"),
    ],
)
def test_arguments_of_a_wrong_shape_are_refused_with_the_entrys_and_the_tasks_name(
    make_app: MakeApp, entry: Mapping[str, Value], why: str
) -> None:
    app = make_app()
    whole = {"task": "proj.add", "schedule": 10, **entry}

    assert not is_fired_here(whole, app)
    with pytest.raises(ImproperlyConfigured, match=f"periodic task 'n' is not valid: {why}"):
        app.schedules.put("n", **whole)
