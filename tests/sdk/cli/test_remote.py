"""`qctl inspect` and `qctl control`."""

import json

import click
import pytest
from click.testing import CliRunner

from qbroker.cli import remote
from qbroker.cli.qctl import qctl as command
from qbroker.cli.remote import chat
from qbroker.serialization import Value
from qbroker.worker.control import BUILT_IN
from tests.sdk.answering import Silence
from tests.sdk.cli.asking import Shell
from tests.sdk.conftest import Hire

INFO = {
    "id": "1",
    "name": "proj.add",
    "args": [2, 2],
    "kwargs": {},
    "time_start": 5.0,
    "delivery_info": {"routing_key": "celery"},
    "worker_pid": 8,
}


def answers(name: str, arguments: dict[str, Value], words: list[str]) -> Value:
    match name:
        case "ping":
            return {"ok": "pong"}
        case "active":
            return []
        case "own":
            return {"ok": words}
        case "pool_grow":
            return {"error": "no"}
        case "stats":
            return arguments
        case _:
            return {"error": repr(KeyError(name))}


def silent(name: str, arguments: dict[str, Value], words: list[str]) -> Value:
    raise Silence


def test_answers_are_shown_as_celery_shows_them(qctl: Shell, hire: Hire) -> None:
    hire("a@host", answers)

    assert qctl.said("inspect", "ping") == "->  a@host: OK\n        pong\n\n1 node online.\n"
    assert qctl.said("inspect", "active") == "->  a@host: OK\n    - empty -\n\n1 node online.\n"
    assert qctl("control", "pool_grow", "2").output == "->  a@host: ERROR\n        no\n"


def test_json_is_all_answers_by_node(qctl: Shell, hire: Hire) -> None:
    hire("a@host", answers)
    hire("b@host", answers)

    both = json.loads(qctl.said("inspect", "-j", "ping"))
    one = json.loads(qctl.said("inspect", "-d", "b@host", "ping", "--json"))
    also = json.loads(qctl.said("inspect", "ping", "-j", "-d", " b@host,c@host"))

    assert both == {"a@host": {"ok": "pong"}, "b@host": {"ok": "pong"}}
    assert one == also == {"b@host": {"ok": "pong"}}


def test_nobody_is_69_and_who_is_late_is_named(qctl: Shell, hire: Hire) -> None:
    nobody = qctl("inspect", "ping")
    hire("a@host", silent)
    late = qctl("inspect", "-t", "0.2", "ping")

    assert (nobody.exit_code, late.exit_code) == (69, 69)
    assert "No nodes replied within time constraint" in nobody.output
    assert "a@host: connected, but no answer within 0.2 s" in late.output


def test_a_broker_that_is_away_is_5() -> None:
    ended = CliRunner().invoke(
        command, ["-b", "qbroker://127.0.0.1:1", "control", "heartbeat", "-t", "0.001"]
    )

    assert ended.exit_code == 5
    assert "127.0.0.1:1" in ended.output


def test_words_become_arguments_and_an_apps_own_command_is_sent_as_typed(
    qctl: Shell, hire: Hire
) -> None:
    worker = hire("a@host", answers)

    qctl.said("control", "own", "x", "2")
    qctl("control", "rate_limit", "proj.add", "10/s")

    own, rate = worker.asked
    assert (own.command, list(own.words), own.arguments) == ("own", ["x", "2"], b"")
    assert json.loads(rate.arguments) == {"task_name": "proj.add", "rate_limit": "10/s"}
    assert list(rate.words) == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("inspect", "conf", "maybe"), "neither true nor false"),
        (("inspect", "pool_grow"), "try: qctl control pool_grow"),
        (("control", "add_consumer"), "takes: <queue>"),
        (("inspect", "nosuch"), "no worker knows the command 'nosuch'"),
        (("control", "nosuch"), "no worker knows the command 'nosuch'"),
        (("inspect", "actve"), "did you mean 'active'?"),
    ],
)
def test_what_nobody_can_mean_is_2(
    qctl: Shell, hire: Hire, arguments: tuple[str, ...], why: str
) -> None:
    hire("a@host", answers)

    ended = qctl(*arguments)

    assert ended.exit_code == 2
    assert why in " ".join(ended.output.split())


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize(
    "arguments",
    [("control", "pool_grow", "2"), ("control", "rate_limit", "t", "banana"), ("inspect", "conf")],
)
def test_an_error_of_a_worker_is_1(
    qctl: Shell, hire: Hire, arguments: tuple[str, ...], more: tuple[str, ...]
) -> None:
    hire("a@host", answers)

    ended = qctl(*arguments, *more)

    assert ended.exit_code == 1
    assert '"error"' in ended.output or "ERROR" in ended.output


