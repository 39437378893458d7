"""Celery's Scheduler for those who subclass it, and `qbroker beat`."""

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from qbroker import App, signals
from qbroker.beat import (
    BeatLazyFunc,
    PersistentScheduler,
    ScheduleEntry,
    Scheduler,
    SchedulingError,
    Service,
)
from qbroker.bin.beat import beat
from qbroker.schedules import BaseSchedule, schedstate, schedule
from qbroker.serialization import Value
from tests.sdk.conftest import MakeApp
from tests.sdk.real_broker import RealBroker

BEGAN = dt.datetime(2026, 5, 10, 12, 0, tzinfo=dt.UTC)


class Clock:
    """What time it is for schedules."""

    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> dt.datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += dt.timedelta(seconds=seconds)


class Recorder(Scheduler):
    """Publishes to a list."""

    def __init__(self, *args: Value, **kwargs: Value) -> None:
        self.sent: list[tuple[str, Value, Value]] = []
        super().__init__(*args, **kwargs)

    def send_task(self, *args: Value, **kwargs: Value) -> Value:
        if args[0] == "broken":
            raise RuntimeError("no")
        self.sent.append((args[0], list(args[1]), kwargs))


class Raises(BaseSchedule):
    """A schedule that cannot be asked."""

    def is_due(self, last_run_at: dt.datetime) -> schedstate:
        raise KeyError("nobody knows")


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app()


def run_for(scheduler: Scheduler, clock: Clock, seconds: int) -> None:
    """Tick as a service does, second by second."""
    for _ in range(seconds):
        clock.advance(1)
        while scheduler.tick() == 0:
            pass


# -- Scheduler -------------------------------------------------------------------------------------


def test_a_scheduler_publishes_what_is_due(app: App) -> None:
    clock = Clock()
    app.conf.beat_schedule = {
        "a": {
            "task": "t.a",
            "schedule": schedule(10, nowfun=clock, app=app),
            "args": (1,),
            "options": {"queue": "q"},
        },
        "b": {"task": "t.b", "schedule": schedule(4, nowfun=clock, app=app)},
    }
    scheduler = Recorder(app)

    run_for(scheduler, clock, 21)

    assert [name for name, _, _ in scheduler.sent].count("t.a") == 2
    assert [name for name, _, _ in scheduler.sent].count("t.b") == 5
    _, args, options = next(sent for sent in scheduler.sent if sent[0] == "t.a")
    assert (args, options["queue"]) == ([1], "q")
    assert options["headers"] == {"celery_beat_task": True, "periodic_task_name": "a"}
    assert scheduler.schedule["a"].total_run_count == 2


def test_an_entry_that_cannot_be_asked_does_not_stop_the_others(app: App) -> None:
    clock = Clock()
    scheduler = Recorder(app, lazy=True, max_interval=60)
    scheduler.add(name="bad", task="t.bad", schedule=Raises(nowfun=clock, app=app))
    scheduler.add(name="broken", task="broken", schedule=schedule(1, nowfun=clock, app=app))
    scheduler.add(name="good", task="t.good", schedule=schedule(1, nowfun=clock, app=app))

    run_for(scheduler, clock, 5)

    assert [name for name, _, _ in scheduler.sent] == ["t.good"] * 5


def test_a_changed_schedule_is_seen_at_the_next_tick(app: App) -> None:
    clock = Clock()
    scheduler = Recorder(app, lazy=True)
    assert scheduler.tick() == scheduler.max_interval

    scheduler.update_from_dict(
        {"a": {"task": "t.a", "schedule": schedule(2, nowfun=clock, app=app)}}
    )
    run_for(scheduler, clock, 5)
    scheduler.merge_inplace({})
    run_for(scheduler, clock, 5)

    assert len(scheduler.sent) == 2


def test_lazy_arguments_are_computed_when_the_task_is_published(app: App) -> None:
    values = iter("ab")
    scheduler = Recorder(app, lazy=True)
    entry = scheduler.add(
        name="a",
        task="t",
        schedule=1,
        args=(BeatLazyFunc(next, values), 7),
        kwargs={"x": BeatLazyFunc(lambda: 3)},
    )

    scheduler.apply_async(entry)
    scheduler.apply_async(entry)

    assert [args for _, args, _ in scheduler.sent] == [["a", 7], ["b", 7]]


def test_what_cannot_be_published_says_so(app: App) -> None:
    scheduler = Recorder(app, lazy=True)
    entry = scheduler.add(name="a", task="broken", schedule=1)

    with pytest.raises(SchedulingError, match="Couldn't apply scheduled task a: no"):
        scheduler.apply_async(entry)


