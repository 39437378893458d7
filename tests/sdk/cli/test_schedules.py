"""`qctl schedule`, at the real broker."""

import itertools

import pytest

from qbroker import App
from tests.sdk.cli.asking import Shell


@pytest.fixture(autouse=True)
def tidy(qctl: Shell) -> None:
    """An entry that fires once an hour."""
    qctl.said("schedule", "add", "tidy", "proj.tidy", "--every", "1h", "--args", "[1]")


def test_add_says_when_the_entry_fires_and_ls_and_show_tell_of_it(qctl: Shell) -> None:
    said = qctl.said("schedule", "add", "soon", "proj.soon", "--every", "90s", "--overlap", "skip")
    (soon, tidy) = qctl.json("schedule", "ls")["schedules"]
    listed, shown = qctl.said("schedule", "ls"), qctl.said("schedule", "show", "tidy")

    assert said.startswith("Schedule 'soon' made: every 90, next in 1 min")
    assert (soon["schedule"]["name"], soon["schedule"]["overlap"]) == ("soon", "skip")
    assert (tidy["task"], tidy["argsrepr"], tidy["queue"]) == ("proj.tidy", "(1,)", "celery")
    assert "every 3600" in listed
    assert "made by hand" in shown
    assert qctl.json("schedule", "show", "tidy")["schedule"]["timing"] == "every 3600"


def test_change_keeps_what_is_not_given(qctl: Shell) -> None:
    qctl.said(
        "schedule", "add", "tidy", "proj.tidy", "--queue", "slow", "--jitter", "1500ms", "--change"
    )
    said = qctl.said("schedule", "add", "tidy", "proj.tidy", "--every", "30m", "--kwargs", '{"a": 2}', "--change")  # fmt: skip

    info = qctl.json("schedule", "show", "tidy")
    assert "changed: every 1800" in said
    assert (info["schedule"]["timing"], info["schedule"]["jitter_ms"]) == ("every 1800", 1_500)
    assert (info["queue"], info["argsrepr"], info["kwargsrepr"]) == ("slow", "(1,)", "{'a': 2}")
    assert "1500 ms" in qctl.said("schedule", "show", "tidy")


def test_every_option_of_add_reaches_the_broker(qctl: Shell) -> None:
    qctl.said(
        "schedule", "add", "all", "proj.t", "--cron", "*/5 6-8 * * mon-fri", "--zone", "Europe/Berlin",
        "--priority", "3", "--overlap", "queue", "--catch-up", "all", "--catch-up-max", "9",
        "--late-max", "1h", "--jitter", "1s", "--delay", "2s", "--expires", "3s",
        "--start", "2030-01-01T00:00:00", "--end", "2031-01-01T00:00:00+01:00", "--max-runs", "4",
    )  # fmt: skip

    one = qctl.json("schedule", "show", "all")["schedule"]

    assert one == {
        "name": "all", "timing": "cron */5 6-8 * * mon-fri Europe/Berlin", "overlap": "queue",
        "catch_up": "all", "catch_up_max": 9, "late_ms_max": 3_600_000, "jitter_ms": 1_000,
        "delay_ms": 2_000, "lifetime_ms": 3_000, "start_ms": 1_893_456_000_000,
        "end_ms": 1_924_988_400_000, "runs_max": 4,
    }  # fmt: skip


