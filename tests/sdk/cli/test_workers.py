"""`qctl worker`."""

import json
import threading

import pytest

from qbroker.serialization import Value
from tests.sdk.answering import Silence
from tests.sdk.cli.asking import Shell
from tests.sdk.conftest import Hire

STATS = {
    "pid": 7,
    "uptime": 61,
    "pool": {"max-concurrency": 2, "processes": [8, 9]},
    "total": {"proj.add": 3, "proj.mul": 4},
    "rusage": {"maxrss": 2048},
}


def answers(name: str, arguments: dict[str, Value], words: list[str]) -> Value:
    found: dict[str, Value] = {
        "ping": {"ok": "pong"},
        "stats": STATS,
        "active": [{"id": "1", "name": "proj.add", "args": [2, 2]}],
        "shutdown": {"ok": "shutting down"},
    }
    return found[name]


def silent(name: str, arguments: dict[str, Value], words: list[str]) -> Value:
    raise Silence


def test_ls_lists_workers_by_name(qctl: Shell, hire: Hire) -> None:
    hire("b@host", answers, queues=("foo", "bar"))
    hire("a@host", answers)

    rows = [line.split() for line in qctl.said("worker", "ls").splitlines() if "@host" in line]
    found = qctl.json("worker", "ls")

    assert [row[0] for row in rows] == ["a@host", "b@host"]
    assert rows[1] == ["b@host", "7", "solo", "1", "0", "foo,", "bar", "1", "up"]
    assert [one["queues"] for one in found] == [["celery"], ["foo", "bar"]]


def test_show_tells_what_a_worker_is_and_does(qctl: Shell, hire: Hire) -> None:
    hire("a@host", answers, queues=("foo",))

    said = qctl.said("worker", "show", "a@host")
    found = qctl.json("worker", "show", "a@host")

    lines = [" ".join(line.split()) for line in said.splitlines()]
    for line in ("up 1 min 1 s", "processes 8, 9", "has done 7", "memory 2 MB at most"):
        assert line in lines
    assert "1 proj.add [2, 2]" in lines
    assert (found["name"], found["stats"], len(found["active"])) == ("a@host", STATS, 1)


def test_check_is_0_only_for_a_worker_that_takes_and_answers(qctl: Shell, hire: Hire) -> None:
    hire("well@host", answers, prefetch_count=1)
    hire("idle@host", answers, queues=(), prefetch_count=1)
    hire("full@host", answers, prefetch_count=0)
    hire("mute@host", silent, prefetch_count=1)

    ended = {
        name: qctl("worker", "check", f"{name}@host", "-t", "0.3")
        for name in ("well", "idle", "full", "mute", "none")
    }

    assert {name: one.exit_code for name, one in ended.items()} == {
        "well": 0,
        "idle": 1,
        "full": 1,
        "mute": 69,
        "none": 3,
    }
    assert "takes from celery and answers" in ended["well"].output
    assert "takes from no queue" in ended["idle"].output
    assert "does not answer" in ended["mute"].output
    assert "connected: full@host, idle@host" in ended["none"].output


@pytest.mark.parametrize(("said", "code", "orders"), [("y\n", 0, 1), ("n\n", 1, 0)])
def test_stop_asks_and_tells_the_workers(
    qctl: Shell, hire: Hire, said: str, code: int, orders: int
) -> None:
    worker = hire("a@host", answers)

    ended = qctl("worker", "stop", "a@host", stdin=said)

    assert ended.exit_code == code
    assert [one.command for one in worker.asked] == ["shutdown"] * orders


def test_stop_does_nothing_when_one_is_not_there(qctl: Shell, hire: Hire) -> None:
    worker = hire("a@host", answers)

    ended = qctl("worker", "stop", "a@host", "b@host", "--yes")

    assert ended.exit_code == 3
    assert worker.asked == []


def test_a_worker_that_is_going_does_not_pass(qctl: Shell, hire: Hire) -> None:
    worker = hire("a@host", answers, prefetch_count=1)
    worker._say(seq=1, drain=True)
    never = threading.Event()
    while not qctl.json("worker", "ls")[0]["is_draining"]:
        assert not never.wait(0.01)

    ended = qctl("worker", "check", "a@host")

    assert ended.exit_code == 1
    assert "finishes what it has" in ended.output
    assert "going" in qctl.said("worker", "ls")


def test_a_worker_whose_link_broke_does_not_pass(qctl: Shell, hire: Hire) -> None:
    worker = hire("a@host", answers, prefetch_count=1)
    worker._channel.close()
    worker._thread.join(10)

    ended = qctl("worker", "check", "a@host")

    assert ended.exit_code == 1
    assert "lost its link" in ended.output
    assert json.loads(qctl.said("worker", "ls", "--json"))[0]["is_connected"] is False