def test_entries_are_equal_by_what_can_be_edited(app: App) -> None:
    one = ScheduleEntry("a", "t", schedule=10, args=(1,), app=app)
    other = ScheduleEntry("a", "t", schedule=10, args=(2,), app=app)

    assert one != other
    other.update(one)
    assert one == other
    following = next(one)
    assert (following.total_run_count, following.name) == (1, "a")
    assert "t(1) <freq: 10.00 seconds>" in repr(one)


def test_a_service_runs_its_scheduler_until_it_is_stopped(app: App) -> None:
    ticked, closed = threading.Event(), threading.Event()

    class Mine(PersistentScheduler):
        def tick(self) -> float:
            ticked.set()
            return self.max_interval

        def close(self) -> None:
            closed.set()

    told: list[Value] = []
    hear = lambda signal, sender, **_: told.append((signal.name, sender))  # noqa: E731 - connected and disconnected
    service = Service(app, scheduler_cls=Mine)
    for begun in (signals.beat_init, signals.beat_embedded_init):
        begun.connect(hear)
    thread = threading.Thread(target=service.start, args=(True,))
    thread.start()
    assert ticked.wait(10)
    assert not closed.is_set()

    service.stop()
    thread.join(10)
    for begun in (signals.beat_init, signals.beat_embedded_init):
        begun.disconnect(hear)

    assert closed.is_set()
    assert told == [("beat_init", service), ("beat_embedded_init", service)]


# -- qbroker beat ----------------------------------------------------------------------------------

APP = """
from qbroker import App, signals
from qbroker.beat import Scheduler
from qbroker.schedules import BaseSchedule, schedstate

app = App("beaten", broker={url!r}, backend="qbroker://")
app.conf.beat_schedule = {{"tidy": {{"task": "beaten.tidy", "schedule": 3600}}}}


@app.task
def tidy(): ...


class Soon(BaseSchedule):
    def is_due(self, last_run_at):
        return schedstate((self.now() - last_run_at).total_seconds() > 0.05, 0.05)


class Mine(Scheduler):
    def tick(self):
        print("mine ticks", flush=True)
        return 60
"""


@pytest.fixture
def folder(tmp_path: Path, real_broker: RealBroker) -> Path:
    (tmp_path / "beaten.py").write_text(APP.format(url=real_broker.url))
    return tmp_path


def run_beat(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "qbroker", "-A", "beaten", "beat", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.e2e
def test_beat_registers_what_the_app_declares_and_says_what_changed(
    folder: Path, real_app: App
) -> None:
    dry = run_beat(folder, "--dry-run")
    first = run_beat(folder, "--once")
    second = run_beat(folder, "--once")

    assert dry.stdout == "added: tidy\nThe broker would fire 1 periodic task of this app.\n", (
        dry.stderr
    )
    assert first.stdout == "added: tidy\nThe broker fires 1 periodic task of this app.\n"
    assert second.stdout == "The broker fires 1 periodic task of this app.\n"
    assert real_app.schedules.get("tidy").owner == "beaten"


@pytest.mark.e2e
def test_beat_stays_up_for_what_the_broker_cannot_fire(folder: Path, real_app: App) -> None:
    source = (folder / "beaten.py").read_text()
    (folder / "beaten.py").write_text(
        source + '\napp.add_periodic_task(Soon(), tidy.s(), name="soon", task_id="one")\n'
    )
    with subprocess.Popen(
        [sys.executable, "-m", "qbroker", "beat", "-A", "beaten"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        result = real_app.AsyncResult("one")
        while result.explain().stage == "unknown":
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0

    assert lines[:2] == ["added: tidy\n", "fired by this program: soon\n"]


@pytest.mark.e2e
def test_a_scheduler_of_the_users_is_run_in_the_brokers_place(folder: Path, real_app: App) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "qbroker", "beat", "-A", "beaten", "-S", "beaten:Mine"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0

    assert line == "mine ticks\n"
    assert list(real_app.schedules) == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "Which app?"),
        (["-A", "nowhere_at_all"], "there is no module 'nowhere_at_all'"),
        (["-A", "tests.sdk.beaten", "-S", "nowhere:Mine"], "cannot be imported"),
        (["-A", "tests.sdk.beaten", "-S", "os.path:join"], "is not a subclass"),
        (["-A", "tests.sdk.beaten", "-l", "LOUD"], "LOUD"),
        (["-A", "tests.sdk.beaten", "--", "task_acks=True"], "no setting 'task_acks'"),
        (["-A", "tests.sdk.beaten", "--once", "-b", "qbroker://127.0.0.1:1"], "127.0.0.1:1"),
    ],
)
def test_what_is_in_the_way_is_one_sentence(arguments: list[str], why: str) -> None:
    result = CliRunner().invoke(beat, arguments)

    assert result.exit_code != 0
    assert why in result.output
    assert "Traceback" not in result.output
