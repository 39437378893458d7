"""How qctl writes counts, spans of time and replies."""

import click
import pytest

from qbroker.cli import tables
from qbroker_proto.v1.admin_pb2 import QueueStatus, StatusReply, TaskInfo


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-1, "0 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (7200, "2 h 0 min"),
        (90061, "1 d 1 h"),
    ],
)
def test_a_duration_is_told_by_its_two_greatest_units(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


def test_a_reply_becomes_plain_with_zeros_and_numbers_that_are_numbers() -> None:
    reply = StatusReply(version="1", started_ms=2**40, queues=[QueueStatus(name="q")])

    found = tables.plain(reply)

    assert found["started_ms"] == 2**40
    assert found["scheduled_count"] == 0
    assert found["queues"] == [
        {
            "name": "q",
            "ready_count": 0,
            "leased_count": 0,
            "consumer_count": 0,
            "is_paused": False,
        }
    ]


def test_bytes_are_not_shown() -> None:
    found = tables.plain(TaskInfo(id="a", message=b"m", result=b"r", labels=["x=1"]))

    assert (found["id"], found["labels"]) == ("a", ["x=1"])
    assert not {"message", "result"} & found.keys()


@pytest.mark.parametrize(
    ("text", "ms"),
    [("250ms", 250), ("90", 90_000), ("90s", 90_000), ("1.5m", 90_000), ("2h", 7_200_000),
     ("1d", 86_400_000), ("0", 0)],
)  # fmt: skip
def test_a_span_of_time_is_a_number_with_a_unit(text: str, ms: int) -> None:
    assert tables.SPAN.convert(text, None, None) == ms


@pytest.mark.parametrize("text", ["", "x", "5 m", "-1s", "1w", "1e3"])
def test_what_is_no_span_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(click.BadParameter, match="250ms, 90s, 5m, 2h or 1d"):
        tables.SPAN.convert(text, None, None)


def test_one_is_not_many() -> None:
    assert tables.counted(1) == "1 message"
    assert tables.counted(1_234, "task") == "1,234 tasks"


def test_a_moment_is_utc_to_the_millisecond_and_none_is_nothing() -> None:
    assert tables.moment(1_896_091_200_007) == "2030-01-31 12:00:00.007+00:00"
    assert tables.moment(0) == ""


def test_what_users_named_is_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show("T", ("name", "n"), [("[bold]x[/]", 1_000)], empty="")
    tables.show_facts("F", {"name": "[red]y", "none": "", "n": 2_000})

    printed = capsys.readouterr().out

    assert "[bold]x[/]   1,000" in printed
    assert "[red]y" in printed
    assert "none" not in printed


def test_what_users_named_cannot_play_with_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables.show("T", ("name",), [("\x1b]0;owned\x07\nrow",), ("\u202etxt.exe",)], empty="")
    tables.show_facts("F", {"args": "('\x9b31m',)\r"})

    printed = capsys.readouterr().out

    assert r"\x1b]0;owned\x07\nrow" in printed
    assert r"\u202etxt.exe" in printed
    assert r"('\x9b31m',)\r" in printed
    assert not set(printed) & set("\x1b\x07\u202e\x9b\r")


def test_text_of_any_language_stays_as_it_is() -> None:
    text = "Größe\tπ 你好 👩‍💻\nñ"

    assert tables.visible(text) == text
