"""When periodic tasks run, by Celery's names: `schedule`, `crontab`, `solar`, and numbers and timedeltas.

The broker fires the entries. What a schedule says to it is `timing()`, in the words of the protocol; a class of your
own that has no such words is fired by a `qbroker beat` that stays up, by its `is_due`.
"""

import copy
import datetime as dt
import numbers
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

from qbroker import _state
from qbroker.serialization import Value
from qbroker.utils.time import humanize_seconds
from qbroker_proto import timing
from qbroker_proto.timing import Crontab, Interval, Once, Solar, Timing, TimingError

__all__ = [
    "BaseSchedule",
    "ParseException",
    "clocked",
    "crontab",
    "crontab_parser",
    "maybe_schedule",
    "schedstate",
    "schedule",
    "solar",
]

Cronspec = int | str | Iterable[int]
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS = dt.timedelta(milliseconds=1)


class schedstate(NamedTuple):  # noqa: N801 - Celery's name
    """Whether a task is to run now, and in how many seconds to ask again."""

    is_due: bool
    next: float


class ParseException(TimingError):
    """A field of a crontab means nothing."""


def zone_of(name: str) -> dt.tzinfo:
    """The zone of that name: one of IANA's, or an offset as in +05:30. ValueError when there is none."""
    return timing.zone_named(name)


def zone_name(zone: dt.tzinfo) -> str:
    """What the protocol calls the zone: IANA's name, or a fixed offset as in +05:30; "" is UTC."""
    if zone is dt.UTC:
        return ""
    key = getattr(zone, "key", None)
    if key:
        return "" if key == "UTC" else str(key)
    offset = zone.utcoffset(None)
    if offset is None:
        raise ValueError(
            f"the time zone {zone!r} has no name the broker knows; use zoneinfo.ZoneInfo('Europe/Berlin') or its name"
        )
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


class BaseSchedule:
    """When something is due. Subclasses say it with `remaining_estimate` and `is_due`.

    Times without a zone are UTC. `nowfun` answers what time it is, in place of the app's clock; a schedule that has
    one is fired by `qbroker beat`, because the broker has another clock.
    """

    # A subclass may set them before it calls this constructor, or never call it.
    nowfun: Callable[[], dt.datetime] | None = None
    _app: Value = None
    _tz: dt.tzinfo | None = None

    def __init__(
        self,
        nowfun: Callable[[], dt.datetime] | None = None,
        app: Value = None,
        tz: dt.tzinfo | str | None = None,
    ) -> None:
        self.nowfun = nowfun
        self._app = app
        if tz is not None:
            self.tz = tz

    @property
    def app(self) -> Value:
        """The app whose clock and zone count: the one given, else the current one."""
        return self._app or _state.get_current_app()

    @app.setter
    def app(self, app: Value) -> None:
        self._app = app

    @property
    def tz(self) -> dt.tzinfo:
        """The zone whose clock counts: its own, else the app's."""
        return self._tz or cast("dt.tzinfo", self.app.timezone)

    @tz.setter
    def tz(self, zone: dt.tzinfo | str | None) -> None:
        self._tz = zone_of(zone) if isinstance(zone, str) else zone

    def now(self) -> dt.datetime:
        """What time it is."""
        return (self.nowfun or self.app.now)()

    def timing(self) -> Timing | None:
        """The moments in the words of the protocol; None: it has none, and `qbroker beat` must stay up for it."""
        return None

    def in_zone(self, zone: dt.tzinfo | str) -> "BaseSchedule":
        """The same schedule by the clock of another zone."""
        other = copy.copy(self)
        other._app = self._app  # noqa: SLF001 - of its own kind
        other._tz = zone_of(zone) if isinstance(zone, str) else zone  # noqa: SLF001 - of its own kind
        return other

    def remaining_estimate(self, last_run_at: dt.datetime) -> dt.timedelta:
        """How long it is from now until the next run after that one; negative when it is late."""
        raise NotImplementedError

    def is_due(self, last_run_at: dt.datetime) -> schedstate:
        """Whether to run now, and in how many seconds to ask again."""
        raise NotImplementedError

    def maybe_make_aware(self, moment: dt.datetime) -> dt.datetime:
        """The moment in the schedule's zone; without a zone it is UTC."""
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return moment.astimezone(self.tz)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BaseSchedule):
            return other.nowfun == self.nowfun
        return NotImplemented

    __hash__ = None  # type: ignore[assignment] # equal by value, and changeable

    def _until_next(self, moments: Timing, last_run_at: dt.datetime) -> dt.timedelta:
        """How long it is until the first of the moments after `last_run_at`."""
        last_ms = (self.maybe_make_aware(last_run_at) - _EPOCH) // _MS
        next_ms = moments.next_ms(last_ms, last_ms)
        if next_ms is None:
            return dt.timedelta.max
        return _EPOCH + next_ms * _MS - self.maybe_make_aware(self.now()).astimezone(dt.UTC)

    def _state(self, last_run_at: dt.datetime) -> schedstate:
        remaining_s = self.remaining_estimate(last_run_at).total_seconds()
        if remaining_s > 0:
            return schedstate(is_due=False, next=remaining_s)
        return schedstate(
            is_due=True, next=max(self.remaining_estimate(self.now()).total_seconds(), 0)
        )


