"""Celery's words for when."""

import datetime as dt
import pickle
from collections.abc import Callable
from zoneinfo import ZoneInfo

import pytest

from qbroker import App
from qbroker.schedules import (
    BaseSchedule,
    ParseException,
    clocked,
    crontab,
    crontab_parser,
    maybe_schedule,
    schedule,
    solar,
    zone_name,
)
from qbroker.serialization import Value
from tests.sdk.conftest import MakeApp

NOW = dt.datetime(2026, 5, 10, 14, 30, 15, tzinfo=dt.UTC)
Minutes = dt.timedelta


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app()


def at(text: str, zone: str = "UTC") -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def clock(text: str, zone: str = "UTC") -> Callable[[], dt.datetime]:
    return lambda: at(text, zone)


# -- schedule --------------------------------------------------------------------------------------


def test_an_interval_is_due_when_it_has_passed(app: App) -> None:
    every = schedule(dt.timedelta(minutes=10), nowfun=lambda: NOW, app=app)

    assert every.is_due(NOW - dt.timedelta(minutes=10)) == (True, 600)
    assert every.is_due(NOW - dt.timedelta(minutes=15)) == (True, 600)
    assert every.is_due(NOW - dt.timedelta(minutes=4)) == (False, 360)
    assert every.remaining_estimate(NOW - dt.timedelta(minutes=12)) == -dt.timedelta(minutes=2)


def test_an_interval_is_real_time_also_when_the_clock_changes(app: App) -> None:
    app.conf.timezone = "America/New_York"
    every = schedule(3_600, nowfun=clock("2026-03-08T03:30", "America/New_York"), app=app)

    assert every.is_due(at("2026-03-08T01:30", "America/New_York")) == (True, 3_600)


def test_a_relative_interval_is_due_at_the_full_unit(app: App) -> None:
    every = schedule(3_600, True, nowfun=clock("2026-05-10T14:59"), app=app)

    assert every.is_due(at("2026-05-10T14:20")) == (False, 60)
    every.nowfun = clock("2026-05-10T15:00:20")
    assert every.is_due(at("2026-05-10T14:20")) == (True, 3_580)


def test_a_time_without_a_zone_is_utc(app: App) -> None:
    every = schedule(60, nowfun=lambda: dt.datetime(2026, 5, 10, 14, 0), app=app)  # noqa: DTZ001 - the case

    assert every.is_due(dt.datetime(2026, 5, 10, 13, 59)).is_due  # noqa: DTZ001 - the case


def test_schedules_say_what_they_are(app: App) -> None:
    assert repr(schedule(10)) == "<freq: 10.00 seconds>"
    assert repr(schedule(dt.timedelta(hours=1))) == "<freq: 1.00 hour>"
    assert repr(crontab("*/5", "0,12", "mon-fri", "1", "*")) == "<crontab: */5 0,12 1 * mon-fri (m/h/dM/MY/d)>"  # fmt: skip
    assert repr(solar("sunset", -37.8, 144.9)) == "<solar: sunset at latitude -37.8, longitude: 144.9>"  # fmt: skip
    assert schedule(10) == schedule(10.0) == dt.timedelta(seconds=10)
    assert schedule(10) != schedule(11)


def test_numbers_and_timedeltas_become_schedules(app: App) -> None:
    cron = crontab()

    assert maybe_schedule(30, app=app) == schedule(30)
    assert maybe_schedule(1.5, relative=True).relative
    assert maybe_schedule(dt.timedelta(minutes=1)) == schedule(60)
    assert maybe_schedule(cron, app=app) is cron
    assert cron.app is app
    assert maybe_schedule(None) is None


def test_a_schedule_without_an_app_has_the_current_ones_clock(app: App) -> None:
    app.set_current()

    assert schedule(1).app is app
    assert abs(schedule(1).now() - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)


def test_a_class_of_the_users_must_say_when(app: App) -> None:
    own = BaseSchedule(app=app)

    assert own.timing() is None
    with pytest.raises(NotImplementedError):
        own.is_due(NOW)
    with pytest.raises(NotImplementedError):
        own.remaining_estimate(NOW)


# -- crontab ---------------------------------------------------------------------------------------


