"""`celery.beat`'s classes, for programs that subclass them, and for entries only a running program can fire.

The broker fires what it can compute by itself. A `BaseSchedule` of your own, a `nowfun` or a `BeatLazyFunc` is a
function of your program, so a `qbroker beat` that stays up asks it. A Scheduler of your own (`beat_scheduler`,
`-S`) is run as in Celery: it decides what is due, and publishes.
"""

import copy
import datetime as dt
import heapq
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Self

from qbroker import signals
from qbroker.schedules import maybe_schedule, schedstate
from qbroker.serialization import Value
from qbroker.utils.time import humanize_seconds

__all__ = [
    "BeatLazyFunc",
    "PersistentScheduler",
    "ScheduleEntry",
    "Scheduler",
    "SchedulingError",
    "Service",
]

logger = logging.getLogger(__name__)

DEFAULT_MAX_INTERVAL = 300.0
"""How many seconds a scheduler sleeps at most before it looks again."""


class SchedulingError(Exception):
    """A periodic task could not be published."""


class BeatLazyFunc:
    """An argument of a periodic task that is computed when the task is published."""

    def __init__(self, func: Callable[..., Value], *args: Value, **kwargs: Value) -> None:
        self._func = func
        self._func_params: dict[str, Value] = {"args": args, "kwargs": kwargs}

    def __call__(self) -> Value:
        return self.delay()

    def delay(self) -> Value:
        """The argument as it is now."""
        return self._func(*self._func_params["args"], **self._func_params["kwargs"])


class ScheduleEntry:
    """A periodic task and when it last ran. Equal when what can be edited is equal."""

    name: str | None = None
    schedule: Value = None
    args: Value = None
    kwargs: Value = None
    options: Value = None
    last_run_at: Value = None
    total_run_count = 0

    def __init__(
        self,
        name: str | None = None,
        task: str | None = None,
        last_run_at: dt.datetime | None = None,
        total_run_count: int | None = None,
        schedule: Value = None,
        args: Value = (),
        kwargs: Value = None,
        options: Value = None,
        relative: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        app: Value = None,
    ) -> None:
        self.app = app
        self.name = name
        self.task = task
        self.args = args
        self.kwargs = kwargs or {}
        self.options = options or {}
        self.schedule = maybe_schedule(schedule, relative, app=app)
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0

    def default_now(self) -> dt.datetime:
        """What time it is for the schedule."""
        now: dt.datetime = self.schedule.now() if self.schedule is not None else self.app.now()
        return now

    _default_now = default_now

    def next(self, last_run_at: dt.datetime | None = None) -> Self:
        """The entry after one run more."""
        return self.__class__(
            **dict(
                self,
                last_run_at=last_run_at or self.default_now(),
                total_run_count=self.total_run_count + 1,
            )
        )

    __next__ = next  # noqa: A003 - that one
    _next_instance = __next__

    def update(self, other: "ScheduleEntry") -> None:
        """Take what can be edited from another entry."""
        for name in _EDITABLE:
            setattr(self, name, getattr(other, name))

    def is_due(self) -> schedstate:
        """Whether to run now, and in how many seconds to ask again."""
        found: schedstate = self.schedule.is_due(self.last_run_at)
        return found

    def editable_fields_equal(self, other: "ScheduleEntry") -> bool:
        """Whether what can be edited is the same."""
        return all(getattr(self, name) == getattr(other, name) for name in _EDITABLE)

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return iter(vars(self).items())

    def __repr__(self) -> str:
        arguments = [repr(value) for value in self.args or ()]
        arguments += [f"{name}={value!r}" for name, value in (self.kwargs or {}).items()]
        call = f"{self.task}({', '.join(arguments)})"
        return f"<{type(self).__name__}: {self.name} {call} {self.schedule}"

    def __lt__(self, other: object) -> bool:
        return id(self) < id(other) if isinstance(other, ScheduleEntry) else NotImplemented

    def __eq__(self, other: object) -> bool:
        return (
            self.editable_fields_equal(other)
            if isinstance(other, ScheduleEntry)
            else NotImplemented
        )

    __hash__ = None  # type: ignore[assignment] # equal by value, and changeable

    def __reduce__(self) -> tuple[Value, ...]:
        return type(self), (
            self.name,
            self.task,
            self.last_run_at,
            self.total_run_count,
            self.schedule,
            self.args,
            self.kwargs,
            self.options,
        )


_EDITABLE = ("task", "schedule", "args", "kwargs", "options")


class event_t(NamedTuple):  # noqa: N801 - Celery's name
    """When an entry wants to be looked at."""

    time: float
    priority: int
    entry: ScheduleEntry


