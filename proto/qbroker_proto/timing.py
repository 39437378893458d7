"""When a periodic entry fires: the text that says so on the wire, and the moments it means.

    every 30                               each 30 seconds, counted from when the entry began
    every 3600 relative Europe/Berlin      at full hours: rounded to the greatest unit the interval has
    cron 30 2 * * mon-fri Europe/Berlin    minute, hour, day of month, month, day of week; all five must fit
    at 1767225600000                       once, at a Unix time in milliseconds
    solar sunset 52.52 13.40               an event of the sun, at a latitude and a longitude

The zone may be left out and is then UTC. Broker and SDK both read this text, so its meaning is here, once.

**Summer time.** A crontab means local times. One that the clock leaves out (02:30 when it springs from 2 to 3)
fires as much later as the clock sprang, at 03:30. One that the clock shows twice fires the first time, unless the
hour is `*`: an entry "each ten minutes" goes on each ten minutes. Either way no moment fires twice.
"""

import datetime as dt
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol
from zoneinfo import ZoneInfo

__all__ = ["Crontab", "Interval", "Once", "Solar", "Timing", "TimingError", "expand", "parse"]

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS: Final = dt.timedelta(milliseconds=1)
_DAY: Final = dt.timedelta(days=1)
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS
_WEEK_MS: Final = 7 * _DAY_MS
_LAST_MS: Final = 253_370_764_800_000
"""The year 9999: what a datetime can say."""

_MONTHS: Final = (
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
)
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAYS_IN_MONTH: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_YEARS_MAX: Final = 41
"""29 February falls on a given weekday at least once in 40 years, also across 2100."""

INTERVAL_MS_MIN: Final = 10
"""The shortest interval: 100 times a second."""


class TimingError(ValueError):
    """The text means no moments; it says what is wrong with it."""


class Timing(Protocol):
    """A set of moments, in Unix milliseconds. `anchor_ms` is when the entry began."""

    def next_ms(self, after_ms: int, anchor_ms: int = 0) -> int | None:
        """The first moment after `after_ms`; None when there is none any more."""

    def last_ms(self, until_ms: int, anchor_ms: int = 0) -> int | None:
        """The last moment that is not after `until_ms`; None when there is none yet."""


def expand(text: str, size: int, first: int = 0) -> set[int]:
    """The numbers that a field of a crontab means, of the `size` numbers from `first`.

    `*`, `*/n`, `a-b`, `a-b/n`, numbers, names of months and weekdays, and lists of those; a range whose end is before
    its beginning goes around.
    """
    found: set[int] = set()
    for part in text.split(","):
        found.update(_expand_part(part, size, first))
    return found


_PART = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\w*))?")


def _expand_part(part: str, size: int, first: int) -> Sequence[int]:
    if not part:
        raise TimingError("empty part")
    match = _PART.fullmatch(part)
    if match is None:
        raise TimingError(f"{part!r} is not a number, name, range or '*'")
    star, low, high, step = match.groups()
    if step is not None and not step.isdecimal():
        raise TimingError("empty filter" if not step else f"the step {step!r} is not a number")
    if step is not None and not int(step):
        raise TimingError(f"the step of {part!r} is 0")
    numbers: Sequence[int]
    if star:
        numbers = range(first, first + size)
    elif high is None:
        if step is not None:
            raise TimingError(
                f"{part!r} has a step but no range; write {low}-{first + size - 1}/{step}"
            )
        numbers = [_number(low, size, first)]
    else:
        begin, end = _number(low, size, first), _number(high, size, first)
        if end < begin:
            numbers = [*range(begin, first + size), *range(first, end + 1)]
        else:
            numbers = range(begin, end + 1)
    return numbers[:: int(step)] if step else numbers


