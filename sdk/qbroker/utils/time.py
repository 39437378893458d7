"""Instants and spans of time, by Celery's names."""

import datetime as dt
import random
from collections.abc import Callable

from qbroker import clock
from qbroker.limits import per_second
from qbroker.serialization import Value

__all__ = [
    "add_seconds_to_datetime",
    "adjust_timestamp",
    "delta_resolution",
    "get_exponential_backoff_interval",
    "humanize_seconds",
    "is_naive",
    "localize",
    "make_aware",
    "maybe_iso8601",
    "maybe_make_aware",
    "maybe_timedelta",
    "rate",
    "remaining",
    "subtract_datetimes",
    "to_utc",
    "utcoffset",
    "weekday",
]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNITS = (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0))


def humanize_seconds(
    secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False  # noqa: FBT001, FBT002 - Celery's signature
) -> str:  # fmt: skip
    """So many seconds by their greatest unit: 1.50 minutes."""
    for unit, size in _UNITS:
        if secs >= size:
            count = f"{secs / size:.2f}"
            plural = "" if count == "1.00" else "s"
            return f"{prefix}{sep}{count} {unit}{plural}"
    del microseconds  # Parts of a second are always shown.
    return now if not secs else f"{prefix}{sep}{secs:.2f} seconds"


def rate(r: str | float | None) -> float:
    """A rate as so many a second: '100/m', a number, or none, which is 0. ValueError for what is no rate."""
    return per_second(r)


def maybe_timedelta(delta: Value) -> Value:
    """A number of seconds as a timedelta; anything else as it is."""
    is_number = isinstance(delta, int | float) and not isinstance(delta, bool)
    return dt.timedelta(seconds=delta) if is_number else delta


def maybe_iso8601(value: str | dt.datetime | None) -> dt.datetime | None:
    """Text of ISO 8601 as a datetime; a datetime, and None, as they are."""
    if isinstance(value, str):
        return dt.datetime.fromisoformat(value) if value else None
    return value


def weekday(name: str) -> int:
    """The day of the week, from 0 for Sunday; KeyError for what is none."""
    short = name[:3].lower()
    if short not in _DAYS:
        raise KeyError(name)
    return (_DAYS.index(short) + 1) % 7


def is_naive(value: dt.datetime) -> bool:
    """Whether it is in no zone."""
    return value.tzinfo is None or value.utcoffset() is None


def make_aware(value: dt.datetime, tz: dt.tzinfo) -> dt.datetime:
    """A time without a zone, in that one."""
    return value.replace(tzinfo=tz)


def localize(value: dt.datetime, tz: dt.tzinfo) -> dt.datetime:
    """The same instant in that zone; a time without one is taken to be in it."""
    return make_aware(value, tz) if is_naive(value) else value.astimezone(tz)


def to_utc(value: dt.datetime) -> dt.datetime:
    """The same instant in UTC; a time without a zone is taken to be in UTC."""
    return localize(value, dt.UTC)


def maybe_make_aware(value: dt.datetime, tz: dt.tzinfo | None = None, naive_as_utc: bool = True) -> dt.datetime:  # noqa: FBT001, FBT002 - Celery's signature # fmt: skip
    """A time with a zone: without one it is in UTC, or else in `tz`, and is told in `tz`."""
    if not is_naive(value):
        return value
    if naive_as_utc:
        value = to_utc(value)
    return localize(value, tz or dt.UTC)


def get_exponential_backoff_interval(
    factor: int,
    retries: int,
    maximum: int,
    full_jitter: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
) -> int:
    """Seconds until try number `retries` + 1: `factor` times 2^`retries`, at most `maximum`.

    With `full_jitter` any number from 0 to that, so that those who failed together do not come back together.
    """
    # A shift of more bits than the greatest wait has would only make a large number to cut off.
    wait_s = min(maximum, factor << min(retries, 64))
    if full_jitter and wait_s > 0:
        # The module's own source, because Python seeds it anew in a forked child.
        wait_s = random.randrange(wait_s + 1)  # noqa: S311 - spreads load; no secret
    return max(0, wait_s)


def delta_resolution(when: dt.datetime, delta: dt.timedelta) -> dt.datetime:
    """The moment, rounded down to days, hours or minutes: the greatest that `delta` has one of; else as it is."""
    seconds = max(delta.total_seconds(), 0)
    if seconds >= 86_400:
        return when.replace(hour=0, minute=0, second=0, microsecond=0)
    if seconds >= 3_600:
        return when.replace(minute=0, second=0, microsecond=0)
    return when.replace(second=0, microsecond=0) if seconds >= 60 else when


def remaining(
    start: dt.datetime,
    ends_in: dt.timedelta,
    now: dt.datetime | None = None,
    relative: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
) -> dt.timedelta:
    """How long until `ends_in` after `start`, whatever clocks do between.

    A relative end is rounded down as `delta_resolution` does, and days are local days then.
    """
    if now is None:
        now = dt.datetime.fromtimestamp(clock.wall(), dt.UTC)
    if relative and ends_in >= dt.timedelta(days=1):
        end = start + ends_in
    else:
        end = (start.astimezone(dt.UTC) + ends_in).astimezone(start.tzinfo)
    if relative:
        end = delta_resolution(end, ends_in).replace(microsecond=0)
    return end.astimezone(dt.UTC) - now.astimezone(dt.UTC)


def utcoffset(
    time: Value = None, localtime: Value = None
) -> int:  # fmt: skip
    """How many hours local time is behind UTC."""
    return clock.utcoffset()


def adjust_timestamp(ts: float, offset: float, here: Callable[..., float] = utcoffset) -> float:
    """A Unix time of somewhere else, where the clock is `offset` hours behind UTC, as one of here."""
    return ts - (offset - here()) * 3_600


def add_seconds_to_datetime(when: dt.datetime, seconds: float) -> dt.datetime:
    """The moment so many seconds later, whatever clocks do between, in the same zone."""
    return (when.astimezone(dt.UTC) + dt.timedelta(seconds=seconds)).astimezone(when.tzinfo)


def subtract_datetimes(end: dt.datetime, start: dt.datetime) -> dt.timedelta:
    """How long it was from one to the other, whatever clocks did between."""
    return end.astimezone(dt.UTC) - start.astimezone(dt.UTC)
