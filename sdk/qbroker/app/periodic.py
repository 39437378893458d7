"""From `beat_schedule` to what the broker keeps: entries that it fires by itself.

    {"name": {"task": …, "schedule": …, "args": (), "kwargs": {}, "options": {}, "relative": False}}

are Celery's words. These are ours, and may stand beside them: overlap, catch_up, catch_up_max, late_max, jitter,
start, end, max_runs, one_off, timezone. docs/periodic.md says what they mean.
"""

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qbroker.beat import BeatLazyFunc
from qbroker.envelope import check_shape
from qbroker.exceptions import ImproperlyConfigured
from qbroker.ids import uuid7
from qbroker.result import AsyncResult
from qbroker.schedules import BaseSchedule, maybe_schedule, span_s
from qbroker.serialization import Value
from qbroker.user import user_name

if TYPE_CHECKING:
    from qbroker.client import Client, ScheduleInfo

__all__ = ["OPTIONS", "Declared", "Schedules", "Template", "fields_of", "is_fired_here"]

OPTIONS: Final = frozenset(
    [
        "catch_up",
        "catch_up_max",
        "end",
        "jitter",
        "late_max",
        "max_runs",
        "one_off",
        "overlap",
        "start",
        "timezone",
    ]
)
"""What an entry may say beside Celery's words."""

_WORDS: Final = frozenset(["args", "enabled", "kwargs", "options", "relative", "schedule", "task"])

Template = Callable[[str, Value, Value, dict[str, Value]], bytes]
"""Makes the message of a call, without what is of one moment only: name, args, kwargs, options."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What became of what an app declared, by the entries' names."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    taken: tuple[tuple[str, str], ...]
    """Left alone, because another app made an entry of the name, or somebody by hand: (name, owner)."""
    fired_here: tuple[str, ...]
    """Not declared, because only a running `qbroker beat` can fire them."""
    dropped_count: int = 0
    """Waiting messages of changed and removed entries that were revoked."""


class Schedules:
    """The broker's periodic entries: `app.schedules`. They fire whether or not this program runs."""

    def __init__(self, app: Value, template: Template) -> None:
        self._app = app
        self._template = template

    @property
    def _client(self) -> "Client":
        client: Client = self._app.client()
        return client

    def declare(self, *, dry_run: bool = False, with_waiting: bool = False) -> Declared:
        """Have the broker fire exactly what the app declares: in `beat_schedule` and by `add_periodic_task`.

        Entries that other apps declared, or that were made by hand, stay as they are. `with_waiting` revokes what
        waits of the entries that this changes or removes.
        """
        entries: Mapping[str, Mapping[str, Value]] = self._app.periodic_entries()
        here = [name for name, entry in entries.items() if is_fired_here(entry, self._app)]
        fields = [self._fields(name, entry) for name, entry in entries.items() if name not in here]
        owner = self._app.main or "__main__"
        reply = self._client.declare_schedules(
            owner, fields, dry_run=dry_run, with_waiting=with_waiting
        )
        return Declared(
            tuple(reply.added),
            tuple(reply.changed),
            tuple(reply.removed),
            tuple(reply.unchanged),
            tuple([(taken.name, taken.owner) for taken in reply.taken]),
            tuple(here),
            reply.dropped_count,
        )

    def put(
        self, name: str, *, is_new: bool = False, with_waiting: bool = False, **entry: Value
    ) -> "ScheduleInfo":
        """Make an entry or change it: `put("tidy", task="proj.tidy", schedule=30, overlap="skip")`.

        `with_waiting` revokes the messages that the entry has published before and that wait.
        """
        fields = self._fields(name, entry)
        return self._client.put_schedule(is_new=is_new, with_waiting=with_waiting, **fields)

    def _fields(self, name: str, entry: Mapping[str, Value]) -> dict[str, Value]:
        return {"name": name, **fields_of(name, entry, self._app, self._template)}

    def get(self, name: str) -> "ScheduleInfo":
        """One entry; NotFound."""
        return self._client.show_schedule(name)

    def __iter__(self) -> "Iterator[ScheduleInfo]":
        return self._client.list_schedules()

    def remove(self, name: str, *, with_waiting: bool = False) -> None:
        """Forget an entry; with `with_waiting` its messages that wait are revoked, else they run."""
        self._client.remove_schedule(name, with_waiting=with_waiting)

    def pause(self, name: str, why: str = "", *, with_waiting: bool = False) -> "ScheduleInfo":
        """Fire nothing of it until it is resumed; with `with_waiting` its messages that wait are revoked."""
        by = user_name()
        return self._client.pause_schedule(name, by=by, why=why, with_waiting=with_waiting)

    def resume(self, name: str) -> "ScheduleInfo":
        """Fire it again, from now on."""
        return self._client.resume_schedule(name)

    def run(self, name: str) -> "AsyncResult[Value]":
        """Publish its task now, beside its ticks."""
        info = self.get(name)
        task_id = self._client.run_schedule(name, uuid7())
        return AsyncResult(task_id, None, info.task, self._app)

    def next(self, name: str, count: int = 1) -> list[dt.datetime]:
        """When it fires next, in the app's zone."""
        ticks = self._client.next_ticks(name=name, count=count)
        return [dt.datetime.fromtimestamp(tick / 1000, self._app.timezone) for tick in ticks]