class schedule(BaseSchedule):  # noqa: N801 - Celery's name
    """Each so many seconds, or each timedelta. `relative` rounds to full minutes, hours or local days."""

    def __init__(
        self,
        run_every: float | dt.timedelta | None = None,
        relative: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        nowfun: Callable[[], dt.datetime] | None = None,
        app: Value = None,
        tz: dt.tzinfo | str | None = None,
    ) -> None:
        self.run_every: dt.timedelta = cast(
            "dt.timedelta",
            dt.timedelta(seconds=run_every) if isinstance(run_every, int | float) else run_every,
        )
        self.relative = relative
        super().__init__(nowfun, app, tz)

    @property
    def seconds(self) -> float:
        """The interval in seconds."""
        return max(self.run_every.total_seconds(), 0)

    @property
    def _is_rounded(self) -> bool:
        # There is no clock whose marks are closer than seconds.
        return self.relative and self.seconds >= 1

    @property
    def human_seconds(self) -> str:
        """The interval in words."""
        return humanize_seconds(self.seconds)

    def timing(self) -> Timing:
        zone = zone_name(self.tz) if self.relative else ""
        return Interval(round(self.seconds * 1000), self.relative, zone)

    def remaining_estimate(self, last_run_at: dt.datetime) -> dt.timedelta:
        if self._is_rounded:
            return self._until_next(self.timing(), last_run_at)
        due = self.maybe_make_aware(last_run_at).astimezone(dt.UTC) + self.run_every
        return due - self.maybe_make_aware(self.now()).astimezone(dt.UTC)

    def is_due(self, last_run_at: dt.datetime) -> schedstate:
        if self._is_rounded:
            return self._state(last_run_at)
        remaining_s = max(self.remaining_estimate(last_run_at).total_seconds(), 0)
        return schedstate(is_due=not remaining_s, next=remaining_s or self.seconds)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, schedule):
            return self.run_every == other.run_every
        return self.run_every == other

    __hash__ = None  # equal by value, and changeable

    def __reduce__(self) -> tuple[Value, ...]:
        return type(self), (self.run_every, self.relative, self.nowfun)


class crontab_parser:  # noqa: N801 - Celery's name
    """Reads one field of a crontab: `crontab_parser(60).parse('*/15')` is {0, 15, 30, 45}."""

    ParseException = ParseException

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_ = max_
        self.min_ = min_

    def parse(self, spec: str) -> set[int]:
        """The numbers that are meant."""
        try:
            return timing.expand("".join(spec.split()), self.max_, self.min_)
        except TimingError as exc:
            raise ParseException(str(exc)) from exc