def _number(text: str, size: int, first: int) -> int:
    if text.isdecimal():
        number = int(text)
    elif text[:3].lower() in _MONTHS:
        number = _MONTHS.index(text[:3].lower()) + 1
    elif text[:3].lower() in _WEEKDAYS:
        number = _WEEKDAYS.index(text[:3].lower())
    else:
        raise TimingError(f"Invalid weekday literal {text!r}.")
    if number > first + size - 1:
        raise TimingError(f"Invalid end range: {number} > {first + size - 1}.")
    if number < first:
        raise TimingError(f"Invalid beginning range: {number} < {first}.")
    return number


def zone_named(name: str) -> dt.tzinfo:
    """The zone of that name: one of IANA's, or an offset as in +05:30."""
    if offset := re.fullmatch(r"([+-])(\d\d):(\d\d)", name):
        minutes = int(offset[2]) * 60 + int(offset[3])
        if minutes < 24 * 60:
            return dt.timezone(dt.timedelta(minutes=-minutes if offset[1] == "-" else minutes))
    try:
        return dt.UTC if name in ("", "UTC") else ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise TimingError(
            f"there is no time zone {name!r}; write one of IANA's, as in Europe/Berlin"
        ) from error


def _unix_ms(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // _MS


def _local(unix_ms: int, zone: dt.tzinfo) -> dt.datetime:
    return (_EPOCH + min(max(unix_ms, 0), _LAST_MS) * _MS).astimezone(zone)


@dataclass(frozen=True, slots=True)
class Interval:
    """Each `every_ms` milliseconds. A relative one is rounded: to full seconds, minutes, hours, or local days."""

    every_ms: int
    is_relative: bool = False
    zone: str = ""

    def __post_init__(self) -> None:
        if not INTERVAL_MS_MIN <= self.every_ms < _LAST_MS:
            raise TimingError(
                f"an interval of {self.every_ms / 1000:g} seconds is not from {INTERVAL_MS_MIN / 1000:g} up"
            )
        if self.zone:
            zone_named(self.zone)

    def __str__(self) -> str:
        relative = f" relative {self.zone}".rstrip() if self.is_relative else ""
        return f"every {self.every_ms / 1000:.3f}".rstrip("0").rstrip(".") + relative

    def next_ms(self, after_ms: int, anchor_ms: int = 0) -> int | None:
        if self.is_relative and self.every_ms >= _MINUTE_MS:
            return self._around(after_ms, anchor_ms)[1]
        begin = self._begin(anchor_ms)
        return begin + (max(0, (after_ms - begin) // self.every_ms) + 1) * self.every_ms

    def last_ms(self, until_ms: int, anchor_ms: int = 0) -> int | None:
        if self.is_relative and self.every_ms >= _MINUTE_MS:
            return self._around(until_ms, anchor_ms)[0]
        begin = self._begin(anchor_ms)
        count = (until_ms - begin) // self.every_ms
        return begin + count * self.every_ms if count > 0 else None

    def _begin(self, anchor_ms: int) -> int:
        """Where counting begins. Below a minute only this is rounded: each 1.5 seconds stays that."""
        return anchor_ms // 1000 * 1000 if self.is_relative else anchor_ms

    def _around(self, at_ms: int, anchor_ms: int) -> tuple[int | None, int]:
        """The last moment until `at_ms`, if there is one, and the first after it: each is found from the one before."""
        zone = zone_named(self.zone)
        step = self.every_ms // self._unit_ms * self._unit_ms
        last = _reached.get((self, anchor_ms), anchor_ms)
        if last > at_ms:
            last = anchor_ms
        # Beyond the calendar's end there are no clocks to look at.
        at_ms = min(at_ms, _LAST_MS - _WEEK_MS - 2 * self.every_ms)
        while (following := self._following(last, zone)) <= at_ms:
            last = following
            # As long as the clock is not changed all steps between full units are alike. No zone changes it twice in a week.
            shown = _local(last, zone)
            if shown.replace(tzinfo=None) != self._full(shown):
                continue
            leap = min(_WEEK_MS, at_ms - last) // step * step
            while (
                leap and shown.utcoffset() != _local(last + leap + self.every_ms, zone).utcoffset()
            ):
                leap = leap // 2 // step * step
            last += leap
        # A schedule asks from one tick to the next, and need not walk from its beginning each time.
        if len(_reached) >= _REACHED_MAX:
            _reached.clear()
        _reached[self, anchor_ms] = last
        return (None if last == anchor_ms else last), following

    @property
    def _unit_ms(self) -> int:
        """What a relative interval is rounded to."""
        return next(unit for unit in (_DAY_MS, _HOUR_MS, _MINUTE_MS) if self.every_ms >= unit)

    def _full(self, shown: dt.datetime) -> dt.datetime:
        """The full unit that a clock showed last, without its zone."""
        full = shown.replace(second=0, microsecond=0, tzinfo=None, fold=0)
        if self._unit_ms > _MINUTE_MS:
            full = full.replace(minute=0)
        return full.replace(hour=0) if self._unit_ms > _HOUR_MS else full

    def _following(self, start_ms: int, zone: dt.tzinfo) -> int:
        """The moment after one, by Celery's rule for `relative=True`.

        It is the last full unit of the local clock until `every_ms` later, after the start. Days are days of the calendar:
        the first midnight after the start, so many days on. A clock that is set back may show the unit of the start again, or
        none before the time is over: the next full unit counts then.
        """
        end_ms = start_ms + self.every_ms
        if end_ms >= _LAST_MS - _WEEK_MS:
            return end_ms
        start = _local(start_ms, zone).replace(tzinfo=None)
        every = self.every_ms * _MS
        if self.every_ms >= _DAY_MS:
            midnights = self._occurrences(start + every, zone)
            return min([one for one in midnights if one > start_ms], default=end_ms)
        end = _local(end_ms, zone).replace(tzinfo=None)
        found = self._occurrences(end, zone)
        rounded = max([moment for moment in found if moment <= end_ms], default=min(found))
        if rounded > start_ms:
            return rounded
        found += self._occurrences(end + self._unit_ms * _MS, zone)
        found += self._occurrences(start + every, zone)
        later = [moment for moment in found if moment > start_ms]
        return max(
            [moment for moment in later if moment <= end_ms], default=min(later, default=end_ms)
        )

    def _occurrences(self, shown: dt.datetime, zone: dt.tzinfo) -> list[int]:
        """When the clock shows the full unit of that time: once, or twice where it is set back. A time left out is later."""
        full = self._full(shown)
        first = _unix_ms(full.replace(tzinfo=zone))
        if _local(first, zone).replace(tzinfo=None) != full:
            return [first]
        return [first, _unix_ms(full.replace(tzinfo=zone, fold=1))]


_reached: "dict[tuple[Interval, int], int]" = {}
"""A moment that counting from an anchor has come to."""
_REACHED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Once:
    """One moment."""

    at_ms: int

    def __post_init__(self) -> None:
        if not 0 < self.at_ms <= _LAST_MS:
            raise TimingError(
                f"{self.at_ms!r} is not a Unix time in milliseconds up to the year 9999"
            )

    def __str__(self) -> str:
        return f"at {self.at_ms}"

    def next_ms(self, after_ms: int, anchor_ms: int = 0) -> int | None:
        del anchor_ms
        return self.at_ms if self.at_ms > after_ms else None

    def last_ms(self, until_ms: int, anchor_ms: int = 0) -> int | None:
        del anchor_ms
        return self.at_ms if self.at_ms <= until_ms else None


@dataclass(frozen=True, slots=True)
class Crontab:
    """The local minutes whose five numbers all are among those the fields mean. Sunday is 0."""

    minute: str = "*"
    hour: str = "*"
    day_of_month: str = "*"
    month_of_year: str = "*"
    day_of_week: str = "*"
    zone: str = ""
    _minutes: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Of the day, rising."""
    _days: frozenset[int] = field(init=False, repr=False, compare=False)
    _months: frozenset[int] = field(init=False, repr=False, compare=False)
    _weekdays: frozenset[int] = field(init=False, repr=False, compare=False)
    _tz: dt.tzinfo = field(init=False, repr=False, compare=False)
    _has_each_hour: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        hours = expand(self.hour, 24)
        minutes = expand(self.minute, 60)
        found: dict[str, object] = {
            "_minutes": tuple(sorted(60 * hour + minute for hour in hours for minute in minutes)),
            "_days": frozenset(expand(self.day_of_month, 31, 1)),
            "_months": frozenset(expand(self.month_of_year, 12, 1)),
            "_weekdays": frozenset(expand(self.day_of_week, 7)),
            "_tz": zone_named(self.zone),
            "_has_each_hour": len(hours) == 24,
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)
        if min(self._days) > max(_DAYS_IN_MONTH[month - 1] for month in self._months):
            raise TimingError(
                f"Invalid crontab: day_of_month {self.day_of_month!r} never occurs in "
                f"month_of_year {self.month_of_year!r}."
            )

    def __str__(self) -> str:
        fields = (self.minute, self.hour, self.day_of_month, self.month_of_year, self.day_of_week)
        return " ".join(("cron", *fields, self.zone)).rstrip()

    def next_ms(self, after_ms: int, anchor_ms: int = 0) -> int | None:
        del anchor_ms
        if after_ms >= _LAST_MS:
            return None
        today = _local(after_ms, self._tz).date()
        # The neighbours too: a clock that changes around midnight shows their minutes today.
        near = [self._first(day, after_ms) for day in (today - _DAY, today, today + _DAY)]
        if found := [moment for moment in near if moment is not None]:
            return min(found)
        later = self._date_from(today + 2 * _DAY, 1)
        if later is None:
            return None
        both = [self._first(later, after_ms), self._first(later + _DAY, after_ms)]
        return min([moment for moment in both if moment is not None])

    def last_ms(self, until_ms: int, anchor_ms: int = 0) -> int | None:
        del anchor_ms
        if until_ms < 2 * _DAY_MS:
            return None
        today = _local(until_ms, self._tz).date()
        near = [self._last(day, until_ms) for day in (today - _DAY, today, today + _DAY)]
        if found := [moment for moment in near if moment is not None]:
            return max(found)
        earlier = self._date_from(today - 2 * _DAY, -1)
        if earlier is None:
            return None
        both = [self._last(earlier, until_ms), self._last(earlier - _DAY, until_ms)]
        return max([moment for moment in both if moment is not None])

    def _fits(self, day: dt.date) -> bool:
        return (
            day.month in self._months
            and day.day in self._days
            and day.isoweekday() % 7 in self._weekdays
        )

    def _date_from(self, day: dt.date, step: int) -> dt.date | None:
        """The first date that fits, from `day` on or back."""
        for _ in range(_YEARS_MAX * 366):
            if not 1970 < day.year < 9999:
                return None
            if self._fits(day):
                return day
            day += step * _DAY
        return None

    def _plain_midnight(self, day: dt.date) -> int | None:
        """When the day begins; None when the clock changes during it."""
        begin = dt.datetime.combine(day, dt.time(), tzinfo=self._tz)
        end = begin + _DAY
        offsets = {one.replace(fold=fold).utcoffset() for one in (begin, end) for fold in (0, 1)}
        return _unix_ms(begin) if len(offsets) == 1 else None

    def _uneven(self, day: dt.date) -> list[int]:
        """The moments of a day during which the clock changes."""
        found: set[int] = set()
        for minute in self._minutes:
            time = dt.time(minute // 60, minute % 60)
            # In a gap, fold 0 counts with the offset from before it: as much later as the clock sprang.
            first = _unix_ms(dt.datetime.combine(day, time, tzinfo=self._tz))
            found.add(first)
            if self._has_each_hour:
                second = _unix_ms(dt.datetime.combine(day, time.replace(fold=1), tzinfo=self._tz))
                if second > first:
                    found.add(second)
        return sorted(found)

    def _first(self, day: dt.date, after_ms: int) -> int | None:
        """The day's first moment after that one."""
        if not self._fits(day):
            return None
        midnight = self._plain_midnight(day)
        if midnight is None:
            return next((moment for moment in self._uneven(day) if moment > after_ms), None)
        place = bisect_right(self._minutes, (after_ms - midnight) // _MINUTE_MS)
        return midnight + self._minutes[place] * _MINUTE_MS if place < len(self._minutes) else None

    def _last(self, day: dt.date, until_ms: int) -> int | None:
        """The day's last moment until that one."""
        if not self._fits(day):
            return None
        midnight = self._plain_midnight(day)
        if midnight is None:
            moments = self._uneven(day)
            place = bisect_right(moments, until_ms)
            return moments[place - 1] if place else None
        place = bisect_left(self._minutes, (until_ms - midnight) // _MINUTE_MS + 1)
        return midnight + self._minutes[place - 1] * _MINUTE_MS if place else None


_SOLAR_EVENTS: Final = {
    "dawn_astronomical": (-18.0, True),
    "dawn_nautical": (-12.0, True),
    "dawn_civil": (-6.0, True),
    "sunrise": (-0.833, True),
    "solar_noon": (None, True),
    "sunset": (-0.833, False),
    "dusk_civil": (-6.0, False),
    "dusk_nautical": (-12.0, False),
    "dusk_astronomical": (-18.0, False),
}
"""How high the sun's centre stands, in degrees, and whether it rises. At sunrise half a disc and the air are in the way."""


@dataclass(frozen=True, slots=True)
class Solar:
    """An event of the sun at a place, on each day that has one. True to about a minute (NOAA's equations)."""

    event: str
    latitude: float
    longitude: float

    def __post_init__(self) -> None:
        if self.event not in _SOLAR_EVENTS:
            raise TimingError(
                f'Argument event "{self.event}" is invalid, must be one of {", ".join(_SOLAR_EVENTS)}.'
            )
        if not -90 <= self.latitude <= 90:
            raise TimingError(
                f"Argument latitude {self.latitude} is invalid, must be between -90 and 90."
            )
        if not -180 <= self.longitude <= 180:
            raise TimingError(
                f"Argument longitude {self.longitude} is invalid, must be between -180 and 180."
            )

    def __str__(self) -> str:
        return f"solar {self.event} {self.latitude!r} {self.longitude!r}"

    def next_ms(self, after_ms: int, anchor_ms: int = 0) -> int | None:
        del anchor_ms
        return next((moment for moment in self._from(after_ms, 1) if moment > after_ms), None)

    def last_ms(self, until_ms: int, anchor_ms: int = 0) -> int | None:
        del anchor_ms
        return next((moment for moment in self._from(until_ms, -1) if moment <= until_ms), None)

    def _from(self, at_ms: int, step: int) -> Iterator[int]:
        """The events of the days from the one before or after that moment; a polar night has none for half a year."""
        day = at_ms // _DAY_MS - step
        for count in range(400):
            moment = self._on(day + step * count)
            if moment is not None and moment > 0:
                yield moment

    def _on(self, day: int) -> int | None:
        """The event on a day, counted from 1970 and by the sun, not by a clock."""
        altitude, is_rising = _SOLAR_EVENTS[self.event]
        noon_ms = day * _DAY_MS + _DAY_MS / 2 - self.longitude / 360 * _DAY_MS
        moment = noon_ms
        # The sun moves on between noon and its setting: three rounds are exact to a second.
        for _ in range(3):
            declination, equation_ms = _sun(moment)
            noon = noon_ms - equation_ms
            if altitude is None:
                moment = noon
                continue
            latitude = math.radians(self.latitude)
            below = math.cos(latitude) * math.cos(declination)
            if abs(below) < 1e-12:
                return None
            angle = (
                math.sin(math.radians(altitude)) - math.sin(latitude) * math.sin(declination)
            ) / below
            if not -1 <= angle <= 1:
                return None
            half_ms = math.acos(angle) / (2 * math.pi) * _DAY_MS
            moment = noon - half_ms if is_rising else noon + half_ms
        return round(moment)


def _sun(unix_ms: float) -> tuple[float, float]:
    """The sun's declination in radians, and by how many milliseconds a sundial is ahead of the clock."""
    century = (unix_ms / _DAY_MS + 2_440_587.5 - 2_451_545.0) / 36_525
    mean_longitude = math.radians(
        (280.46646 + century * (36_000.76983 + century * 0.0003032)) % 360
    )
    anomaly = math.radians(357.52911 + century * (35_999.05029 - 0.0001537 * century))
    eccentricity = 0.016708634 - century * (0.000042037 + 0.0000001267 * century)
    center = (
        math.sin(anomaly) * (1.914602 - century * (0.004817 + 0.000014 * century))
        + math.sin(2 * anomaly) * (0.019993 - 0.000101 * century)
        + math.sin(3 * anomaly) * 0.000289
    )
    node = math.radians(125.04 - 1934.136 * century)
    longitude = mean_longitude + math.radians(center - 0.00569 - 0.00478 * math.sin(node))
    obliquity = math.radians(
        23.0
        + (26.0 + (21.448 - century * (46.815 + century * (0.00059 - century * 0.001813))) / 60)
        / 60
        + 0.00256 * math.cos(node)
    )
    y = math.tan(obliquity / 2) ** 2
    equation = (
        y * math.sin(2 * mean_longitude)
        - 2 * eccentricity * math.sin(anomaly)
        + 4 * eccentricity * y * math.sin(anomaly) * math.cos(2 * mean_longitude)
        - 0.5 * y * y * math.sin(4 * mean_longitude)
        - 1.25 * eccentricity**2 * math.sin(2 * anomaly)
    )
    declination = math.asin(math.sin(obliquity) * math.sin(longitude))
    return declination, equation / (2 * math.pi) * _DAY_MS


def _parse_every(words: Sequence[str]) -> Timing:
    seconds, *rest = words
    if rest and (rest[0] != "relative" or len(rest) > 2):
        raise TimingError("after the seconds may stand only 'relative' and a zone")
    every_ms = float(seconds) * 1000
    if not math.isfinite(every_ms):
        raise TimingError(f"{seconds!r} is not a number of seconds")
    return Interval(round(every_ms), bool(rest), rest[1] if len(rest) > 1 else "")


def _parse_cron(words: Sequence[str]) -> Timing:
    if len(words) not in (5, 6):
        raise TimingError(
            "it has five fields (minute, hour, day of month, month, day of week) and perhaps a zone"
        )
    return Crontab(*words)


def _parse_at(words: Sequence[str]) -> Timing:
    (moment,) = words
    return Once(int(moment))


def _parse_solar(words: Sequence[str]) -> Timing:
    event, latitude, longitude = words
    return Solar(event, float(latitude), float(longitude))


_KINDS: Final[dict[str, Callable[[Sequence[str]], Timing]]] = {
    "every": _parse_every,
    "cron": _parse_cron,
    "at": _parse_at,
    "solar": _parse_solar,
}


@lru_cache(maxsize=20_000)
def parse(text: str) -> Timing:
    """The moments that the text means; TimingError when it means none."""
    kind, *words = text.split() or [""]
    reader = _KINDS.get(kind)
    if reader is None:
        raise TimingError(f"the timing {text!r} begins with none of {', '.join(_KINDS)}")
    try:
        return reader(words)
    except TimingError as error:
        raise TimingError(f"the timing {text!r} means no moments: {error}") from error
    except ValueError as error:
        raise TimingError(
            f"the timing {text!r} means no moments: it is not as in {_EXAMPLES[kind]!r}"
        ) from error


_EXAMPLES: Final = {
    "every": "every 30",
    "cron": "cron 30 2 * * mon-fri Europe/Berlin",
    "at": "at 1767225600000",
    "solar": "solar sunset 52.52 13.40",
}