def is_fired_here(entry: Mapping[str, Value], app: Value) -> bool:
    """Whether only a running `qbroker beat` can fire it: it asks functions of this program when, or with what."""
    schedule = maybe_schedule(entry.get("schedule"), app=app)
    if not isinstance(schedule, BaseSchedule):
        # It cannot be meant, which whoever declares it says.
        return False
    if schedule.nowfun is not None or schedule.timing() is None:
        return True
    try:
        check_shape(str(entry.get("task")), entry.get("args"), entry.get("kwargs"))
    except TypeError:
        # Whoever declares the entry says so.
        return False
    arguments = (*(entry.get("args") or ()), *(entry.get("kwargs") or {}).values())
    return any(isinstance(argument, BeatLazyFunc) for argument in arguments)


def fields_of(
    name: str, entry: Mapping[str, Value], app: Value, template: Template
) -> dict[str, Value]:
    """The entry in the protocol's words: the fields of its `Schedule`. ImproperlyConfigured when it cannot be meant."""
    unknown = sorted(entry.keys() - _WORDS - OPTIONS)
    if unknown:
        raise ImproperlyConfigured(
            f"the periodic task {name!r} says {', '.join(unknown)}, which means nothing; it may say "
            f"{', '.join(sorted(_WORDS | OPTIONS))}"
        )
    missing = [word for word in ("task", "schedule") if entry.get(word) is None]
    if missing:
        raise ImproperlyConfigured(f"the periodic task {name!r} has no {' and no '.join(missing)}")
    try:
        return _fields(name, entry, app, template)
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(f"the periodic task {name!r} is not valid: {exc}") from exc


def _fields(
    name: str, entry: Mapping[str, Value], app: Value, template: Template
) -> dict[str, Value]:
    options = dict(entry.get("options") or {})
    schedule = _schedule_of(entry, app)
    moments = schedule.timing()
    if moments is None:
        raise TypeError(
            f"only a running 'qbroker beat' can ask {schedule!r} when it is due; declare it in beat_schedule"
        )
    fields: dict[str, Value] = {"timing": str(moments)}
    if (countdown := options.pop("countdown", None)) is not None:
        fields["delay_ms"] = _ms(countdown)
    expires = options.get("expires")
    task = app.tasks.get(entry["task"])
    if expires is None and task is not None:
        expires = task.expires
    if isinstance(expires, int | float | dt.timedelta):
        fields["lifetime_ms"] = _ms(expires)
        options["expires"] = None
    if "eta" in options:
        raise ValueError("it has an eta; say it with start, or countdown")
    options["headers"] = {
        **(options.get("headers") or {}),
        "celery_beat_task": True,
        "periodic_task_name": name,
    }
    check_shape(str(entry["task"]), entry.get("args"), entry.get("kwargs"))
    args, kwargs = tuple(entry.get("args") or ()), dict(entry.get("kwargs") or {})
    options.setdefault("argsrepr", repr(args))
    options.setdefault("kwargsrepr", repr(kwargs))
    fields["message"] = template(entry["task"], args, kwargs, options)
    for option, field in (("jitter", "jitter_ms"), ("late_max", "late_ms_max")):
        if entry.get(option) is not None:
            fields[field] = _ms(entry[option])
    for option in ("start", "end"):
        if entry.get(option) is not None:
            fields[f"{option}_ms"] = _moment_ms(option, entry[option], schedule)
    for option in ("overlap", "catch_up", "catch_up_max"):
        if entry.get(option) is not None:
            fields[option] = entry[option]
    if entry.get("one_off"):
        fields["runs_max"] = 1
    elif entry.get("max_runs"):
        fields["runs_max"] = entry["max_runs"]
    deadline_s = app.conf.beat_cron_starting_deadline
    if deadline_s is not None and fields["timing"].startswith("cron"):
        fields.setdefault("late_ms_max", max(1, _ms(deadline_s)))
    return fields


def _schedule_of(entry: Mapping[str, Value], app: Value) -> BaseSchedule:
    schedule = maybe_schedule(entry["schedule"], bool(entry.get("relative", False)), app)
    if not isinstance(schedule, BaseSchedule):
        raise TypeError(f"{schedule!r} is not a schedule, timedelta or number of seconds")
    zone = entry.get("timezone")
    return schedule if zone is None else schedule.in_zone(zone)


def _ms(span: Value) -> int:
    return math.ceil(span_s(span) * 1000)


def _moment_ms(option: str, moment: Value, schedule: BaseSchedule) -> int:
    if isinstance(moment, str):
        moment = dt.datetime.fromisoformat(moment)
    if not isinstance(moment, dt.datetime):
        raise TypeError(f"{option} {moment!r} is not a datetime or an ISO 8601 time")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=schedule.tz)
    return int(moment.timestamp() * 1000)