def _now_value(value: Value) -> Value:
    return value() if isinstance(value, BeatLazyFunc) else value


class Scheduler:
    """Decides what is due and publishes it. `tick()` does one and answers how many seconds to sleep.

    It keeps `schedule`, entries by name, in memory. Subclasses may keep it elsewhere, with `setup_schedule`, `sync` and
    `close`.
    """

    Entry: type[ScheduleEntry] = ScheduleEntry
    max_interval: float = DEFAULT_MAX_INTERVAL
    sync_every = 3 * 60
    sync_every_tasks: int | None = None
    logger = logger

    def __init__(
        self,
        app: Value,
        schedule: Value = None,
        max_interval: float | None = None,
        Producer: Value = None,  # noqa: N803 - Celery's name
        lazy: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        sync_every_tasks: int | None = None,
        **kwargs: Value,
    ) -> None:
        del Producer, kwargs
        self.app = app
        self.data: dict[str, ScheduleEntry] = {} if schedule is None else schedule
        self.max_interval = max_interval or app.conf.beat_max_loop_interval or self.max_interval
        self.sync_every_tasks = sync_every_tasks
        self._heap: list[event_t] | None = None
        self.old_schedulers: Mapping[str, ScheduleEntry] | None = None
        if not lazy:
            self.setup_schedule()

    # -- what is to be run

    def get_schedule(self) -> Mapping[str, ScheduleEntry]:
        """The entries by name."""
        return self.data

    def set_schedule(self, schedule: Mapping[str, ScheduleEntry]) -> None:
        """Have these entries."""
        self.data = dict(schedule)

    @property
    def schedule(self) -> Mapping[str, ScheduleEntry]:
        """The entries by name."""
        return self.get_schedule()

    @schedule.setter
    def schedule(self, schedule: Mapping[str, ScheduleEntry]) -> None:
        self.set_schedule(schedule)

    def setup_schedule(self) -> None:
        """Fill the schedule when the scheduler starts; here with what the app declares."""
        self.merge_inplace(self.app.conf.beat_schedule)

    def add(self, **kwargs: Value) -> ScheduleEntry:
        """Make an entry and keep it."""
        entry = self.Entry(app=self.app, **kwargs)
        self.data[str(entry.name)] = entry
        return entry

    def _maybe_entry(self, name: str, entry: Value) -> ScheduleEntry:
        if isinstance(entry, self.Entry):
            entry.app = self.app
            return entry
        return self.Entry(**{**entry, "name": name, "app": self.app})

    def update_from_dict(self, dict_: Mapping[str, Value]) -> None:
        """Add entries, or take them in the place of those of their names."""
        self.data.update({name: self._maybe_entry(name, entry) for name, entry in dict_.items()})

    def merge_inplace(self, b: Mapping[str, Value]) -> None:
        """Have exactly those entries; ones that are there keep when they last ran."""
        for name in self.data.keys() - b.keys():
            del self.data[name]
        for name, given in b.items():
            entry = self._maybe_entry(name, given)
            if name in self.data:
                self.data[name].update(entry)
            else:
                self.data[name] = entry

    # -- running it

    def tick(self) -> float:
        """Publish at most one task that is due; answers how many seconds to sleep."""
        if self._heap is None or not self.schedules_equal(self.old_schedulers, self.schedule):
            self.old_schedulers = copy.copy(self.schedule)
            self.populate_heap()
        heap = self._heap
        if not heap:
            return self.max_interval
        event = heap[0]
        wait_s = event.time - self._when(event.entry, 0)
        if wait_s > 0:
            return min(wait_s, self.max_interval)
        heapq.heappop(heap)
        due, next_s = self._looked_at(event.entry)
        if not due:
            heapq.heappush(heap, event._replace(time=self._when(event.entry, next_s)))
            return 0 if heap[0].entry is not event.entry else min(next_s, self.max_interval)
        following = self.reserve(event.entry)
        self.apply_entry(event.entry)
        heapq.heappush(heap, event_t(self._when(following, next_s), event.priority, following))
        return 0

    def populate_heap(self) -> None:
        """Find out anew when each entry wants to be looked at."""
        self._heap = []
        for entry in self.schedule.values():
            due, next_s = self._looked_at(entry)
            self._heap.append(event_t(self._when(entry, 0 if due else next_s), 5, entry))
        heapq.heapify(self._heap)

    def is_due(self, entry: ScheduleEntry) -> schedstate:
        """Whether to run it now, and in how many seconds to ask again."""
        return entry.is_due()

    def _looked_at(self, entry: ScheduleEntry) -> tuple[bool, float]:
        try:
            due, next_s = self.is_due(entry)
        except Exception:
            # One entry whose next run cannot be computed must not stop the others.
            logger.exception(
                "beat: Cannot calculate the next run of %r, trying again in %s.",
                entry.name,
                humanize_seconds(self.max_interval),
            )
            return False, self.max_interval
        # A schedule of the user's may answer anything.
        asked: Value = next_s
        return due, float(asked) if isinstance(asked, int | float) else self.max_interval

    def _when(self, entry: ScheduleEntry, next_time_to_run: float) -> float:
        return entry.default_now().timestamp() + (next_time_to_run or 0)

    def reserve(self, entry: ScheduleEntry) -> ScheduleEntry:
        """Count a run of the entry, before it is published."""
        following = entry.next()
        self.data[str(entry.name)] = following
        return following

    def apply_entry(self, entry: ScheduleEntry, producer: Value = None) -> None:
        """Publish the entry's task; an error is logged."""
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except Exception:
            logger.exception("Message Error: the periodic task %r was not sent", entry.name)
        else:
            logger.debug("%s sent. id->%s", entry.task, getattr(result, "id", None))

    def apply_async(
        self,
        entry: ScheduleEntry,
        producer: Value = None,
        advance: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        **kwargs: Value,
    ) -> Value:
        """Publish the entry's task; SchedulingError when that fails."""
        del producer
        if advance:
            self.reserve(entry)
        args = [_now_value(value) for value in entry.args or ()]
        named = {name: _now_value(value) for name, value in (entry.kwargs or {}).items()}
        options = {**(entry.options or {}), **kwargs}
        options["headers"] = {
            **(options.get("headers") or {}),
            "celery_beat_task": True,
            "periodic_task_name": entry.name,
        }
        try:
            return self.send_task(entry.task, args, named, **options)
        except Exception as exc:
            raise SchedulingError(f"Couldn't apply scheduled task {entry.name}: {exc}") from exc

    def send_task(self, *args: Value, **kwargs: Value) -> Value:
        """Publish a task by its name."""
        return self.app.send_task(*args, **kwargs)

    @staticmethod
    def schedules_equal(
        old_schedules: Mapping[str, ScheduleEntry] | None,
        new_schedules: Mapping[str, ScheduleEntry] | None,
    ) -> bool:
        """Whether both hold the same entries."""
        return old_schedules == new_schedules

    # -- keeping it

    def should_sync(self) -> bool:
        """Whether it is time to `sync`; here there is nothing to write."""
        return False

    def sync(self) -> None:
        """Write the schedule to where it is kept."""

    def close(self) -> None:
        """Let go of where it is kept."""
        self.sync()

    @property
    def info(self) -> str:
        """A line about it for the banner."""
        return ""