def test_an_error_of_one_worker_among_several_is_1(qctl: Shell, hire: Hire) -> None:
    hire("a@host", answers)
    hire("b@host", lambda *_: {"ok": "larger"})

    ended = qctl("control", "pool_grow", "2")

    assert ended.exit_code == 1
    assert "a@host: ERROR" in ended.output
    assert "b@host: OK" in ended.output


def test_orders_about_tasks_are_carried_out(qctl: Shell, hire: Hire) -> None:
    hire("a@host", answers)

    said = qctl.said("control", "revoke", "x")

    assert said == "->  a@host: OK\n        tasks {'x'} flagged as revoked\n"
    assert json.loads(qctl.said("inspect", "-j", "revoked")) == {"a@host": ["x"]}


@pytest.mark.parametrize("kind", ["inspect", "control"])
@pytest.mark.parametrize("option", ["--help", "--list"])
def test_help_lists_every_command_with_its_arguments(qctl: Shell, kind: str, option: str) -> None:
    said = " ".join(qctl.said(kind, option).split())

    for name, info in BUILT_IN.items():
        assert (f"{name} {info.signature or ''}".strip() in said) is (info.type == kind)


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_command_has_an_example_to_copy_that_can_be_meant(qctl: Shell, name: str) -> None:
    kind = BUILT_IN[name].type
    said = qctl.said(kind, name, "--help")

    (example,) = [line for line in said.splitlines() if "Example:" in line]
    words = example.partition("Example:")[2].split()
    assert words[:2] == ["qctl", kind]
    assert name in words
    with command.make_context("qctl", [*words[1:]]) as context:
        group = command.get_command(context, kind)
    assert isinstance(group, click.Group)
    assert BUILT_IN[name].help in " ".join(said.split())


def test_what_is_a_list_of_tasks_or_queues_is_a_table_on_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scheduled = {"eta": "2100-01-01", "priority": 0, "request": INFO}
    queue = {"name": "mail", "exchange": {"type": "direct"}, "routing_key": "mail"}
    for name, items in (
        ("active", [INFO]),
        ("reserved", [INFO | {"time_start": None, "worker_pid": None}]),
        ("scheduled", [scheduled]),
        ("active_queues", [queue]),
    ):
        remote._TABLES[name]([{"a@host": items}, {"b@host": []}])
    said = capsys.readouterr().out

    rows = [line.split() for line in said.splitlines() if "a@host" in line]
    assert rows == [
        ["a@host", "1", "proj.add", "celery", "[2,", "2]", "8", "1970-01-01", "00:00:05.000+00:00"],
        ["a@host", "1", "proj.add", "celery", "[2,", "2]"],
        ["a@host", "2100-01-01", "1", "proj.add", "[2,", "2]"],
        ["a@host", "mail", "direct", "mail"],
    ]


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"ok": "pong"}, "->  a: OK\n        pong"),
        ({"error": "no"}, "->  a: ERROR\n        no"),
        ([], "->  a: OK\n    - empty -"),
        (["x", "y"], "->  a: OK\n    * x\n    * y"),
        ({"clock": 1}, '->  a: OK\n    {\n        "clock": 1\n    }'),
        (None, "->  a: OK\n    null"),
        ("text", "->  a: OK\n    text"),
    ],
)
def test_each_kind_of_answer_has_its_form(answer: Value, shown: str) -> None:
    assert chat({"a": answer}) == shown