class crontab(BaseSchedule):  # noqa: N801 - Celery's name
    """The minutes at which the clock's five numbers all fit: `crontab(minute=0, hour='*/3', day_of_week='mon-fri')`.

    Each is a number, a list of numbers, or text: `*`, `*/n`, `a-b`, `a-b/n`, names, lists of those. Sunday is 0.
    What happens when the clock changes is in docs/periodic.md.
    """

    def __init__(
        self,
        minute: Cronspec = "*",
        hour: Cronspec = "*",
        day_of_week: Cronspec = "*",
        day_of_month: Cronspec = "*",
        month_of_year: Cronspec = "*",
        **kwargs: Value,
    ) -> None:
        self._orig_minute = _field(minute)
        self._orig_hour = _field(hour)
        self._orig_day_of_week = _field(day_of_week)
        self._orig_day_of_month = _field(day_of_month)
        self._orig_month_of_year = _field(month_of_year)
        self._orig_kwargs = kwargs
        self.hour = _numbers(hour, 24)
        self.minute = _numbers(minute, 60)
        self.day_of_week = _numbers(day_of_week, 7)
        self.day_of_month = _numbers(day_of_month, 31, 1)
        self.month_of_year = _numbers(month_of_year, 12, 1)
        super().__init__(**kwargs)
        fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
        if empty := [name for name in fields if not getattr(self, name)]:
            raise ValueError(
                f"Invalid crontab: it never occurs, for {' and '.join(empty)} is empty"
            )
        try:
            self._in_zone("")
        except TimingError as exc:
            # A date that never comes.
            raise ValueError(str(exc)) from None

    @classmethod
    def from_string(cls, crontab: str) -> "crontab":
        """The crontab of five fields, in cron's order: minute, hour, day of month, month, day of week."""
        fields = crontab.split()
        if len(fields) != 5:
            raise ValueError(
                f"the crontab {crontab!r} has {len(fields)} fields; it must have 5: minute, hour, day of month, "
                "month, day of week"
            )
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    def _in_zone(self, zone: str) -> Crontab:
        return Crontab(
            _text(self._orig_minute),
            _text(self._orig_hour),
            _text(self._orig_day_of_month),
            _text(self._orig_month_of_year),
            _text(self._orig_day_of_week),
            zone,
        )

    def timing(self) -> Timing:
        return self._in_zone(zone_name(self.tz))

    def remaining_estimate(self, last_run_at: dt.datetime) -> dt.timedelta:
        return self._until_next(self.timing(), last_run_at)

    def is_due(self, last_run_at: dt.datetime) -> schedstate:
        found = self._state(last_run_at)
        deadline_s = self.app.conf.beat_cron_starting_deadline
        if not found.is_due or deadline_s is None:
            return found
        # Of the runs that were missed, the newest must not be older than the deadline.
        # In UTC, where an hour is an hour.
        since = self.maybe_make_aware(self.now()).astimezone(dt.UTC) - dt.timedelta(
            seconds=deadline_s, microseconds=1000
        )
        is_late = self.remaining_estimate(since) > dt.timedelta()
        return found._replace(is_due=not is_late)

    def __repr__(self) -> str:
        return (
            f"<crontab: {self._orig_minute} {self._orig_hour} {self._orig_day_of_month} "
            f"{self._orig_month_of_year} {self._orig_day_of_week} (m/h/dM/MY/d)>"
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, crontab):
            return (
                other.month_of_year == self.month_of_year
                and other.day_of_month == self.day_of_month
                and other.day_of_week == self.day_of_week
                and other.hour == self.hour
                and other.minute == self.minute
                and super().__eq__(other)
            )
        return NotImplemented

    __hash__ = None  # equal by value, and changeable

    def __reduce__(self) -> tuple[Value, ...]:
        fields = (
            self._orig_minute,
            self._orig_hour,
            self._orig_day_of_week,
            self._orig_day_of_month,
            self._orig_month_of_year,
        )
        # An app does not travel; where this arrives the current one counts.
        return type(self), fields, {k: v for k, v in self._orig_kwargs.items() if k != "app"}

    def __setstate__(self, state: Value) -> None:
        super().__init__(**state)
        self._orig_kwargs = dict(state)


def _field(spec: Cronspec | None) -> Cronspec:
    return "*" if spec is None else spec


def _text(spec: Cronspec) -> str:
    """A field as the protocol has it."""
    if isinstance(spec, str):
        return "".join(spec.split())
    if isinstance(spec, int):
        return str(spec)
    return ",".join(map(str, sorted(spec)))