def test_the_parser_reads_fields_as_celery_does() -> None:
    assert crontab_parser(60).parse("*/15") == {0, 15, 30, 45}
    assert crontab_parser(24).parse("22-2") == {22, 23, 0, 1, 2}
    assert crontab_parser(7).parse("sun,wednesday") == {0, 3}
    assert crontab_parser(31, 1).parse("*/10") == {1, 11, 21, 31}
    for wrong in ("*/", "1,,2", "-1", "60", "someday"):
        with pytest.raises(crontab_parser.ParseException):
            crontab_parser(60).parse(wrong)
        with pytest.raises(ValueError, match=r"."):
            crontab_parser(60).parse(wrong)
    assert crontab_parser.ParseException is ParseException


def test_a_crontab_knows_its_numbers() -> None:
    cron = crontab(
        minute=7, hour=[8, 20], day_of_week={1}, day_of_month="*/15", month_of_year="jan"
    )

    assert (cron.minute, cron.hour, cron.day_of_week) == ({7}, {8, 20}, {1})
    assert (cron.day_of_month, cron.month_of_year) == ({1, 16, 31}, {1})
    assert str(cron.in_zone("UTC").timing()) == "cron 7 8,20 */15 jan 1"


def test_a_crontab_is_read_from_text_in_crons_order() -> None:
    assert crontab.from_string("1 2 3 4 5") == crontab("1", "2", "5", "3", "4")
    with pytest.raises(ValueError, match="has 4 fields"):
        crontab.from_string("* * * *")


@pytest.mark.parametrize(
    "arguments",
    [{"minute": 60}, {"hour": "24"}, {"day_of_week": [7]}, {"day_of_month": 0}, {"month_of_year": {13}},
     {"day_of_month": "30", "month_of_year": "2"}, {"day_of_month": 31, "month_of_year": "4,6,9,11"}],
)  # fmt: skip
def test_an_impossible_crontab_is_refused_at_construction(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Invalid"):
        crontab(**arguments)  # type: ignore[arg-type] # the case


@pytest.mark.parametrize(
    "field", ["minute", "hour", "day_of_week", "day_of_month", "month_of_year"]
)
def test_a_field_without_numbers_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"never occurs, for {field} is empty"):
        crontab(**{field: []})


def test_spaces_in_a_field_mean_nothing() -> None:
    spaced = crontab(hour="1, 2", day_of_week="mon, fri")

    assert spaced == crontab(hour="1,2", day_of_week="1,5")
    assert str(spaced.in_zone("UTC").timing()) == "cron * 1,2 * * mon,fri"


def test_a_relative_interval_below_a_second_is_not_rounded(app: App) -> None:
    often = schedule(0.1, True, nowfun=lambda: NOW, app=app)

    assert often.is_due(NOW - dt.timedelta(seconds=1)) == (True, 0.1)


def test_a_zone_may_be_set_at_the_app(app: App) -> None:
    app.timezone = "Asia/Tokyo"

    assert app.timezone == ZoneInfo("Asia/Tokyo")


def test_a_field_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="int, str, or an iterable type"):
        crontab(minute=1.5)  # type: ignore[arg-type] # the case


def test_crontabs_are_equal_by_meaning_and_survive_pickling(app: App) -> None:
    cron = crontab(minute="*/30", hour="1,2")

    assert cron == crontab(minute=[0, 30], hour={1, 2})
    assert cron != crontab(minute="*/30")
    assert cron != schedule(10)
    assert pickle.loads(pickle.dumps(cron)) == cron  # noqa: S301 - our own
    assert pickle.loads(pickle.dumps(schedule(10, True))).relative  # noqa: S301 - our own
    assert pickle.loads(pickle.dumps(solar("sunset", 1, 2))) == solar("sunset", 1, 2)  # noqa: S301 - our own


def test_a_crontab_is_due_from_its_minute_on(app: App) -> None:
    hourly = crontab(minute=0, nowfun=lambda: NOW, app=app)

    assert hourly.is_due(NOW - dt.timedelta(minutes=40)) == (True, 29 * 60 + 45)
    assert hourly.is_due(NOW - dt.timedelta(minutes=10)) == (False, 29 * 60 + 45)
    assert hourly.remaining_estimate(NOW) == dt.timedelta(minutes=29, seconds=45)