def test_once_and_relative_are_ways_to_say_when(qctl: Shell) -> None:
    qctl.said("schedule", "add", "once", "proj.t", "--at", "2030-01-01T00:00:00")
    qctl.said("schedule", "add", "full", "proj.t", "--every", "1d", "--relative", "--zone", "Asia/Tokyo")  # fmt: skip

    names = {info["schedule"]["name"]: info["schedule"]["timing"] for info in qctl.json("schedule", "ls")["schedules"]}  # fmt: skip

    assert names["once"] == "at 1893456000000"
    assert names["full"] == "every 86400 relative Asia/Tokyo"


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["add", "tidy", "proj.t", "--every", "1s"], 6, "a schedule 'tidy' already"),
        (["add", "x", "proj.t"], 2, "say when"),
        (["add", "x", "proj.t", "--every", "1s", "--cron", "* * * * *"], 2, "choose one"),
        (["add", "x", "proj.t", "--cron", "* * *"], 2, "has 3 fields"),
        (["add", "x", "proj.t", "--cron", "0 0 30 2 *"], 2, "never occurs"),
        (["add", "x", "proj.t", "--cron", "* * * * *", "--zone", "Moon"], 2, "no time zone 'Moon'"),
        (["add", "x", "proj.t", "--at", "2001-01-01"], 2, "would never fire"),
        (["add", "x", "proj.t", "--at", "noon"], 2, "is not a time"),
        (["add", "x", "proj.t", "--every", "1s", "--args", "{}"], 2, "is not a JSON list"),
        (["add", "x", "proj.t", "--every", "1s", "--zone", "UTC"], 2, "--zone with"),
        (["show", "nobody"], 3, "no schedule 'nobody'"),
        (["rm", "nobody", "--yes"], 3, "no schedule 'nobody'"),
        (["run", "nobody"], 3, "no schedule 'nobody'"),
        (["next"], 2, "name an entry"),
        (["next", "tidy", "--cron", "* * * * *"], 2, "name an entry"),
    ],
)
def test_what_cannot_be_ends_with_its_code_and_says_why(
    qctl: Shell, arguments: list[str], code: int, why: str
) -> None:
    result = qctl("schedule", *arguments)

    assert result.exit_code == code, result.output
    assert why in result.output


def test_an_entry_is_paused_run_by_hand_and_resumed(qctl: Shell, real_app: App) -> None:
    paused = qctl.said("schedule", "pause", "tidy", "--why", "INC-42", "--by", "ann")
    listed = qctl.said("schedule", "ls")
    task_id = qctl.json("schedule", "run", "tidy")["id"]
    again = qctl.said("schedule", "run", "tidy")
    resumed = qctl.said("schedule", "resume", "tidy")

    assert "is paused" in paused
    assert "paused by ann: INC-42" in listed
    assert real_app.AsyncResult(task_id).explain().stage == "queued"
    assert again.startswith("Schedule 'tidy' published ")
    assert "fires again: next in" in resumed


def test_rm_asks_and_forgets(qctl: Shell) -> None:
    kept = qctl("schedule", "rm", "tidy", stdin="n\n")
    still = qctl("schedule", "show", "tidy")
    qctl.said("schedule", "rm", "tidy", stdin="y\n")

    assert kept.exit_code == 1
    assert "Remove schedule 'tidy' (every 3600)?" in kept.output
    assert still.exit_code == 0
    assert qctl("schedule", "show", "tidy").exit_code == 3
    assert "No schedules yet" in qctl.said("schedule", "ls")


@pytest.mark.parametrize(
    "arguments",
    [
        ["rm", "tidy", "--yes"],
        ["pause", "tidy"],
        ["add", "tidy", "proj.tidy", "--every", "5m", "--change"],
    ],
)
def test_what_waits_of_an_entry_is_revoked_where_that_is_asked_for(
    qctl: Shell, real_app: App, arguments: list[str]
) -> None:
    delayed = real_app.send_task("proj.tidy", countdown=3_600, labels={"schedule": "tidy"})

    kept = qctl.said("schedule", "pause", "tidy")
    state = delayed.state
    dropped = qctl.said("schedule", *arguments, "--with-waiting")

    assert "revoked" not in kept
    assert state == "PENDING"
    assert dropped.endswith("1 waiting message revoked.\n")
    assert delayed.state == "REVOKED"


def test_next_tells_when_an_entry_or_a_crontab_fires(qctl: Shell) -> None:
    of_entry = qctl.json("schedule", "next", "tidy", "-n", "3")["ticks_ms"]
    of_cron = qctl.said(
        "schedule", "next", "--cron", "30 2 * * *", "--zone", "Europe/Berlin", "-n", "2"
    )

    assert [later - earlier for earlier, later in itertools.pairwise(of_entry)] == [3_600_000] * 2  # fmt: skip
    assert all(" 02:30:00+0" in line or " 03:30:00+02" in line for line in of_cron.splitlines())
    assert len(of_cron.splitlines()) == 2


def test_an_entry_that_has_ended_never_fires_any_more(qctl: Shell, real_app: App) -> None:
    real_app.schedules.put("tidy", task="proj.tidy", schedule=0.05, max_runs=1)
    while qctl.json("schedule", "show", "tidy")["run_count"] < 1:
        pass

    assert "ended" in qctl.said("schedule", "ls")