def _numbers(spec: Cronspec | None, size: int, first: int = 0) -> set[int]:
    """The numbers that a field means."""
    found: set[int]
    match spec:
        case None:
            found = set(range(first, first + size))
        case int():
            found = {spec}
        case str():
            found = crontab_parser(size, first).parse(spec)
        case Iterable():
            found = set(spec)
        case _:
            raise TypeError(
                "Argument cronspec needs to be of any of the following types: int, str, or an iterable type. "
                f"{type(spec)!r} was given."
            )
    for number in found:
        if not first <= number < first + size:
            raise ValueError(
                f"Invalid crontab pattern.  Valid range is {first}-{first + size - 1}. '{number}' was found."
            )
    return found


class solar(BaseSchedule):  # noqa: N801 - Celery's name
    """An event of the sun at a place: `solar('sunset', -37.81, 144.96)`.

    The events are dawn_astronomical, dawn_nautical, dawn_civil, sunrise, solar_noon, sunset, dusk_civil,
    dusk_nautical and dusk_astronomical. Latitude is north, longitude is east. They are right to about a minute.
    """

    def __init__(self, event: str, lat: float, lon: float, **kwargs: Value) -> None:
        self.event = event
        self.lat = lat
        self.lon = lon
        self._moments = Solar(event, float(lat), float(lon))
        super().__init__(**kwargs)

    def timing(self) -> Timing:
        return self._moments

    def remaining_estimate(self, last_run_at: dt.datetime) -> dt.timedelta:
        return self._until_next(self._moments, last_run_at)

    def is_due(self, last_run_at: dt.datetime) -> schedstate:
        return self._state(last_run_at)

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, solar):
            return (other.event, other.lat, other.lon) == (self.event, self.lat, self.lon)
        return NotImplemented

    __hash__ = None  # equal by value, and changeable

    def __reduce__(self) -> tuple[Value, ...]:
        return type(self), (self.event, self.lat, self.lon)


class clocked(BaseSchedule):  # noqa: N801 - the name that django-celery-beat gave it
    """Once, at that time."""

    def __init__(self, clocked_time: dt.datetime, **kwargs: Value) -> None:
        super().__init__(**kwargs)
        self.clocked_time = clocked_time

    def timing(self) -> Timing:
        return Once((self.maybe_make_aware(self.clocked_time) - _EPOCH) // _MS)

    def remaining_estimate(self, last_run_at: dt.datetime) -> dt.timedelta:
        return self.maybe_make_aware(self.clocked_time) - self.maybe_make_aware(self.now())

    def is_due(self, last_run_at: dt.datetime) -> schedstate:
        remaining_s = self.remaining_estimate(last_run_at).total_seconds()
        is_past = self.maybe_make_aware(last_run_at) >= self.maybe_make_aware(self.clocked_time)
        return schedstate(is_due=remaining_s <= 0 and not is_past, next=max(remaining_s, 0))

    def __repr__(self) -> str:
        return f"<clocked: {self.clocked_time}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, clocked):
            return self.clocked_time == other.clocked_time
        return NotImplemented

    __hash__ = None  # equal by value, and changeable


def maybe_schedule(s: Value, relative: bool = False, app: Value = None) -> Value:  # noqa: FBT001, FBT002 - Celery's signature
    """A number of seconds or a timedelta as a schedule; a schedule as it is, of that app."""
    if s is None:
        return None
    if isinstance(s, numbers.Real):
        s = dt.timedelta(seconds=float(s))
    if isinstance(s, dt.timedelta):
        return schedule(s, relative, app=app)
    if isinstance(s, BaseSchedule):
        s.app = app
    return s


def span_s(value: Value) -> float:
    """A number of seconds, a timedelta, or text as in 90s, 5m, 2h, 1d, as seconds."""
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?", value)):
        unit = {"ms": 0.001, "m": 60, "h": 3_600, "d": 86_400}.get(found[2] or "s", 1)
        return float(found[1]) * unit
    raise TypeError(
        f"{value!r} is not a number of seconds, a timedelta or a duration such as 90s, 5m, 2h or 1d"
    )