def test_a_crontab_has_the_clock_of_the_apps_zone_or_its_own(app: App) -> None:
    app.conf.timezone = "Asia/Tokyo"
    daily = crontab(minute=0, hour=0, nowfun=lambda: NOW, app=app)

    assert daily.remaining_estimate(NOW) == dt.timedelta(minutes=29, seconds=45)
    own = crontab(minute=0, hour=15, tz="Europe/London", nowfun=lambda: NOW, app=app)
    assert own.remaining_estimate(NOW) == dt.timedelta(hours=23, minutes=29, seconds=45)
    assert str(own.timing()) == "cron 0 15 * * * Europe/London"
    assert str(daily.timing()) == "cron 0 0 * * * Asia/Tokyo"


def test_a_run_that_was_missed_by_more_than_the_deadline_is_not_made_up_for(app: App) -> None:
    app.conf.beat_cron_starting_deadline = 60
    hourly = crontab(minute=0, nowfun=clock("2026-05-10T14:00:59"), app=app)
    last = at("2026-05-10T12:30")

    in_time = hourly.is_due(last)
    hourly.nowfun = clock("2026-05-10T14:01:01")
    late = hourly.is_due(last)

    assert (in_time.is_due, late.is_due) == (True, False)
    assert late.next == 59 * 60 - 1


def test_the_deadline_is_real_time_also_when_the_clock_changes(app: App) -> None:
    app.conf.update(timezone="America/New_York", beat_cron_starting_deadline=10_800)
    now = at("2023-03-12T03:10", "America/New_York")
    twice = crontab(minute=0, hour="0,6", nowfun=lambda: now, app=app)

    # Midnight is two hours and ten minutes ago, although the clock shows three.
    due, _ = twice.is_due(at("2023-03-11T00:00", "America/New_York"))

    assert due


# -- the sun, and one moment -----------------------------------------------------------------------


def test_the_sun_is_due_when_it_sets(app: App) -> None:
    sunset = solar("sunset", 51.48, 0.0, nowfun=clock("2026-06-21T20:00"), app=app)

    due, next_s = sunset.is_due(at("2026-06-21T12:00"))

    assert not due
    assert 19 * 60 < next_s < 23 * 60


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(("moonrise", 0, 0), "moonrise"), (("sunset", 91, 0), "latitude"), (("sunset", 0, 181), "longitude")],
)  # fmt: skip
def test_an_impossible_event_is_refused(arguments: tuple[str, float, float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        solar(*arguments)


def test_a_moment_is_due_once(app: App) -> None:
    once = clocked(NOW, nowfun=lambda: NOW, app=app)

    assert once.is_due(NOW - dt.timedelta(hours=1)).is_due
    assert not once.is_due(NOW).is_due
    assert str(once.timing()) == f"at {int(NOW.timestamp() * 1000)}"
    assert once == clocked(NOW)
    assert repr(once).startswith("<clocked: 2026")


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        (dt.UTC, ""),
        (ZoneInfo("UTC"), ""),
        (ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
        (dt.timezone(dt.timedelta(hours=-3, minutes=-30)), "-03:30"),
    ],
)
def test_a_zone_is_named_as_the_broker_knows_it(zone: dt.tzinfo, name: str) -> None:
    assert zone_name(zone) == name


def test_the_zone_of_a_schedule_can_be_set_before_and_after_its_constructor(app: App) -> None:
    class Own(crontab):
        def __init__(self, **kwargs: Value) -> None:
            self.tz = "Asia/Tokyo"
            super().__init__(**kwargs)

    every = schedule(3600, relative=True, app=app)
    every.tz = dt.timezone(dt.timedelta(hours=2))
    own = Own(minute=0, app=app)

    assert str(own.tz) == "Asia/Tokyo"
    assert own.timing().zone == "Asia/Tokyo"  # type: ignore[attr-defined] # a crontab's
    assert every.tz == dt.timezone(dt.timedelta(hours=2))
    every.tz = None
    assert every.tz == app.timezone


def test_a_relative_schedule_waits_for_what_the_changed_clock_shows(app: App) -> None:
    zone = ZoneInfo("Australia/Lord_Howe")
    last = dt.datetime(2026, 4, 5, 1, 0, tzinfo=zone)
    every = schedule(3600, relative=True, nowfun=lambda: last, app=app, tz=zone)

    assert every.is_due(last) == (False, 5400)
