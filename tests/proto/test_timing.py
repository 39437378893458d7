"""When entries fire, held against a slow second opinion: every minute of the year, asked one by one."""

import calendar
import datetime as dt
import random
from functools import cache
from zoneinfo import ZoneInfo

import pytest

from qbroker_proto import timing
from qbroker_proto.timing import Crontab, Interval, Once, Solar, TimingError, expand, parse

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def ms(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """A local time as Unix milliseconds."""
    moment = dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(moment.timestamp() * 1000)


def text(unix_ms: int | None, zone: str = "UTC") -> str:
    """A moment as a local time with its offset."""
    assert unix_ms is not None
    return dt.datetime.fromtimestamp(unix_ms / 1000, ZoneInfo(zone)).isoformat()


# -- crontab against an oracle ---------------------------------------------------------------------


def oracle(fields: list[set[int]], zone: str, start_ms: int, stop_ms: int) -> list[int]:
    """Every moment of the crontab, found by asking the clock of the zone what it shows at each minute.

    The rule in other words than the code's: what the clock shows counts when it shows it first, or always if
    every hour counts; what it never shows because it sprang counts when the minutes it sprang over have passed again.
    """
    minutes, hours, days, months, weekdays = fields

    def fits(at: dt.datetime) -> bool:
        return (
            at.minute in minutes
            and at.hour in hours
            and at.day in days
            and at.month in months
            and (at.weekday() + 1) % 7 in weekdays
        )

    found: set[int] = set()
    for moment_ms, at, before, sprang in shown(zone, start_ms - DAY, stop_ms + DAY):
        if fits(at) and (at.fold == 0 or len(hours) == 24):
            found.add(moment_ms)
        for late in range(sprang):
            if fits(before + dt.timedelta(minutes=1 + late)):
                found.add(moment_ms + late * MINUTE)
    return sorted(moment for moment in found if start_ms < moment <= stop_ms)


@cache
def shown(
    zone: str, start_ms: int, stop_ms: int
) -> list[tuple[int, dt.datetime, dt.datetime, int]]:
    """At each minute: what the clock shows, what it showed before, and by how many minutes it sprang between."""
    tz = ZoneInfo(zone)
    found = []
    before = dt.datetime.fromtimestamp(start_ms / 1000 - 60, tz)
    for moment_ms in range(start_ms, stop_ms, MINUTE):
        at = dt.datetime.fromtimestamp(moment_ms / 1000, tz)
        passed = at.replace(tzinfo=None) - before.replace(tzinfo=None)
        found.append((moment_ms, at, before, int(passed.total_seconds() // 60) - 1))
        before = at
    return found


ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe")
CRONTABS = (
    ("*/7", "*", "*", "*", "*"),
    ("30", "2", "*", "*", "*"),
    ("*/20", "1-3", "*", "*", "*"),
    ("15", "*", "*", "mar,apr,oct,nov", "sun"),
    ("0,59", "0,23", "*", "*", "*"),
    ("10-50/20", "22-3", "20-8", "*", "fri-mon"),
)
# Around each change of any of the zones' clocks in 2025 and 2026, and across a new year.
SPANS = (
    ("2025-03-08", 2), ("2025-03-29", 2), ("2025-04-05", 2), ("2025-10-04", 2), ("2025-10-25", 2),
    ("2025-11-01", 2), ("2025-12-30", 3), ("2026-03-07", 2), ("2026-03-28", 2), ("2026-10-24", 2),
)  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("crontab", CRONTABS, ids=" ".join)
def test_a_crontab_fires_when_the_clock_of_its_zone_says_so(
    crontab: tuple[str, str, str, str, str], zone: str
) -> None:
    entry = Crontab(*crontab, zone)
    sizes = ((60, 0), (24, 0), (31, 1), (12, 1), (7, 0))
    fields = [expand(field, *size) for field, size in zip(crontab, sizes, strict=True)]

    for day, length in SPANS:
        start, stop = ms(day), ms(day) + length * DAY
        expected = oracle(fields, zone, start, stop)
        forth = _forth(entry, start, stop)
        back = _back(entry, start, stop)

        assert forth == expected
        assert back == expected


def _forth(entry: timing.Timing, start: int, stop: int) -> list[int]:
    found = []
    moment = entry.next_ms(start)
    while moment is not None and moment <= stop:
        found.append(moment)
        moment = entry.next_ms(moment)
    return found


def _back(entry: timing.Timing, start: int, stop: int) -> list[int]:
    found = []
    moment = entry.last_ms(stop)
    while moment is not None and moment > start:
        found.append(moment)
        moment = entry.last_ms(moment - 1)
    return found[::-1]


@pytest.mark.parametrize("zone", ZONES)
def test_over_ten_years_of_instants_the_next_moment_and_the_last_agree_with_the_clock(
    zone: str,
) -> None:
    chance = random.Random(zone)
    tz = ZoneInfo(zone)
    entries = [Crontab(*crontab, zone) for crontab in CRONTABS]

    for _ in range(5_000):
        entry = chance.choice(entries)
        after = ms("2020-01-01") + chance.randrange(3_650 * DAY)
        moment = entry.next_ms(after)

        assert moment is not None
        assert moment > after
        assert entry.last_ms(moment) == moment
        before = entry.last_ms(after)
        assert before is not None
        assert before <= after
        # Nothing lies between the two.
        assert entry.next_ms(before) == moment
        shown = dt.datetime.fromtimestamp(moment / 1000, tz)
        is_shown = shown.hour * 60 + shown.minute in entry._minutes and entry._fits(shown)
        earlier = dt.datetime.fromtimestamp((moment - 2 * HOUR) / 1000, tz)
        assert is_shown or shown.utcoffset() != earlier.utcoffset()


# -- summer time, by hand --------------------------------------------------------------------------


def test_a_time_the_clock_leaves_out_fires_once_as_much_later_as_it_sprang() -> None:
    entry = parse("cron 30 2 * * * Europe/Berlin")

    found = _forth(entry, ms("2026-03-28T12:00"), ms("2026-03-30T12:00"))

    assert [text(moment, "Europe/Berlin") for moment in found] == [
        "2026-03-29T03:30:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_the_clock_shows_twice_fires_the_first_time_only() -> None:
    entry = parse("cron 30 2 * * * Europe/Berlin")

    found = _forth(entry, ms("2026-10-24T12:00"), ms("2026-10-26T12:00"))

    assert [text(moment, "Europe/Berlin") for moment in found] == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_an_entry_of_every_hour_goes_on_evenly_when_the_clock_changes() -> None:
    entry = parse("cron */30 * * * * Europe/Berlin")

    for day in ("2026-03-28", "2026-10-24"):
        found = _forth(entry, ms(day), ms(day) + 3 * DAY)
        assert found == list(range(ms(day) + 30 * MINUTE, ms(day) + 3 * DAY + 1, 30 * MINUTE))


def test_a_day_that_a_country_skipped_is_made_up_for_on_the_next() -> None:
    # Samoa went from 29 December 2011 to the 31st.
    entry = parse("cron 0 12 30 12 * Pacific/Apia")

    found = _forth(entry, ms("2011-12-01"), ms("2012-02-01"))

    assert [text(moment, "Pacific/Apia") for moment in found] == ["2011-12-31T12:00:00+14:00"]


# -- crontab: grammar ------------------------------------------------------------------------------


def test_fields_mean_what_celery_means_by_them() -> None:
    assert expand("*/15", 60) == {0, 15, 30, 45}
    assert expand("1-5,8-12/2,57-3", 60) == {0, 1, 2, 3, 4, 5, 8, 10, 12, 57, 58, 59}
    assert expand("fri-mon", 7) == {5, 6, 0, 1}
    assert expand("Monday,wednesday", 7) == {1, 3}
    assert expand("2-12/2", 12, 1) == {2, 4, 6, 8, 10, 12}
    assert expand("nov-feb", 12, 1) == {11, 12, 1, 2}


@pytest.mark.parametrize(
    "field", ["", "1,", "60", "-1", "1-", "*/", "*/0", "*/x", "5/15", "x", "1-2-3", "**", "1 2"]
)
def test_a_field_that_means_nothing_is_refused(field: str) -> None:
    with pytest.raises(TimingError):
        expand(field, 60)


def test_day_of_month_and_day_of_week_must_both_fit() -> None:
    found = _forth(parse("cron 0 0 13 * fri"), ms("2026-01-01"), ms("2026-12-31"))

    assert [text(moment)[:10] for moment in found] == ["2026-02-13", "2026-03-13", "2026-11-13"]


def test_a_date_that_never_comes_is_refused() -> None:
    with pytest.raises(TimingError, match="day_of_month '30,31' never occurs in month_of_year '2'"):
        parse("cron 0 0 30,31 2 *")


def test_a_leap_day_on_a_given_weekday_is_found_however_far_it_is() -> None:
    entry = parse("cron 0 0 29 2 mon")

    mondays = [
        f"{year}-02-29"
        for year in range(2090, 2130)
        if calendar.isleap(year) and dt.date(year, 2, 29).weekday() == 0
    ]

    assert [
        text(moment)[:10] for moment in _forth(entry, ms("2090-01-01"), ms("2129-12-31"))
    ] == mondays
    assert [
        text(moment)[:10] for moment in _back(entry, ms("2090-01-01"), ms("2129-12-31"))
    ] == mondays
    assert entry.next_ms(253_370_764_800_000) is None
    assert entry.last_ms(DAY) is None


# -- intervals -------------------------------------------------------------------------------------


def test_an_interval_is_counted_from_its_beginning_and_does_not_drift() -> None:
    entry = Interval(30_000)

    assert entry.next_ms(1_000, 1_000) == 31_000
    assert entry.next_ms(30_999, 1_000) == 31_000
    assert entry.next_ms(31_000, 1_000) == 61_000
    assert entry.next_ms(0, 1_000) == 31_000
    assert entry.last_ms(30_999, 1_000) is None
    assert entry.last_ms(91_500, 1_000) == 91_000


def test_a_relative_interval_is_rounded_to_its_unit() -> None:
    began = ms("2026-05-01T10:20:30.400")

    assert text(Interval(HOUR, True).next_ms(began, began)) == "2026-05-01T11:00:00+00:00"
    assert text(Interval(2 * HOUR, True).next_ms(began, began)) == "2026-05-01T12:00:00+00:00"
    assert text(Interval(MINUTE, True).next_ms(began, began)) == "2026-05-01T10:21:00+00:00"
    assert text(Interval(10_000, True).next_ms(began, began)) == "2026-05-01T10:20:40+00:00"
    kolkata = Interval(HOUR, True, "Asia/Kolkata")
    assert text(kolkata.next_ms(began, began), "Asia/Kolkata") == "2026-05-01T16:00:00+05:30"


def test_a_relative_interval_of_days_keeps_to_local_midnight() -> None:
    entry = Interval(DAY, True, "Europe/Berlin")
    began = ms("2026-03-27T10:00", "Europe/Berlin")

    forth = [began]
    for _ in range(3):
        forth.append(entry.next_ms(forth[-1], began) or 0)

    assert [text(moment, "Europe/Berlin") for moment in forth[1:]] == [
        "2026-03-28T00:00:00+01:00",
        "2026-03-29T00:00:00+01:00",
        "2026-03-30T00:00:00+02:00",
    ]
    assert entry.last_ms(forth[3], began) == forth[3]
    assert entry.last_ms(forth[3] - 1, began) == forth[2]
    assert entry.last_ms(began, began) is None


# -- one moment, the sun ---------------------------------------------------------------------------


def test_a_moment_is_next_until_it_has_come() -> None:
    entry = Once(5_000)

    assert (entry.next_ms(4_999), entry.next_ms(5_000)) == (5_000, None)
    assert (entry.last_ms(4_999), entry.last_ms(5_000)) == (None, 5_000)


@pytest.mark.parametrize(
    ("event", "latitude", "longitude", "after", "expected"),
    [
        # From the United States Naval Observatory's tables, to the minute.
        ("sunrise", 51.4769, 0.0, "2026-06-21T00:00", "2026-06-21T03:43"),
        ("sunset", 51.4769, 0.0, "2026-06-21T12:00", "2026-06-21T20:21"),
        ("sunrise", 40.7128, -74.0060, "2026-12-21T06:00", "2026-12-21T12:17"),
        ("sunset", -33.8688, 151.2093, "2026-12-21T00:00", "2026-12-21T09:05"),
        ("solar_noon", 0.0, 0.0, "2026-11-03T00:00", "2026-11-03T11:43"),
    ],
)
def test_the_sun_rises_and_sets_when_the_tables_say(
    event: str, latitude: float, longitude: float, after: str, expected: str
) -> None:
    moment = Solar(event, latitude, longitude).next_ms(ms(after))

    assert moment is not None
    assert abs(moment - ms(expected)) <= 2 * MINUTE


def test_the_events_of_a_day_come_in_their_order_and_each_once_a_day() -> None:
    events = ["dawn_astronomical", "dawn_nautical", "dawn_civil", "sunrise", "solar_noon", "sunset",
              "dusk_civil", "dusk_nautical", "dusk_astronomical"]  # fmt: skip
    start = ms("2026-03-20T00:00")

    moments = [Solar(event, 48.2, 16.4).next_ms(start) for event in events]

    assert moments == sorted(moments, key=lambda moment: moment or 0)
    year = _forth(Solar("sunset", 48.2, 16.4), start, start + 365 * DAY)
    assert len(year) == 365
    assert _back(Solar("sunset", 48.2, 16.4), start, start + 365 * DAY) == year


def test_where_the_sun_does_not_rise_for_months_the_next_rise_is_found() -> None:
    entry = Solar("sunrise", 78.2, 15.6)

    moment = entry.next_ms(ms("2026-11-15T00:00"))

    assert text(moment)[:7] == "2027-02"


# -- the text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "every 30",
        "every 0.25",
        "every 3600 relative",
        "every 86400 relative Europe/Berlin",
        "cron */5 0-6 1,15 jan-mar mon-fri",
        "cron 30 2 * * * America/New_York",
        "cron 30 2 * * * +05:30",
        "at 1767225600000",
        "solar sunset 52.52 -13.4",
    ],
)
def test_a_timing_is_written_as_it_was_read(words: str) -> None:
    assert str(parse(words)) == words


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "begins with none of"),
        ("hourly", "begins with none of every, cron, at, solar"),
        ("every", "not as in 'every 30'"),
        ("every never", "not as in 'every 30'"),
        ("every nan", "not a number of seconds"),
        ("every 0", "is not from 0.01 up"),
        ("every 5 soon", "only 'relative' and a zone"),
        ("cron * * * *", "five fields"),
        ("cron * * * * * Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("cron * * * * * ../etc/passwd", "no time zone"),
        ("every 60 relative Nowhere", "no time zone 'Nowhere'"),
        ("at noon", "not as in"),
        ("at -5", "not a Unix time"),
        ("solar moonrise 0 0", "moonrise"),
        ("solar sunset 91 0", "latitude 91.0 is invalid"),
        ("solar sunset 0 181", "longitude 181.0 is invalid"),
    ],
)
def test_a_text_that_means_no_moments_is_refused_with_the_reason(words: str, why: str) -> None:
    with pytest.raises(TimingError, match=why):
        parse(words)


# -- relative intervals where the clock changes, as Celery 5.7 has them ------------------------------


@pytest.mark.parametrize(
    ("zone", "every", "began", "following"),
    [
        # Lord Howe moves its clock by half an hour, at 02:00.
        ("Australia/Lord_Howe", HOUR, "2026-04-04T14:00Z", "2026-04-04T15:30Z"),
        ("Australia/Lord_Howe", HOUR, "2026-10-03T14:30Z", "2026-10-03T15:30Z"),
        ("Australia/Lord_Howe", HOUR, "2026-10-03T15:30Z", "2026-10-03T16:00Z"),
        ("Europe/Berlin", HOUR, "2026-03-29T00:00Z", "2026-03-29T01:00Z"),
        ("Europe/Berlin", HOUR, "2026-10-25T00:00Z", "2026-10-25T01:00Z"),
        ("Europe/Berlin", DAY, "2026-10-24T22:00Z", "2026-10-25T23:00Z"),
        ("Europe/Berlin", DAY, "2026-03-28T23:00Z", "2026-03-29T22:00Z"),
    ],
)
def test_a_relative_interval_is_what_the_changed_clock_shows(
    zone: str, every: int, began: str, following: str
) -> None:
    began_ms, following_ms = ms(began.rstrip("Z")), ms(following.rstrip("Z"))
    entry = Interval(every, True, zone)

    assert entry.next_ms(began_ms, began_ms) == following_ms
    assert entry.last_ms(following_ms, began_ms) == following_ms


@pytest.mark.parametrize("zone", ["Australia/Lord_Howe", "America/St_Johns", "Europe/Berlin"])
@pytest.mark.parametrize("every", [HOUR, 5 * HOUR // 2, DAY])
def test_a_leap_over_many_ticks_comes_to_where_single_steps_come(zone: str, every: int) -> None:
    entry, began = Interval(every, True, zone), ms("2026-03-01T10:20")
    tick = began
    for _ in range(1_000 if every < DAY else 300):
        tick = entry.next_ms(tick, tick) or 0

    assert entry.last_ms(tick, began) == tick
    assert entry.last_ms(tick - 1, began) != tick