class PersistentScheduler(Scheduler):
    """Celery's name for the default scheduler. The broker remembers when its entries ran, so there is no file."""


class Service:
    """Runs a scheduler until it is stopped."""

    scheduler_cls: type[Scheduler] = PersistentScheduler

    def __init__(
        self,
        app: Value,
        max_interval: float | None = None,
        schedule_filename: str | None = None,
        scheduler_cls: type[Scheduler] | None = None,
    ) -> None:
        self.app = app
        self.max_interval = max_interval or app.conf.beat_max_loop_interval
        self.schedule_filename = schedule_filename
        self.scheduler_cls = scheduler_cls or self.scheduler_cls
        self.scheduler: Scheduler = self.get_scheduler()
        self._stopped = threading.Event()

    def get_scheduler(self, lazy: bool = False) -> Scheduler:  # noqa: FBT001, FBT002 - Celery's signature
        """A scheduler of the class this service runs."""
        return self.scheduler_cls(self.app, max_interval=self.max_interval, lazy=lazy)

    def start(self, embedded_process: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Run until `stop`; `embedded_process` tells that a worker runs it."""
        signals.beat_init.send(self)
        if embedded_process:
            signals.beat_embedded_init.send(self)
        try:
            while not self._stopped.is_set():
                interval_s = self.scheduler.tick()
                if interval_s > 0:
                    self._stopped.wait(interval_s)
                if self.scheduler.should_sync():
                    self.scheduler.sync()
        finally:
            self.scheduler.close()

    def stop(self, wait: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """End `start`, on whichever thread it runs."""
        del wait
        self._stopped.set()

    def sync(self) -> None:
        """Write the schedule to where it is kept."""
        self.scheduler.sync()
